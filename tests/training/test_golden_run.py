"""The losses of a tiny teacher and a tiny student, step by step, as they were when last looked at.

A refactor leaves them alone. A change that means to change them rewrites the file, and the commit says why:

    REWRITE_GOLDEN=1 python -m pytest tests/training/test_golden_run.py
"""

import json
import os
from pathlib import Path

import pytest

import distill
import finetune
from slmrec.artifacts import read_json

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "losses.json"
STEPS = 10


def step_losses(directory):
    """Every loss term of every step, from the log of the last checkpoint."""
    log = read_json(directory / f"checkpoint-{STEPS}" / "trainer_state.json")["log_history"]
    entries = [{name: value for name, value in entry.items() if name.startswith("loss")} for entry in log if "loss" in entry]
    assert len(entries) == STEPS
    return {name: [entry[name] for entry in entries] for name in entries[0]}


@pytest.mark.parametrize("targets", ["last", "all"])
def test_losses_are_as_they_were(tiny_flags, tmp_path, targets):
    common = {"targets": targets, "max_steps": STEPS, "save_steps": STEPS, "learning_rate": 0.002}
    finetune.main(tiny_flags(**common, num_layers=4, output_dir=tmp_path / "teacher"))
    teacher = {"teacher": tmp_path / "teacher", "num_blocks": 2, "lambda_norm": 0.01}
    distill.main(tiny_flags(**common, **teacher, train_strategy="lora", lora_dropout=0, output_dir=tmp_path / "student"))
    losses = {"teacher": step_losses(tmp_path / "teacher"), "student": step_losses(tmp_path / "student")}
    assert losses["teacher"].keys() == {"loss", "loss_ce"}
    assert losses["student"].keys() == {"loss", "loss_ce", "loss_cos", "loss_norm", "loss_ms"}
    recorded = read_json(GOLDEN) if GOLDEN.is_file() else {}
    if os.environ.get("REWRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(recorded | {targets: losses}, indent=1) + "\n")
        return
    for model, terms in recorded[targets].items():
        for term, expected in terms.items():
            assert losses[model][term] == pytest.approx(expected, rel=1e-4), f"{model} {term}"
