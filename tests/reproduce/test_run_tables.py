"""One real experiment through run_tables.sh, on few synthetic reviews and with few steps: run, reused, rendered."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reproduce import __main__ as command_line
from reproduce.experiments import EXPERIMENTS, FULL, ONLINE, Experiment, e4srec
from slmrec.artifacts import read_json
from slmrec.data import demo
from slmrec.pipeline import run as run_stages

ROOT = Path(__file__).parents[2]
FEW_STEPS = "--max_steps 4 --save_steps 2 --sasrec.num_epochs 1 --sasrec.hidden_size 16 --backbone.hidden_size 32".split()


def in_this_process(words):
    """Run one command; a stage in Python without a process of its own, whose imports would take longer than its work."""
    if words[0] != sys.executable:
        return subprocess.run(words, check=False).returncode
    module, flags = (words[2], words[3:]) if words[1] == "-m" else (Path(words[1]).stem, words[2:])
    importlib.import_module(f"{module}.__main__" if module == "slmrec.data" else module).main(flags)
    return 0


MODELS = [e4srec(8), FULL, ONLINE[0], ONLINE[2]]  # three trainings
PAIRS = [("slmrec_online", "slmrec_4_8"), ("slmrec_online/teacher", "e4srec_8")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A function that runs an experiment, a directory where it has run, and what was printed then."""
    directory = tmp_path_factory.mktemp("tables")
    demo.main(["--num_users", "300", "--num_items", "150", "--output_dir", str(directory / "raw")])

    def run(printed):
        with contextlib.redirect_stdout(printed):
            return command_line.run("small", "mine", ["--reviews", "raw/reviews.json.gz", *FEW_STEPS])

    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(directory)
        patched.setitem(EXPERIMENTS, "small", Experiment("Few models", "", "", models=MODELS, pairs=PAIRS, reference="e4srec_8"))
        patched.setattr(run_stages, "run_command", in_this_process)
        for name, value in (("SLMREC_STAGE", ""), ("TEACHER_STATES", "1"), ("OMP_NUM_THREADS", "1")):
            patched.setenv(name, value)
        patched.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        printed = io.StringIO()
        assert run(printed) == 0
        yield run, directory, printed.getvalue()


def test_every_model_of_an_experiment_is_there_and_compared(finished):
    found = read_json(finished[1] / "runs/tables/mine/small.json")
    assert not any(model["missing"] for model in found["models"])
    assert [model["name"] for model in found["models"]] == [model.name for model in MODELS]
    assert found["synthetic"] and len(found["comparisons"]) == 4
    config = found["models"][2]["runs"][0]["provenance"]["config"]
    assert config["online"] and config["max_steps"] == 4 and config["item_dropout"] == 0.5


def test_the_table_is_printed_and_all_is_rendered(finished):
    _, directory, printed = finished
    assert (directory / "runs/tables/mine/small.md").read_text() in printed
    report = (directory / "runs/tables/report.html").read_text()
    assert "<code>bash run_tables.sh ablation mine</code>" in report and "SYNTHETIC" in report and 'id="small-mine"' in report
    assert (directory / "runs/tables/mine/small-paired.csv").is_file()


def test_a_second_start_starts_nothing(finished, monkeypatch):
    run, directory, _ = finished
    monkeypatch.setattr(run_stages, "run_command", None)  # it would be called
    files = {path: path.stat().st_mtime_ns for path in (directory / "runs").rglob("*") if path.is_file()}
    printed = io.StringIO()
    assert run(printed) == 0
    assert "Nothing to do" in printed.getvalue() and (directory / "runs/tables/mine/small.md").read_text() in printed.getvalue()
    assert files == {path: path.stat().st_mtime_ns for path in (directory / "runs").rglob("*") if path.is_file()}


def test_the_script_renders_what_needs_no_data_set(tmp_path):
    command = ["bash", str(ROOT / "run_tables.sh"), "theory"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    outcome = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    assert read_json(tmp_path / "runs/tables/theory.json")["holds"] and "relative errors" in outcome.stdout
    assert (tmp_path / "runs/tables/report.html").is_file()
