"""Curves: the same names and both step and epoch in all training stages; where they go, and what an interrupted run leaves."""

import sys
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import finetune
import train_sr_trad
from slmrec import checks
from slmrec.encoders.arguments import TrainEncoderArguments
from slmrec.errors import InputError
from slmrec.evaluation.metrics import METRICS
from slmrec.training.arguments import LlmTrainingArguments
from slmrec.training.run_log import RunLog

SASREC = "--hidden_size 8 --num_layers 1 --num_epochs 2 --batch_size 16 --device cpu"  # 48 users: 3 steps an epoch


def curves(directory):
    """{tag: [(step, value), ...]} of a finished stage."""
    events = EventAccumulator(str(directory / "runs")).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture
def sasrec(tiny_data, tmp_path):
    """sasrec(*flags): trains it, and gives its directory."""

    def run(*flags):
        train_sr_trad.main(["--data", str(tiny_data), "--output_dir", str(tmp_path / "sasrec"), *SASREC.split(), *flags])
        return tmp_path / "sasrec"

    return run


def test_all_training_stages_use_the_same_names(sasrec, tiny_flags, tmp_path):
    encoder = curves(sasrec())
    finetune.main(tiny_flags(max_steps=2, save_steps=2, output_dir=tmp_path / "e4srec"))
    llm = curves(tmp_path / "e4srec")
    assert {tag for tag in encoder if tag.startswith("eval/")} == {f"eval/{name}" for name in METRICS}
    assert {tag for tag in llm if tag.startswith("eval/")} == {f"eval/{name}" for name in METRICS}
    assert {"train/loss", "train/learning_rate", "train/epoch"} <= encoder.keys() & llm.keys()


def test_steps_and_epochs(sasrec):
    found = curves(sasrec())
    assert found["train/epoch"] == [(3, 1.0), (6, 2.0)]
    assert [step for step, _ in found["eval/MRR"]] == [3, 6]


def test_terms_of_an_objective(sasrec):
    assert "train/loss_contrast" in curves(sasrec("--model", "duorec", "--num_heads", "2"))


def test_none_writes_nothing(sasrec):
    assert not (sasrec("--report_to", "none") / "runs").exists()


def test_what_an_interrupted_run_wrote_after_its_checkpoint_is_hidden(tmp_path):
    with RunLog("tensorboard", tmp_path) as log:
        for step in (1, 2, 3):
            log.add("train", {"loss": float(step)}, step)
    with RunLog("tensorboard", tmp_path, step=1) as log:
        log.add("train", {"loss": 20.0}, 2)
    assert curves(tmp_path)["train/loss"] == [(1, 1.0), (2, 20.0)]


def test_wandb_gets_the_same_names(tmp_path, monkeypatch):
    sent, made = [], {}
    run = types.SimpleNamespace(log=sent.append, finish=lambda exit_code: sent.append(exit_code))
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **options: made.update(options) or run))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    with RunLog("wandb", tmp_path / "e4srec_8.partial", config={"seed": 1}) as log:
        log.add("eval", {"MRR": 0.25}, 7)
    assert made == {"project": "slmrec", "name": "e4srec_8", "config": {"seed": 1}}
    assert sent == [{"eval/MRR": 0.25, "train/global_step": 7}, 0]


@pytest.mark.parametrize("arguments", [LlmTrainingArguments, lambda **flags: TrainEncoderArguments(data="x", **flags)])
def test_a_missing_package_is_one_line(monkeypatch, arguments):
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == "wandb" else name)
    with pytest.raises(InputError, match=r"^--report_to wandb: the package wandb is not installed \(pip install wandb\)$"):
        arguments(report_to="wandb")
    arguments(report_to="none")
    with pytest.raises(InputError, match="^--report_to mlflow: choose one of none, tensorboard, wandb$"):
        arguments(report_to="mlflow")
