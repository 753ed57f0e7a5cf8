import re
from pathlib import Path

import pytest

from reproduce.experiments import COUNTING, MODEL_EXPERIMENTS, PAIRS, models_of
from slmrec.artifacts import write_json
from slmrec.encoders.registry import ENCODERS

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = (ROOT / "experiments.sh").read_text(encoding="utf-8")
CASES = {  # experiment -> what experiments.sh runs for it
    name: body
    for names, body in re.findall(r"^        ([\w |-]+)\).*?\n(.*?);;", SCRIPT, re.DOTALL | re.MULTILINE)
    for name in names.split(" | ")
}


def write_backbone(run_dir, layers):
    (run_dir / "backbone").mkdir(parents=True)
    write_json(run_dir / "backbone" / "config.json", {"num_hidden_layers": layers})


def names(experiment, run_dir):
    return [model.name for model in models_of(experiment, run_dir)]


@pytest.mark.parametrize("experiment", ["ablation", "blocks", "online", "kd-kinds", "student-size"])
def test_the_script_runs_the_students_that_the_tables_show(experiment, tmp_path):
    """`student` stands for slmrec_4_8; the jointly trained teacher is part of its student's run."""
    write_backbone(tmp_path, 8)
    run = set(re.findall(r"^ +slmrec (\S+)", CASES[experiment], re.MULTILINE)) | {"slmrec_4_8"}
    assert "student" in CASES[experiment]
    shown = {name for name in names(experiment, tmp_path) if name.startswith("slmrec") and "/" not in name}
    assert run == shown


def test_every_experiment_of_the_tables_is_one_of_the_script():
    assert set(MODEL_EXPERIMENTS) | {"cold", "layers", "depth-infer", "efficiency", "stats"} == CASES.keys()


def test_depths_are_the_papers_as_far_as_the_backbone_goes(tmp_path):
    write_backbone(tmp_path / "small", 8)
    write_backbone(tmp_path / "large", 32)
    assert names("depth-train", tmp_path / "small") == ["e4srec_1", "e4srec_2", "e4srec_4", "e4srec_8"]
    assert [model.x for model in models_of("depth-train", tmp_path / "large")] == [1, 2, 4, 8, 16, 24, 32]
    assert re.search(r"for LAYERS in ([\d ]+); do", CASES["depth-train"])[1].split() == ["1", "2", "4", "8", "16", "24", "32"]


def test_main_has_all_layers_only_where_they_are_more_than_the_teachers(tmp_path):
    write_backbone(tmp_path / "small", 8)
    write_backbone(tmp_path / "large", 32)
    assert names("main", tmp_path / "small") == ["sasrec", "e4srec_8", "e4srec_4", "slmrec_4_8"]
    assert names("main", tmp_path / "large") == ["sasrec", "e4srec_32", "e4srec_8", "e4srec_4", "slmrec_4_8"]


def test_without_a_local_backbone_the_deepest_trained_model_tells(tmp_path):
    (tmp_path / "e4srec_24").mkdir()
    assert names("main", tmp_path)[1] == "e4srec_24"


def test_other_encoders_stand_in_the_papers_order(tmp_path):
    for name in ("hgn", "gru4rec"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    assert names("main", tmp_path)[:3] == ["gru4rec", "sasrec", "hgn"]


def test_the_conventional_models_are_those_of_the_registry(tmp_path):
    from_actions = {name: entry for name, entry in ENCODERS.items() if not entry.needs_text}
    assert set(names("encoders", tmp_path)) == from_actions.keys()
    assert {name for name, entry in from_actions.items() if not entry.training_defaults} == set(COUNTING)


def test_teachers_of_other_sizes(tmp_path):
    write_backbone(tmp_path, 8)
    (tmp_path / "backbone_w64").mkdir()
    expected = ["e4srec_4", "slmrec_4_4", "e4srec_8", "slmrec_4_8", "e4srec_8_w64", "slmrec_w64"]
    assert names("teacher-size", tmp_path) == expected


def test_pairs_are_of_models_that_the_table_shows(tmp_path):
    write_backbone(tmp_path, 32)
    for experiment, pairs in PAIRS.items():
        assert {name for pair in pairs for name in pair} <= set(names(experiment, tmp_path)), experiment
