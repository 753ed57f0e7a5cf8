"""Our scripts' values beside Table 6: no drift but the printed typo, and a changed script is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from reproduce.hyperparameters import SHELL, TRAINER, comparison_rows, differences, script_values
from reproduce.published import TABLE_6
from slmrec.errors import InputError

ROOT = Path(__file__).parents[2]
TYPO = ("adam_beta2", "Sport", "9.999", "0.999")


def changed_script(tmp_path, old, new):
    """A directory whose hyperparameters.sh has `new` where ours has `old`."""
    text = (ROOT / "hyperparameters.sh").read_text()
    assert text.count(old) == 1
    (tmp_path / "hyperparameters.sh").write_text(text.replace(old, new))
    return tmp_path


def test_values_by_hand():
    values = script_values("music", ROOT)
    chosen = ("learning_rate", "max_steps", "warmup_steps", "save_steps", "eval_steps", "lambda_ms", "lr_scheduler_type")
    assert [values[name] for name in chosen] == ["0.002", "800", "100", "100", "100", "0.01", "cosine"]
    assert values.keys() == TABLE_6.keys()


def test_no_drift_but_the_printed_typo():
    lines = comparison_rows()
    assert [line.name for line in lines] == list(TABLE_6)
    assert differences(lines) == [TYPO]
    assert [line.drift for line in lines if line.drift] == [["Sport"]]


def test_the_environment_does_not_count(monkeypatch):
    monkeypatch.setenv("LEARNING_RATE", "7")
    monkeypatch.setenv("DATASET", "movie")
    assert script_values("cloth", ROOT)["learning_rate"] == "0.003"


def test_a_changed_value_is_drift(tmp_path):
    root = changed_script(tmp_path, "LEARNING_RATE=0.002 MAX_STEPS=800 ", "LEARNING_RATE=0.02 MAX_STEPS=800.0 ")
    assert differences(comparison_rows(root)) == [TYPO, ("learning_rate", "Music", "0.002", "0.02")]  # 800.0 is 800


def test_a_changed_value_for_all_is_drift_in_all(tmp_path):
    lines = comparison_rows(changed_script(tmp_path, "NUM_BLOCKS=4 ", "NUM_BLOCKS=2 "))
    assert {line.name: line.drift for line in lines if line.drift} == {
        "adam_beta2": ["Sport"],
        "num_blocks": ["Cloth", "Movie", "Music", "Sport"],
    }


@pytest.mark.parametrize("old, new", [("ADAM_EPSILON=1e-8 ", "EPSILON=1e-8 "), ("LAMBDA_COS=1.0 ", "LAMBDA_COS=1.0; (")])
def test_a_script_that_fails_or_lacks_a_value(tmp_path, old, new):
    with pytest.raises(InputError, match="hyperparameters.sh: .*(unbound|syntax)"):
        script_values("cloth", changed_script(tmp_path, old, new))


def test_a_missing_script(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        comparison_rows(tmp_path)


def test_every_value_is_passed_on_by_the_scripts():
    text = (ROOT / "hyperparameters.sh").read_text() + (ROOT / "run_distill.sh").read_text()
    assert not [name for name in SHELL if f'--{name} "${name.upper()}"' not in text]


def test_what_the_trainer_takes_by_default(tmp_path):
    from slmrec.training.arguments import LlmTrainingArguments
    from slmrec.training.trainer import hugging_face_arguments

    built = hugging_face_arguments(LlmTrainingArguments(save_steps=70, device="cpu"), tmp_path, bf16=False)
    assert {"optimizer": built.optim.value, "save_strategy": built.save_strategy.value} == TRAINER
    assert (built.eval_strategy.value, built.eval_steps, built.save_steps) == ("steps", 70, 70)
