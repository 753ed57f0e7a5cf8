"""Whose flag is it: every spelling by hand, and the stages' flags against those that their scripts really take."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field

import pytest

from slmrec.command_line import flags_of
from slmrec.errors import InputError
from slmrec.pipeline.flags import EVERYWHERE, LLM, STAGES, share_flags, share_lines

ABSENT = {"demo": "no demo here", "text": "no titles here"}


@dataclass
class Own:
    """Flags of the caller."""

    run_dir: str | None = field(default=None, metadata={"help": "where"})
    quick: bool = field(default=False, metadata={"help": "in haste"})


def share(line, absent=ABSENT):
    own, shares = share_flags(line.split(), Own, STAGES, absent, "bash x.sh")
    return own, {stage: " ".join(words) for stage, words in shares.items() if words}


def to(stages, words):
    return dict.fromkeys(stages, words)


@pytest.mark.parametrize(
    "line, expected",
    [
        ("", {}),
        ("--sasrec.learning_rate 0.1", {"sasrec": "--learning_rate 0.1"}),
        ("--learning_rate 0.1", to(LLM, "--learning_rate 0.1")),
        ("--llm.learning_rate=0.1", to(LLM, "--learning_rate 0.1")),
        (
            "--teacher.num_layers 6 --student.num_layers 2 --num_blocks 2",
            {"teacher": "--num_layers 6", "student": "--num_layers 2 --num_blocks 2"},
        ),
        ("--lambda_ms 0.5 --no_distill_last_block", {"student": "--lambda_ms 0.5 --no_distill_last_block"}),
        ("--dropout 0.1", {"sasrec": "--dropout 0.1"}),
        ("--attention_dropout 0.1", {"backbone": "--attention_dropout 0.1"}),
        ("--lora_target_modules q_proj v_proj", to(LLM, "--lora_target_modules q_proj v_proj")),
        ("--seed 3", to(["sasrec", "backbone", *LLM], "--seed 3")),
        ("--device cpu", to(["sasrec", *LLM, "evaluate"], "--device cpu")),
        ("--num_candidates 99", to([*LLM, "evaluate"], "--num_candidates 99")),
        ("--max_length 20", to(["sasrec", *LLM], "--max_length 20")),
        ("--precision bf16", to(["sasrec", *LLM], "--precision bf16")),
        ("--protocol released", to(["data", "student"], "--protocol released")),
        ("--data.protocol released", {"data": "--protocol released"}),
        (
            "--student.protocol released --evaluate.num_candidates 9",
            {"student": "--protocol released", "evaluate": "--num_candidates 9"},
        ),
        ("--k_core 3 --format csv --user_column u", {"data": "--k_core 3 --format csv --user_column u"}),
        ("--sasrec.seed 1 --seed 2", {"sasrec": "--seed 1 --seed 2"} | to(["backbone", *LLM], "--seed 2")),
        ("--learning_rate 1 --learning_rate 2", to(LLM, "--learning_rate 1 --learning_rate 2")),
    ],
)
def test_where_a_flag_goes(line, expected):
    assert share(line) == (Own(), expected)


def test_the_callers_own_flags_go_to_no_stage():
    assert share("--run_dir d --quick --seed 1")[0] == Own("d", True)
    assert share("--no_quick")[0] == Own()


def test_the_demos_stage_has_its_seed_by_name_alone():
    own, shares = share_flags(["--seed", "1", "--demo.seed", "2", "--num_users", "50"], Own)
    assert shares["demo"] == ["--seed", "2", "--num_users", "50"] and shares["text"] == ["--seed", "1"]


@pytest.mark.parametrize(
    "line, message",
    [
        ("--foo 1", "unknown flag --foo: bash x.sh -h lists all there are"),
        ("--lerning_rate 1", "unknown flag --lerning_rate: did you mean --learning_rate?"),
        ("--lr 1", "unknown flag --lr: did you mean --learning_rate?"),
        ("--epochs 1", "unknown flag --epochs: did you mean --num_epochs?"),
        ("--run_dri d", "unknown flag --run_dri: did you mean --run_dir?"),
        ("--sasrec.lerning_rate 1", "unknown flag --sasrec.lerning_rate: did you mean --sasrec.learning_rate?"),
        ("--sasrc.learning_rate 1", "unknown flag --sasrc.learning_rate: did you mean --sasrec.learning_rate?"),
        ("--teacher.num_blocks 1", "unknown flag --teacher.num_blocks: did you mean --student.num_blocks?"),
        ("--student.fooo 1", "unknown flag --student.fooo: bash x.sh -h lists all there are"),
        ("--student.lambda_mss 1", "unknown flag --student.lambda_mss: did you mean --student.lambda_ms?"),
        ("--hidden_size 8", "--hidden_size is ambiguous: give --sasrec.hidden_size or --backbone.hidden_size"),
        (
            "--num_layers 2",
            "--num_layers is a number of its own in each stage: give --sasrec.num_layers or --backbone.num_layers or "
            "--teacher.num_layers or --student.num_layers",
        ),
        (
            "--llm.num_layers 2",
            "--llm.num_layers is a number of its own in each stage: give --teacher.num_layers or --student.num_layers",
        ),
        ("--baseline.num_layers 2", "--baseline.num_layers is set by the pipeline itself (it follows --student.num_layers)"),
        ("--output_dir o", "--output_dir is set by the pipeline itself (python -m slmrec.data takes it)"),
        ("--input f", "--input is set by the pipeline itself (give --reviews FILE)"),
        ("--overwrite_output_dir", "--overwrite_output_dir is set by the pipeline itself (what changed is redone without it)"),
        ("--pretrain_epochs 2", "--pretrain_epochs is set by the pipeline itself (SASRec has no pretraining)"),
        ("--demo.num_users 50", "--demo.num_users: no demo here"),
        ("--num_users 50", "--num_users: no demo here"),
        ("--encoder minilm", "--encoder: no titles here"),
        ("--sasrec.learning_rate nan", "--sasrec.learning_rate nan: must be a finite number"),
        ("--seed -1", "sasrec: --seed -1: must be in 0..2**32 - 1"),
        ("--seed 1 2", "sasrec: --seed takes one value, not 1 2"),
        ("--precision auto", "sasrec: --precision auto: choose one of fp32, bf16"),
        ("--format csv --item_table f", "data: --item_table is only for --format sequences or recbole"),
        ("--student.num_blocks 1", "--student.num_blocks 1 has no intermediate block to supervise (Eq. 5): give --lambda_ms 0"),
        ("--backbone.hidden_size 65", "--backbone.hidden_size 65: rotary heads need an even share for each of 4 heads"),
        ("--num_negatives 3", "teacher: --num_negatives 3: --loss ce is over all items; --loss sampled draws some"),
        ("--run_dir", "--run_dir needs a value"),
        ("x --seed 1", "x: a flag such as --name is expected here"),
    ],
)
def test_what_is_refused_and_how(line, message):
    with pytest.raises(InputError) as refused:
        share(line)
    assert str(refused.value) == message


def test_a_flag_of_data_that_stay_as_they_are_is_not_ignored():
    absent = ABSENT | {"data": "the data stay"}
    messages = {
        "--k_core 3": "--k_core: the data stay",
        "--protocol released": "--protocol: the data stay; or give --student.protocol",
    }
    for line, message in messages.items():
        with pytest.raises(InputError) as refused:
            share(line, absent)
        assert str(refused.value) == message
    assert share("--student.protocol released", absent)[1] == {"student": "--protocol released"}


def test_stages_with_the_same_share_are_one_line():
    shares = {"sasrec": ["--seed", "1"], "data": [], "teacher": ["--names", "a b"], "student": ["--seed", "1"]}
    assert share_lines(shares) == ["sasrec, student  --seed 1", "teacher          --names 'a b'"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_described_by_what_its_script_parses(stage, monkeypatch):
    """Another encoder than SASRec brings flags of its own along."""
    words = STAGES[stage].command.split()
    name = words[-1].removesuffix(".py")
    script = importlib.import_module("slmrec.data.__main__" if name == "slmrec.data" else name)
    parsed = {}

    def remember(kinds, *_, **__):
        parsed.update(flags_of(*(kinds if isinstance(kinds, tuple) else (kinds,))))
        raise InputError("seen")

    monkeypatch.setattr(script, "parse_arguments", remember)
    with pytest.raises(InputError, match="seen"):
        script.main([])
    described = flags_of(*STAGES[stage].kinds)
    assert described.keys() <= parsed.keys()
    assert stage == "sasrec" or described.keys() == parsed.keys()
    assert set(STAGES[stage].wired) <= described.keys()


def test_what_goes_everywhere_means_the_same_wherever_it_is():
    for name in EVERYWHERE:
        having = [described.flags()[name] for described in STAGES.values() if name in described.flags()]
        assert len(having) > 1 and len({flag.kind for flag in having}) == 1
