"""The shell scripts' own arguments: usage errors are one line and write nothing; an environment is used when its pins hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", str(ROOT / script), *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(
    "script, arguments, message",
    [
        ("run_finetune.sh", [], "usage: [DATASET=NAME] bash run_finetune.sh OUTPUT_DIR"),
        ("run_finetune.sh", ["--num_layers", "4"], "usage:"),
        ("run_distill.sh", ["runs/teacher"], "usage: [DATASET=NAME] bash run_distill.sh TEACHER_CHECKPOINT|online OUTPUT_DIR"),
        ("run_pipeline.sh", ["demo", "--reviews"], "error: --reviews needs a value"),
        ("run_pipeline.sh", ["mine"], "error: mine is no data set of the paper: give its reviews with --reviews FILE"),
        ("run_pipeline.sh", ["mine", "--reviews", "missing.json"], "error: missing.json: no such file"),
        ("run_tables.sh", ["main"], "error: bash run_tables.sh main needs a DATASET"),
        ("run_tables.sh", ["main", "mine"], "error: mine is no data set of the paper: give its reviews with --reviews FILE"),
        ("run_tables.sh", ["main", "mine", "--seeds"], "error: --seeds needs a value"),
        ("run_tables.sh", ["main", "mine", "--seeds", "none"], "error: --seeds none: must be a number from 1 on"),
        ("run_tables.sh", ["mane", "demo"], "each has its own SASRec and backbone."),
    ],
)
def test_usage_errors(script, arguments, message, tmp_path):
    outcome = run(script, *arguments, cwd=tmp_path)
    assert outcome.returncode == 2
    assert message in outcome.stderr.strip().splitlines()[-1]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "script, line", [("run_pipeline.sh", "cloth|movie|music|sport"), ("run_tables.sh", "EXPERIMENT DATASET [--seeds N]")]
)
def test_help(script, line, tmp_path):
    outcome = run(script, "--help", cwd=tmp_path)
    assert outcome.returncode == 0
    assert line in outcome.stdout


def pins_hold(requirements: Path) -> bool:
    """Whether setup_env.sh would take this environment as it is."""
    check = f'source "{ROOT}/setup_env.sh" requirements.txt && slmrec_pins_hold "{sys.executable}" "{requirements}"'
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(["bash", "-c", check], env=environment, capture_output=True, timeout=100).returncode == 0


def test_an_environment_is_used_only_if_every_pin_holds(tmp_path):
    pins = tmp_path / "requirements.txt"
    pins.write_text((ROOT / "requirements.txt").read_text())
    assert pins_hold(pins)
    pins.write_text("numpy==0.0.1\n")
    assert not pins_hold(pins)
    pins.write_text("no-such-package==1.0\n")
    assert not pins_hold(pins)
