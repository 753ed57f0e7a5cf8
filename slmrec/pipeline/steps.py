"""The commands of a pipeline, and whether they fit together: all of it is checked before the first one runs.

python -m slmrec.pipeline.steps STEPS      # checks the commands, see read_steps; needs Python's standard library alone
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

from slmrec.command_line import grouped, parse_arguments
from slmrec.errors import InputError
from slmrec.llm.arguments import BackboneArguments, EllmArguments
from slmrec.openp5.arguments import OpenP5Arguments
from slmrec.pipeline.flags import OPENP5_STAGE, STAGES

Arguments = TypeVar("Arguments", EllmArguments, BackboneArguments, OpenP5Arguments)

KINDS = {described.command: described.kinds for described in (*STAGES.values(), OPENP5_STAGE)}
FINETUNE, DISTILL, BACKBONE = "python finetune.py", "python distill.py", "python -m slmrec.llm.make_backbone"
ON_A_BASE_MODEL = {FINETUNE: EllmArguments, DISTILL: EllmArguments, OPENP5_STAGE.command: OpenP5Arguments}


@dataclass(frozen=True)
class Step:
    """One command of a pipeline.

    A command without --output_dir prepares the next stage and runs when that does; the last one runs always.

    Attributes:
        name: what a person reads, e.g. "teacher e4srec_8".
        words: the command; `python` is the Python that runs now.
    """

    name: str
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        """What is started, as it is typed in the project's directory: `python finetune.py`, `python -m slmrec.data`."""
        return f"{self.words[0]} -m {self.words[2]}" if self.words[1] == "-m" else f"{self.words[0]} {Path(self.words[1]).name}"

    @property
    def flags(self) -> list[str]:
        return list(self.words[3 if self.words[1] == "-m" else 2 :])

    @property
    def output_dir(self) -> Path | None:
        first = next((place for place, word in enumerate(self.flags) if word.startswith("--")), len(self.flags))
        places = dict(grouped(self.flags[first:])).get("output_dir") if self.words[0] == "python" else None
        return Path(places[-1]) if places else None

    def typed(self) -> str:
        """The command as it can be pasted into a shell; scripts by their place seen from here."""
        script = os.path.relpath(self.words[1]) if os.path.isabs(self.words[1]) else self.words[1]
        return shlex.join([self.words[0], script, *self.words[2:]])

    def command(self) -> list[str]:
        """The words to start; what another run has left in the output directory is replaced."""
        words = [sys.executable, *self.words[1:]] if self.words[0] == "python" else list(self.words)
        return [*words, "--overwrite_output_dir"] if self.output_dir else words


def read_steps(words: list[str]) -> list[Step]:
    """Commands one behind the other, each after its number of words and its name: `4 sasrec python train_sr_trad.py ...`."""
    steps = []
    while words:
        count = int(words[0])  # the name is one of the words
        steps.append(Step(words[1], tuple(words[2 : count + 1])))
        words = words[count + 1 :]
    return steps


def check_flags(steps: list[Step]) -> dict[Path | None, SimpleNamespace]:
    """What the stages are given, by output directory, as attributes.

    Raises InputError for the first flag that its stage would refuse, and where two stages would write one directory.
    """
    given: dict[Path | None, SimpleNamespace] = {}
    for step in steps:
        if step.program not in KINDS:
            continue
        try:
            parsed = parse_arguments(_kinds(step), step.flags, command=step.program)
        except InputError as error:
            raise InputError(f"{step.name}: {error}") from None
        values = {name: value for arguments in parsed for name, value in vars(arguments).items()}
        if step.output_dir in given:
            other = given[step.output_dir].step
            raise InputError(f"{other.name} and {step.name} would both write {step.output_dir}: give them different layers")
        given[step.output_dir] = SimpleNamespace(**values, step=step)
    return given


