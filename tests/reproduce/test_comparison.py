"""The comparison table and the collection of results, on a hand-made run directory."""

from __future__ import annotations

import csv
import json
import os
import re

import pytest

from reproduce import collect, comparison
from slmrec.artifacts import Stage, stage_input, write_json
from slmrec.errors import InputError

METRICS = {"HR@1": 0.1, "HR@5": 0.2, "HR@10": 0.3, "NDCG@5": 0.15, "NDCG@10": 0.25, "MRR": 0.125}


def finish(directory, name, config, inputs, metrics=None, files=None):
    with Stage(name, directory, config, inputs) as stage:
        stage.metrics = metrics
        for file, content in (files or {}).items():
            write_json(stage.path / file, content)


@pytest.fixture
def run_dir(tmp_path):
    """An encoder, a teacher of 8 layers and a student of 4, all evaluated; the encoder without full ranking."""
    finish(tmp_path / "data", "data", {}, {}, files={"stats.json": {"synthetic": True}})
    data = {"data": stage_input(tmp_path / "data")}
    history = [{"train_seconds": 1.5}, {"train_seconds": 2.0}]
    finish(tmp_path / "sasrec", "encoder", {"model": "sasrec"}, data, {"parameters": 1000, "history": history})
    teacher = {"parameters": 2000, "train_seconds": 80.4, "history": []}
    finish(tmp_path / "teacher", "finetune", {"num_layers": 8}, data, teacher, {"recommender.json": {"num_layers": 8}})
    inputs = data | {"teacher": stage_input(tmp_path / "teacher")}
    student = {"parameters": 1500, "train_seconds": 60.0, "history": []}
    finish(tmp_path / "student", "distill", {"num_layers": 4}, inputs, student, {"recommender.json": {"num_layers": 4}})
    for model in ("sasrec", "teacher", "student"):
        ranked = {"sampled": METRICS | {"candidates": 999}}
        ranked |= {} if model == "sasrec" else {"full": METRICS | {"items": 1204}}
        model_input = {"model": stage_input(tmp_path / model)}
        finish(tmp_path / model / "evaluation-test", "evaluate", {}, model_input, {"test": ranked})
    return tmp_path


def test_names_order_and_numbers(run_dir):
    rows = [comparison.read_row(directory) for directory in comparison.evaluated_models(run_dir)]
    assert [(row.model, row.parameters, row.seconds) for row in rows] == [
        ("SASRec", 1000, 3.5),
        ("E4SRec_8", 2000, 80.4),
        ("SLMRec_4<-8", 1500, 60.0),
    ]


def test_table_by_hand(run_dir, capsys):
    comparison.main(["--run_dir", str(run_dir)])
    text = (run_dir / "comparison.md").read_text()
    assert "| E4SRec_8 | 10.00 | 20.00 | 30.00 | 15.00 | 25.00 | 12.50 | 2,000 | 80 |" in text.splitlines()
    assert text.startswith("**Ranked among 1 + 999 candidates, percent**") and "\nSynthetic data:" in text
    assert (
        "| SASRec | – | – | – | – | – | – | 1,000 | 4 |" in text.partition("all 1204 items")[2]
    )  # which it was not ranked among
    printed = capsys.readouterr().out
    assert re.search(r"^E4SRec_8 +10\.00 +20\.00 +30\.00 +15\.00 +25\.00 +12\.50 +2,000 +80$", printed, re.MULTILINE)
    assert f"python recommend.py --model {run_dir / 'student'} --users all" in printed
    assert "small catalogue" not in printed
    with open(run_dir / "comparison.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [rows[-1][name] for name in ("ranking", "Model", "MRR", "Parameters")] == ["full", "SLMRec_4<-8", "12.5", "1500"]


def test_the_last_models_example_ends_the_page(run_dir, capsys):
    history = [{"item": f"A{number}", "title": "" if number == 12 else f"Tuner {number}"} for number in range(1, 13)]
    best = [{"item": f"B{rank}", "title": "Capo " * 20, "score": 1.0} for rank in range(1, 11)]
    written = {"history": history, "target": {"item": "B2", "title": "Capo"}, "recommended": best}
    write_json(run_dir / "student/evaluation-test/example.json", written)
    comparison.main(["--run_dir", str(run_dir)])
    first, *lines = capsys.readouterr().out.rstrip("\n").partition("One user's history")[2].splitlines()
    assert first == ", the latest 10 of 12 items:" and lines[:2] == ["      A3   Tuner 3", "      A4   Tuner 4"]
    assert lines[9:12] == ["      A12", "", "The ten best items after it, by SLMRec_4<-8 (* is what came next):"]
    assert lines[13].startswith("  *2  B2   Capo Capo") and lines[-1].startswith("  10  B10  Capo") and len(lines) == 22
    write_json(run_dir / "student/evaluation-test/example.json", written | {"target": {"item": "C1", "title": "Drum"}})
    assert comparison.example(run_dir / "student")[-3:] == ["What came next:", "      C1   Drum", ""]
    assert comparison.example(run_dir / "sasrec") == []  # evaluated before there were examples


def test_the_next_commands_can_be_pasted_where_one_stands(run_dir, tmp_path, monkeypatch):
    there = tmp_path / "a b"
    there.mkdir()
    monkeypatch.chdir(there)
    root = os.path.relpath(comparison.ROOT)
    recommend, _, _, tables = comparison.next_commands(run_dir)[-4:]
    assert recommend.startswith(f"  python {root}/recommend.py --model {run_dir}/student ")
    assert f"bash {root}/run_tables.sh main {run_dir.name} --run_dir {run_dir} " in tables


def test_a_small_catalogue_is_told_once(run_dir, capsys):
    rows = [comparison.read_row(directory) for directory in comparison.evaluated_models(run_dir)]
    for row in rows:
        row.metrics["sampled"] |= {"small_catalogue": True, "candidates": 322}
    assert comparison.for_the_terminal(rows, run_dir).count("as few as 322 candidates") == 1


def test_a_run_without_evaluations_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no model there has been evaluated"):
        comparison.main(["--run_dir", str(tmp_path)])


def test_collected_files_are_the_small_ones(run_dir, tmp_path_factory):
    comparison.main(["--run_dir", str(run_dir)])
    (run_dir / "student" / "model.safetensors").write_bytes(b"weights")
    target = tmp_path_factory.mktemp("results") / "seed_0"
    collect.main(["--run_dir", str(run_dir), "--output_dir", str(target)])
    names = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert {"data/stats.json", "student/metrics.json", "student/evaluation-test/manifest.json", "comparison.md"} <= names
    assert not [name for name in names if name.endswith((".safetensors", "recommender.json", "config.json"))]
    assert json.loads((target / "teacher/metrics.json").read_text())["parameters"] == 2000


def test_large_files_are_refused(run_dir, tmp_path_factory):
    (run_dir / "data" / "stats.json").write_text(" " * (collect.LARGEST + 1))
    with pytest.raises(InputError, match="too many"):
        collect.collect(run_dir, tmp_path_factory.mktemp("results"))


def test_a_model_that_was_given_texts_says_so(tmp_path):
    for control, label in (("none", "SASRec from titles"), ("shuffled", "SASRec from shuffled titles")):
        config = {"model": "sasrec", "text": {"text_use": "start", "text_control": control}}
        with Stage("encoder", tmp_path / control, config, {}):
            pass
        assert comparison.display_name(tmp_path / control) == label
    with Stage("encoder", tmp_path / "plain", {"model": "sasrec"}, {}):
        pass
    assert comparison.display_name(tmp_path / "plain") == "SASRec"
