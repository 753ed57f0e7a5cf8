"""run_tables.sh end to end on the demo data, with few steps: experiments, reuse of finished runs, rendering."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slmrec.artifacts import read_json

ROOT = Path(__file__).parents[2]
FEW_STEPS = ["--max_steps", "4", "--save_steps", "2"]


def run_tables(directory, *arguments):
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ENCODER_FLAGS": "--num_epochs 1 --hidden_size 16",
        "BACKBONE_FLAGS": "--hidden_size 32",
        "TEACHER_STATES": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = ["bash", str(ROOT / "run_tables.sh"), *arguments]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A directory where `online` has run on the demo data, and how long that took."""
    directory = tmp_path_factory.mktemp("tables")
    started = time.monotonic()
    outcome = run_tables(directory, "online", "demo", *FEW_STEPS)
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    return directory, time.monotonic() - started


def test_every_model_of_an_experiment_is_there_and_compared(finished):
    directory, seconds = finished
    found = read_json(directory / "runs/tables/demo/online.json")
    assert not any(model["missing"] for model in found["models"])
    names = ["e4srec_8", "e4srec_4", "slmrec_4_8", "slmrec_online", "slmrec_online_logits", "slmrec_online/teacher"]
    assert [model["name"] for model in found["models"]] == names
    assert found["synthetic"] and len(found["comparisons"]) == 8
    config = found["models"][4]["runs"][0]["provenance"]["config"]
    assert config["online"] and config["lambda_logits"] == 1.0 and config["item_dropout"] == 0.0
    assert seconds < 300


def test_other_experiments_show_what_is_missing(finished):
    directory, _ = finished
    text = (directory / "runs/tables/demo/ablation.md").read_text()
    assert "missing: bash run_tables.sh ablation demo" in text and "SYNTHETIC" in text
    report = (directory / "runs/tables/report.html").read_text()
    assert "bash run_tables.sh ablation demo" in report and "SYNTHETIC" in report


def test_finished_runs_are_reused(finished):
    directory, _ = finished
    manifests = {path: path.read_bytes() for path in (directory / "runs/demo").rglob("manifest.json")}
    outcome = run_tables(directory, "depth-infer", "demo", *FEW_STEPS)
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    for stage in ("sasrec", "embeddings", "backbone", "e4srec_8", "e4srec_8/evaluation-test"):
        assert f"runs/demo/{stage}: up to date" in outcome.stdout
    assert all(path.read_bytes() == content for path, content in manifests.items())
    layers = read_json(directory / "runs/tables/demo/depth-infer.json")["runs"][0]["layers"]
    assert {entry["layer"] for entry in layers} == set(range(1, 9))


def test_theory_needs_no_data_set(tmp_path):
    outcome = run_tables(tmp_path, "theory")
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    assert read_json(tmp_path / "runs/tables/theory.json")["holds"]
    assert (tmp_path / "runs/tables/report.html").is_file()


def test_flags_of_the_conventional_models_reach_them(finished):
    outcome = run_tables(finished[0], "encoders", "demo", "--num_epochs", "0")
    assert outcome.returncode == 2 and "--num_epochs" in outcome.stderr
