"""Command lines by hand: what is understood, what is refused and how, what -h shows; and the range of every number."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

import finetune
from slmrec.command_line import flags_of, parse_arguments
from slmrec.data.arguments import DataArguments, DemoArguments
from slmrec.distillation.arguments import DistillationArguments
from slmrec.encoders.registry import architecture_arguments, training_arguments
from slmrec.errors import InputError
from slmrec.evaluation.arguments import EvaluationArguments
from slmrec.llm.arguments import BackboneArguments, EllmArguments
from slmrec.runtime import pick_device
from slmrec.text.arguments import TextArguments, TextUseArguments
from slmrec.training.arguments import GuideArguments, LlmTrainingArguments, LossArguments

ROOT = Path(__file__).parent.parent


@dataclass
class Sample:
    """One flag of every kind."""

    place: str = field(metadata={"help": "where"})
    rate: float = field(default=0.5, metadata={"help": "how fast"})
    steps: int | None = field(default=None, metadata={"help": "how many; default: all"})
    kind: Literal["a", "b"] = field(default="a", metadata={"help": "which"})
    names: list[str] = field(default_factory=lambda: ["x", "y"], metadata={"help": "whose"})
    quick: bool = field(default=False, metadata={"help": "in haste"})
    whole: bool = field(default=True, metadata={"help": "all of it, 100%"})


def parse(line):
    (found,) = parse_arguments(Sample, line.split(), command="python sample.py")
    return found


@pytest.mark.parametrize(
    "line, expected",
    [
        ("--place p", Sample("p")),
        ("--place=p --rate=1e-3 --steps=7 --kind=b", Sample("p", 1e-3, 7, "b")),
        ("--place a=b --rate -2", Sample("a=b", -2.0)),
        ("--names u --place p --names v w", Sample("p", names=["v", "w"])),  # the last one counts
        ("--quick --no_whole --place p", Sample("p", quick=True, whole=False)),
        ("--quick false --whole=0 --place p", Sample("p", whole=False)),
        ("--no-whole --place p", Sample("p", whole=False)),
    ],
)
def test_what_is_understood(line, expected):
    assert parse(line) == expected


@pytest.mark.parametrize(
    "line, message",
    [
        ("", "--place is missing: where (python sample.py -h lists all flags)"),
        ("--place", "--place needs a value"),
        ("--place=", "--place needs a value, not an empty one"),
        ("--place p q", "--place takes one value, not p q"),
        ("p", "p: a flag such as --name is expected here"),
        ("-rate 1", "-rate: a flag such as --name is expected here"),
        ("--plaec p", "unknown flag --plaec: did you mean --place?"),
        ("--zzz p", "unknown flag --zzz: python sample.py -h lists all there are"),
        ("--pla p", "unknown flag --pla: did you mean --place?"),  # no abbreviations
        ("--place p --no_rate", "unknown flag --no_rate: did you mean --rate?"),
        ("--place p --rate fast", "--rate fast: must be a number"),
        ("--place p --rate nan", "--rate nan: must be a finite number"),
        ("--place p --rate -inf", "--rate -inf: must be a finite number"),
        ("--place p --steps 1.5", "--steps 1.5: must be a whole number"),
        ("--place p --kind c", "--kind c: choose one of a, b"),
        ("--place p --quick very", "--quick very: it is a switch, followed by nothing, true or false"),
        ("--place p --names", "--names needs a value"),
    ],
)
def test_what_is_refused(line, message):
    with pytest.raises(InputError) as refused:
        parse(line)
    assert str(refused.value) == message


def test_help_shows_choices_and_no_default_where_there_is_none(capsys):
    with pytest.raises(SystemExit) as left:
        parse("--rate nan -h")
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: python sample.py --place PLACE [flags]\n")
    shown = {" ".join(part.split()) for part in text.split("  --")[1:]}
    assert {
        "place STR where (required)",
        "rate FLOAT how fast (default: 0.5)",
        "steps INT how many; default: all",
        "kind {a,b} which (default: a)",
        "names STR [STR ...] whose (default: x y)",
        "quick in haste",
        "whole, --no_whole all of it, 100% (default: True)",
    } == shown


@pytest.mark.parametrize(
    "words, usage",
    [
        (["a script.py"], "python a script.py --output_dir OUTPUT_DIR"),
        (["-m", "slmrec.data"], "python -m slmrec.data --input"),
        (["-m", "slmrec.data.demo"], "python -m slmrec.data.demo --output_dir"),
    ],
)
def test_usage_names_the_command_that_was_typed(words, usage, tmp_path):
    script = "from slmrec.command_line import parse_arguments\nfrom slmrec.arguments import OutputArguments"
    (tmp_path / "a script.py").write_text(f"{script}\nparse_arguments(OutputArguments)")
    command, environment = [sys.executable, *words, "-h"], os.environ | {"PYTHONPATH": str(ROOT)}
    outcome = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert outcome.stdout.startswith(f"usage: {usage}") and "None" not in outcome.stdout


def test_an_entry_point_ends_with_one_line_and_status_2(tmp_path):
    command = [sys.executable, "-m", "slmrec.data.demo", "--num_usres", "100", "--output_dir", "out"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    outcome = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr == "error: unknown flag --num_usres: did you mean --num_users?\n"
    assert not list(tmp_path.iterdir())


STAGES = {
    "data": (DataArguments, {"format": "amazon", "input": "f"}),
    "demo": (DemoArguments, {}),
    "encoder": (architecture_arguments(), {}),
    "train_encoder": (training_arguments(), {"data": "d"}),
    "backbone": (BackboneArguments, {}),
    "ellm": (EllmArguments, {"base_model": "b"}),
    "distillation": (DistillationArguments, {"teacher": "t"}),
    "training": (LlmTrainingArguments, {}),
    "guide": (GuideArguments, {"guide": "g"}),
    "loss": (LossArguments, {"loss": "sampled"}),
    "text": (TextArguments, {"data": "d", "encoder": "e"}),
    "text_use": (TextUseArguments, {"text": "t"}),
    "evaluation": (EvaluationArguments, {"model": "m"}),
}
NUMBERS = [(stage, flag) for stage, (kind, _) in STAGES.items() for flag in flags_of(kind).values() if flag.kind in (int, float)]
ANY_FINITE = {("data", "min_rating")}  # ratings may have any scale
ZERO_IS_FINE = """seed candidates_seed weight_decay pretrain_epochs warmup_steps max_grad_norm dropout min_share mask_probability
    last_mask_share adam_beta1 adam_beta2 item_dropout lora_dropout attention_dropout max_malformed contrast_weight segment_weight
    associated_attribute_weight masked_attribute_weight reconstruction_weight
    lambda_cos lambda_norm lambda_ms lambda_logits lambda_attention lambda_contrastive lambda_guide lambda_ce
    text_exponent""".split()


@pytest.mark.parametrize("stage, flag", NUMBERS, ids=[f"{stage}-{flag.name}" for stage, flag in NUMBERS])
def test_every_number_has_its_range(stage, flag):
    """Whatever a program passes: negative, infinite and undefined numbers are one line; zero where it makes no sense."""
    kind, needed = STAGES[stage]
    refused = [-5, math.nan, math.inf, -math.inf] + ([] if flag.name in ZERO_IS_FINE else [0])
    for value in refused if (stage, flag.name) not in ANY_FINITE else [math.nan, math.inf]:
        with pytest.raises(InputError, match=f"^--{flag.name} ") as error:
            kind(**needed | {flag.name: value})
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"seed": 2**32}, "--seed 4294967296: must be in 0..2**32 - 1"),
        ({"candidates_seed": 2**64}, "--candidates_seed 18446744073709551616: must be in 0..2**64 - 1"),
        ({"num_candidates": 10**20}, "--num_candidates 100000000000000000000: must be below 2**40"),
        ({"max_steps": 0}, "--max_steps 0: must be at least 1, or -1 to train --num_train_epochs"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "--lr_scheduler_type cosine_with_min_lr: choose one of cosine, linear"),
        ({"device": "cuda:7"}, "--device cuda:7: choose one of auto, cpu, cuda"),
    ],
)
def test_bounds_and_choices_of_training(changes, message):
    with pytest.raises(InputError) as refused:
        LlmTrainingArguments(**changes)
    assert str(refused.value).startswith(message)
    with pytest.raises(InputError, match=f"--{next(iter(changes))} "):
        given = [f"--{name}={value}" for name, value in changes.items()]
        finetune.main(["--data", "d", "--embeddings", "e", "--base_model", "b", "--output_dir", "o", *given])


@pytest.mark.parametrize("name", ["mps", "meta", "cuda:", "cuda:-1", "cuda:99999999999", "3", "", "CPU"])
def test_devices_that_there_are_not(name):
    for asked in (lambda: TextArguments(data="d", device=name), lambda: pick_device(name)):
        with pytest.raises(InputError, match="^--device .*: choose auto, cpu, cuda or cuda:N"):
            asked()
    with pytest.raises(InputError, match="^--device cuda:99: no such CUDA device"):
        pick_device("cuda:99")


def test_a_spread_of_weights_above_one_is_refused():
    with pytest.raises(InputError, match="--initializer_range 3.0: must be at most 1"):
        BackboneArguments(initializer_range=3.0)


def test_there_is_no_other_parser():
    """One that stops at the first unknown flag with a traceback, or takes an abbreviation for a flag."""
    own = ROOT / "slmrec/command_line.py"
    sources = [
        path for path in [*ROOT.glob("*.py"), *ROOT.glob("slmrec/**/*.py"), *ROOT.glob("reproduce/**/*.py")] if path != own
    ]
    assert not [path.name for path in sources if re.search("HfArgumentParser|argparse", path.read_text(encoding="utf-8"))]