def _kinds(step: Step) -> tuple[type, ...]:
    """The dataclasses of a command's flags; recommenders other than SASRec have flags of their own."""
    model = dict(grouped(step.flags)).get("model", ["sasrec"])
    if step.program != "python train_sr_trad.py" or model == ["sasrec"]:
        return KINDS[step.program]
    from slmrec.encoders.registry import architecture_arguments, training_arguments  # which needs torch

    return (architecture_arguments(), training_arguments(), *KINDS[step.program][2:])


def check_together(steps: list[Step], given: dict[Path | None, SimpleNamespace]) -> None:
    """Raises InputError where a later stage would refuse what an earlier one is going to make."""
    for step in steps:
        ours = given.get(step.output_dir)
        if step.program not in ON_A_BASE_MODEL or ours is None:
            continue
        backbone = given.get(Path(ours.base_model))
        if backbone is not None:
            _check_on_random_backbone(step, ours, backbone)
        teacher = given.get(Path(ours.teacher)) if step.program == DISTILL and ours.teacher else None
        if teacher is not None:
            _check_pair(step, ours, teacher)


def _check_on_random_backbone(step: Step, ours: SimpleNamespace, backbone: SimpleNamespace) -> None:
    if (ours.num_layers or 1) > backbone.num_layers:  # an Open-P5 takes all layers where no number is given
        raise InputError(f"{step.name}: --num_layers {ours.num_layers}: the backbone has {backbone.num_layers} layers")
    if ours.train_strategy != "lora":
        try:
            _as(ON_A_BASE_MODEL[step.program], ours).refuse_adapters()
        except InputError as error:
            raise InputError(f"{step.name}: {error}") from None


def _as(kind: type[Arguments], given: SimpleNamespace) -> Arguments:
    return kind(**{field.name: getattr(given, field.name) for field in fields(kind)})


def _check_pair(step: Step, student: SimpleNamespace, teacher: SimpleNamespace) -> None:
    for owner, layers in (("teacher", teacher.num_layers), ("student", student.num_layers)):
        if layers % student.num_blocks:
            raise InputError(f"{step.name}: --num_blocks {student.num_blocks} does not divide the {owner}'s {layers} layers")
    for name in ("targets", "max_length"):
        theirs, ours = getattr(teacher, name), getattr(student, name)
        if theirs != ours:
            raise InputError(
                f"{step.name}: the teacher has --{name} {theirs}, the student {ours}; they must agree (--llm.{name})"
            )


def check_base_models(steps: list[Step], given: dict[Path | None, SimpleNamespace]) -> None:
    """Raises InputError where these stages would refuse their base model or its layers, be it there already or to be made.

    A known name or a GGUF file is made a checkpoint directory by this, which the stages then find.
    """
    for step in steps:
        ours = given.get(step.output_dir)
        if step.program not in ON_A_BASE_MODEL or ours is None:
            continue
        kind = ON_A_BASE_MODEL[step.program]
        if kind is EllmArguments and ours.load_in_4bit:
            from slmrec.llm.four_bits import FLAG, require_four_bits

            require_four_bits(f"{step.name}: {FLAG}", ours.device)
        backbone = given.get(Path(ours.base_model))
        if backbone is not None and (backbone.like or ours.train_strategy != "lora"):
            continue
        from slmrec.llm.backbone import require_layers_named  # which needs transformers, like the rest
        from slmrec.llm.base_model import local_base_model
        from slmrec.llm.make_backbone import small_llama_config

        try:
            if backbone is not None:
                require_layers_named(small_llama_config(_as(BackboneArguments, backbone)), ours.lora_target_modules)
                continue
            base_model = local_base_model(ours.base_model, ours.models_dir)
            if kind is EllmArguments:
                from slmrec.llm.model_directory import check_base_model

                check_base_model(replace(_as(EllmArguments, ours), base_model=base_model))
            else:
                from slmrec.openp5.directory import check_base_model as check_base_of_openp5

                check_base_of_openp5(replace(_as(OpenP5Arguments, ours), base_model=base_model))
        except InputError as error:
            raise InputError(f"{step.name}: {error}") from None


if __name__ == "__main__":
    try:
        planned = read_steps(sys.argv[1:])
        check_together(planned, check_flags(planned))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
