"""Commands of a pipeline are refused before the first one runs, where a stage would refuse them in the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from slmrec.errors import InputError
from slmrec.pipeline.steps import Step, check_base_models, check_flags, check_together, read_steps

ROOT = Path(__file__).parents[2]


def llm(script, name, **flags):
    given = {"data": "d", "embeddings": "e", "base_model": "r/backbone", "output_dir": f"r/{name}"} | flags
    words = [text for flag, value in given.items() for text in (f"--{flag}", str(value))]
    return Step(name, ("python", f"/some where/{script}.py", *words))


def plan(teacher=None, student=None, backbone=("--num_layers", "8")):
    return [
        Step("backbone", ("python", "-m", "slmrec.llm.make_backbone", "--output_dir", "r/backbone", *backbone)),
        llm("finetune", "teacher", **{"num_layers": 8} | (teacher or {})),
        llm("distill", "student", **{"num_layers": 4, "teacher": "r/teacher"} | (student or {})),
    ]


def check(steps):
    check_together(steps, check_flags(steps))


def test_a_step_knows_its_program_and_its_output():
    step = llm("finetune", "teacher")
    assert step.program == "python finetune.py" and step.output_dir == Path("r/teacher")
    assert step.command()[0] == sys.executable and step.command()[-1] == "--overwrite_output_dir"
    download = Step("download", ("bash", "datasets/download.sh", "music"))
    assert download.output_dir is None and download.command() == ["bash", "datasets/download.sh", "music"]
    hide = Step("hide", ("python", "-m", "reproduce.hidden_items", "hide", "--output_dir", "h"))
    assert hide.output_dir == Path("h")
    table = Step("table", ("python", "-m", "reproduce.comparison", "--run_dir", "r"))
    assert table.program == "python -m reproduce.comparison" and table.output_dir is None


def test_commands_are_read_by_their_number_of_words():
    words = ["4", "a", "python", "x.py", "3", "3", "b c", "bash", "-x"]
    assert read_steps(words) == [Step("a", ("python", "x.py", "3")), Step("b c", ("bash", "-x"))]


def test_a_plan_that_fits():
    check(plan())
    check(plan({"num_layers": 6}, {"num_layers": 2, "num_blocks": 2}))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"teacher": {"learning_rate": "nan"}}, "teacher: --learning_rate nan: must be a finite number"),
        ({"teacher": {"lerning_rate": 1}}, "teacher: unknown flag --lerning_rate: did you mean --learning_rate?"),
        ({"teacher": {"num_layers": 9}}, "teacher: --num_layers 9: the backbone has 8 layers"),
        ({"backbone": ("--num_layers", "2")}, "teacher: --num_layers 8: the backbone has 2 layers"),
        ({"teacher": {"num_layers": 6}}, "student: --num_blocks 4 does not divide the teacher's 6 layers"),
        ({"student": {"num_layers": 6}}, "student: --num_blocks 4 does not divide the student's 6 layers"),
        (
            {"student": {"targets": "all"}},
            "student: the teacher has --targets last, the student all; they must agree (--llm.targets)",
        ),
        (
            {"teacher": {"max_length": 20}},
            "student: the teacher has --max_length 20, the student 30; they must agree (--llm.max_length)",
        ),
        ({"teacher": {"lora_r": 4}}, "teacher: --lora_r: r/backbone is trained whole, without adapters (--train_strategy)"),
        ({"student": {"output_dir": "r/teacher"}}, "teacher and student would both write r/teacher: give them different layers"),
    ],
)
def test_what_does_not_fit(changes, message):
    with pytest.raises(InputError) as refused:
        check(plan(**changes))
    assert str(refused.value) == message


def open_p5(**flags):
    given = {"data": "d", "base_model": "r/backbone", "output_dir": "r/openp5"} | flags
    words = [text for flag, value in given.items() for text in (f"--{flag}", str(value))]
    return [plan()[0], Step("openp5", ("python", "train_openp5.py", *words))]


def test_an_open_p5_that_does_not_fit(tiny_backbone):
    """To a random backbone that is to be made, then to one that is there."""
    for fits in ({}, {"num_layers": 8}, {"train_strategy": "lora", "lora_r": 4}):
        check(open_p5(**fits))
    for flags, message in (
        ({"num_layers": 9}, "openp5: --num_layers 9: the backbone has 8 layers"),
        ({"lora_r": 4}, "openp5: --lora_r: r/backbone is trained whole, without adapters"),
    ):
        with pytest.raises(InputError, match=message):
            check(open_p5(**flags))
    (step,) = open_p5(base_model=tiny_backbone)[1:]
    check_base_models([step], check_flags([step]))
    for flags, message in (({"num_layers": 9}, "openp5: --num_layers 9: .* has 4 layers"), ({"lora_r": 4}, "openp5: --lora_r: ")):
        (step,) = open_p5(base_model=tiny_backbone, **flags)[1:]
        with pytest.raises(InputError, match=message):
            check_base_models([step], check_flags([step]))


def test_another_recommender_has_its_own_flags():
    words = ("python", "train_sr_trad.py", "--model", "duorec", "--data", "d", "--output_dir", "o", "--contrast_weight", "0.1")
    check([Step("duorec", words)])
    with pytest.raises(InputError, match="^sasrec: unknown flag --contrast_weight"):
        check([Step("sasrec", (*words[:3], "sasrec", *words[4:]))])


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"num_layers": 9}, "teacher: --num_layers 9: .* has 4 layers"),
        ({"base_model": "nowhere/at/all"}, "teacher: --base_model nowhere/at/all: no such directory"),
        ({"train_strategy": "lora", "lora_target_modules": "gate_proj nonsense"}, "--lora_target_modules nonsense: no layer has"),
        ({"lora_r": 4}, "teacher: --lora_r: .* is trained whole, without adapters"),
        ({}, None),
    ],
)
def test_a_base_model_that_is_there_is_looked_at_first(flags, message, tiny_backbone):
    given = {"num_layers": 4, "base_model": tiny_backbone} | flags
    step = llm("finetune", "teacher", **given)
    step = Step(step.name, tuple(part for word in step.words for part in (word.split() if "nonsense" in word else [word])))
    if message is None:
        check_base_models([step], check_flags([step]))
        return
    with pytest.raises(InputError, match=message):
        check_base_models([step], check_flags([step]))


def test_adapters_on_a_backbone_that_is_to_be_made_must_fit_its_layers():
    steps = plan({"train_strategy": "lora", "lora_target_modules": "mlp.gate_proj"})
    check_base_models(steps, check_flags(steps))
    steps = plan({"train_strategy": "lora", "lora_target_modules": "gate_prj"})
    with pytest.raises(InputError, match="teacher: --lora_target_modules gate_prj: no layer has"):
        check_base_models(steps, check_flags(steps))


def test_the_check_needs_python_alone():
    """-I -S: neither installed packages nor anything of the environment."""
    words = [text for step in plan({"num_layers": 6}) for text in (str(len(step.words) + 1), step.name, *step.words)]
    start = (
        f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); runpy.run_module('slmrec.pipeline.steps', run_name='__main__')"
    )
    outcome = subprocess.run([sys.executable, "-I", "-S", "-c", start, *words], capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr == "error: student: --num_blocks 4 does not divide the teacher's 6 layers\n"
