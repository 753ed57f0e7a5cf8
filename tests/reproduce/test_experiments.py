"""The one list of experiments: what it holds, and that everything comes from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reproduce import report, tables
from reproduce.experiments import (
    ENCODER_LABELS,
    ENCODERS,
    EXPERIMENTS,
    FULL,
    Backbone,
    Experiment,
    as_markdown,
    as_text,
    e4srec,
    models_of,
    slmrec,
    student,
)
from reproduce.figures import pictures
from slmrec.artifacts import write_json
from slmrec.encoders import registry
from slmrec.encoders.registry import TRAINED
from slmrec.evaluation.metrics import METRICS
from tests.reproduce.test_tables import a_run, model_summary

ROOT = Path(__file__).resolve().parents[2]
SMALL, SMOLLM, LLAMA = Backbone(8), Backbone(30, random=False), Backbone(32, random=False)


def names(experiment, backbone=SMALL):
    return [model.name for model in models_of(experiment, backbone)]


def test_depths_are_the_papers_as_far_as_the_backbone_goes():
    assert names("depth-train") == ["e4srec_1", "e4srec_2", "e4srec_4", "e4srec_8"]
    assert [model.x for model in models_of("depth-train", SMOLLM)] == [1, 2, 4, 8, 16, 24, 30]
    assert [model.x for model in models_of("depth-train", LLAMA)] == [1, 2, 4, 8, 16, 24, 32]


def test_main_has_all_layers_only_where_they_are_more_than_the_teachers():
    assert names("main")[-3:] == ["e4srec_8", "e4srec_4", "slmrec_4_8"]
    assert names("main", SMOLLM)[-4:] == ["e4srec_30", "e4srec_8", "e4srec_4", "slmrec_4_8"]
    assert [model.name for model in models_of("main", SMALL) if not model.optional] == ["sasrec", *names("main")[-3:]]


def test_teachers_of_other_sizes():
    """Other widths only where a random backbone can be made; as many blocks as divide both depths."""
    assert names("teacher-size") == [
        "e4srec_4",
        "slmrec_4_4",
        "e4srec_8",
        "slmrec_4_8",
        "e4srec_8_w64",
        "slmrec_w64",
        "e4srec_8_w256",
        "slmrec_w256",
    ]
    models = {model.name: model for model in models_of("teacher-size", SMOLLM)}
    assert [model.layers for model in models.values() if model.stage == "finetune"] == [4, 8, 16, 30]
    assert (models["slmrec_4_16"].flags, models["slmrec_4_30"].flags) == ("", "--num_blocks 2")
    assert models["slmrec_4_30"].label == "SLMRec_4<-30, B = 2"


def test_controls_differ_in_their_weights_and_in_what_is_trained_alone():
    """Pretrained or random, LoRA or whole: four models a depth, of which the first has no flags of its own; two Open-P5s."""
    models = {model.name: model for model in models_of("pretrained", SMOLLM)}
    assert len(models) == 10 and [name for name, model in models.items() if model.random] == [
        *(f"e4srec_{depth}_random{kind}" for depth in (8, 4) for kind in ("_lora", "")),
        "openp5_random",
    ]
    for depth in (8, 4):
        plain, whole, lora, random = (models[f"e4srec_{depth}{kind}"] for kind in ("", "_whole", "_random_lora", "_random"))
        assert {model.layers for model in (plain, whole, lora, random)} == {depth} and plain.flags == ""
        assert whole.flags == random.flags and whole.flags.split()[4:] == lora.flags.split()[4:]


def test_one_block_has_nothing_to_supervise():
    assert student(1, 8).flags == "--num_blocks 1 --lambda_ms 0" and student(4, 8) == FULL


def test_the_conventional_models_are_those_of_the_registry():
    """Those that need no texts are run; all have a name for tables."""
    assert {model.name for model in ENCODERS} == {*TRAINED, "popularity", "markov"}
    assert ENCODER_LABELS.keys() == registry.ENCODERS.keys()


@pytest.mark.parametrize("experiment", [name for name, entry in EXPERIMENTS.items() if entry.pairs])
def test_pairs_and_references_are_of_models_that_the_table_shows(experiment):
    """For some backbone: depths that none has are left out."""
    entry = EXPERIMENTS[experiment]
    shown = {name for layers in range(8, 33) for name in names(experiment, Backbone(layers))}
    pairs = [pair for pair in entry.pairs if shown.issuperset(pair)]
    assert pairs and len(set(pairs)) == len(pairs)
    assert all(shown.issuperset(pair) for pair in entry.pairs if not re.search(r"_\d+$", pair[0] + pair[1]))
    assert entry.axis or entry.reference in shown


def test_a_student_comes_after_its_teacher():
    for experiment in EXPERIMENTS:
        made = []
        for model in models_of(experiment, SMOLLM):
            made.append(model.name)
            assert model.teacher in ("", "online", "e4srec_8", *made)


def test_the_documents_table_is_the_list():
    documents = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]
    assert sum(f"<!-- experiments -->\n{as_markdown()}\n<!-- end -->" in text for text in documents) == 1


def test_a_new_experiment_is_one_entry(monkeypatch, tmp_path):
    """It stands in -h and in the documents' table, is summarised, has tables, a figure, and a place in the report."""
    models = [e4srec(8), *(slmrec(f"slmrec_t{n}", f"temperature {n}", f"--temperature {n}") for n in (1, 3))]
    pairs = [("slmrec_t1", "slmrec_t3")]
    entry = Experiment("Temperatures", "", "one student at two temperatures", models=models, pairs=pairs, reference="slmrec_t3")
    monkeypatch.setitem(EXPERIMENTS, "temperature", entry)
    assert "one student at two temperatures" in as_text() and "| `temperature` | - | one student" in as_markdown()
    runs = [a_run(0, "distill", mrr, 0.05) for mrr in (0.1, 0.2)]
    shown = [
        {"name": m.name, "label": m.label, "x": None, "runs": [run], "missing": []}
        for m, run in zip(models[1:], runs, strict=True)
    ]
    summary = model_summary("temperature") | {"models": shown, "comparisons": []}
    assert [row[0] for row in tables.tables(summary)[0].rows] == ["temperature 1", "temperature 3"]
    assert pictures(summary, None)[0].figure.axes[0].get_title(loc="right").endswith("minus temperature 3's 20.00")
    assert METRICS[0] in tables.tables(summary)[0].header
    (tmp_path / "scientific").mkdir()
    write_json(tmp_path / "scientific" / "temperature.json", summary)
    assert '<h2 id="temperature">Temperatures</h2>' in report.render(tmp_path).read_text()
