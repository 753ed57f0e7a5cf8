"""Every stage of a pipeline with the dataclasses of its flags, and the sharing of one command line among the stages.

Python's standard library is all that this needs: flags are checked before anything is installed.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import Any, TypeVar

from slmrec.arguments import OutputArguments
from slmrec.command_line import Flag, flags_of, grouped, parse_arguments, unknown_flag
from slmrec.data.arguments import DataArguments, DemoArguments
from slmrec.distillation.arguments import DistillationArguments
from slmrec.encoders.arguments import EmbeddingArguments, EncoderArguments, TrainEncoderArguments
from slmrec.errors import InputError
from slmrec.evaluation.arguments import EvaluationArguments
from slmrec.llm.arguments import BackboneArguments, EllmArguments, EllmInputs
from slmrec.openp5.arguments import OpenP5Arguments, OpenP5Inputs, OpenP5TrainingArguments
from slmrec.text.arguments import TextArguments, TextUseArguments
from slmrec.training.arguments import GuideArguments, LlmTrainingArguments, LossArguments, UpdateArguments

Own = TypeVar("Own")


@dataclass(frozen=True)
class StageFlags:
    """The flags of one stage.

    Attributes:
        command: what starts it alone.
        kinds: the dataclasses that describe its flags; the same ones that its script parses.
        wired: flags that the pipeline itself sets (where inputs and outputs lie, and what makes the stage what it is there), each
            with a value that stands for the real one when the other flags are checked.
        defaults: of the pipeline, where they are not the stage's own.
    """

    command: str
    kinds: tuple[type, ...]
    wired: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)

    def flags(self) -> dict[str, Flag]:
        """The flags that a user of the pipeline can give, by name."""
        return {name: flag for name, flag in flags_of(*self.kinds).items() if name not in self.wired}

    def has(self, name: str) -> bool:
        """Whether `--name` can be given, as a flag or (`no_...`) as a switch that is off."""
        switch = self.flags().get(name.removeprefix("no_"))
        return name in self.flags() or (name.startswith("no_") and switch is not None and switch.kind is bool)

    def check(self, argv: list[str]) -> None:
        """Raises InputError unless the stage would take these flags beside the wired ones."""
        parse_arguments(self.kinds, argv, command=self.command, **self.wired, **self.defaults)


OUTPUT = {"output_dir": "-", "overwrite_output_dir": False}
UPDATE = {"update_from": None, "replay": None}  # a pipeline trains anew
LLM_WIRED = {"data": "-", "embeddings": "-", "base_model": "-"} | UPDATE | OUTPUT
ENCODER = (
    EncoderArguments,
    TrainEncoderArguments,
    TextUseArguments,
    UpdateArguments,
    OutputArguments,
)  # all flags of SASRec; others have more
SASREC = {"model": "sasrec", "data": "-", "text": "-", "pretrain_epochs": None} | UPDATE | OUTPUT
EMBEDDINGS = {"encoder": "-", "data": None, "from_pickle": None, "first_item_row": 1} | OUTPUT
FINETUNE = (EllmInputs, EllmArguments, LossArguments, GuideArguments, LlmTrainingArguments, UpdateArguments, OutputArguments)
DISTILL = (*FINETUNE[:2], DistillationArguments, *FINETUNE[2:])
OPENP5 = (OpenP5Inputs, OpenP5Arguments, OpenP5TrainingArguments, OutputArguments)
TEACHER = {"teacher": "-", "online": False, "teacher_layers": None}
EVALUATE = {"model": "-", "split": "test", "data": None, "full_ranking": True} | OUTPUT
STAGES = {
    "demo": StageFlags("python -m slmrec.data.demo", (DemoArguments, OutputArguments), OUTPUT),
    "data": StageFlags("python -m slmrec.data", (DataArguments, OutputArguments), {"input": "-", "update_from": None} | OUTPUT),
    "text": StageFlags("python embed_titles.py", (TextArguments, OutputArguments), {"data": "-"} | OUTPUT),
    "sasrec": StageFlags("python train_sr_trad.py", ENCODER, SASREC),
    "embeddings": StageFlags("python extract_emb.py", (EmbeddingArguments, OutputArguments), EMBEDDINGS),
    "backbone": StageFlags("python -m slmrec.llm.make_backbone", (BackboneArguments, OutputArguments), OUTPUT),
    "teacher": StageFlags("python finetune.py", FINETUNE, LLM_WIRED, {"num_layers": 8}),
    "baseline": StageFlags("python finetune.py", FINETUNE, LLM_WIRED | {"num_layers": 4}),
    "student": StageFlags("python distill.py", DISTILL, LLM_WIRED | TEACHER, {"num_layers": 4}),
    "evaluate": StageFlags("python evaluate.py", (EvaluationArguments,), EVALUATE),
}
OPENP5_STAGE = StageFlags("python train_openp5.py", OPENP5, {"data": "-", "base_model": "-"} | OUTPUT)  # of run_tables.sh
LLM = ("teacher", "baseline", "student")
EVERYWHERE = (
    *("seed", "device", "precision", "protocol", "max_length", "num_candidates", "candidates_seed", "report_to", "launch"),
    "models_dir",
)
ONE_EACH = ("num_layers",)  # of what teacher and student both have, that which is a number of its own in each
RULE = (
    f"Without a prefix, {', '.join(EVERYWHERE[:-1])} and {EVERYWHERE[-1]} go to every stage that has them "
    "(but for the seed of the demo's reviews), and any other flag goes to those of teacher, baseline and student that have it, "
    "or, if none of them does, to the one stage that does."
)
INSTEAD = {  # of flags that the pipeline sets itself
    "input": "give --reviews FILE",
    "num_layers": "it follows --student.num_layers",
    "overwrite_output_dir": "what changed is redone without it",
    "text": "give --text_use",
    "pretrain_epochs": "SASRec has no pretraining",
    "update_from": "its stage takes it alone",
}


class Shares:
    """One command line on its way to the stages.

    Args:
        stages: those that there are, by the prefix of their flags.
        absent: stages that do not run this time, and why, for whoever gives a flag of theirs.
        own: flags of the caller itself, which go to no stage.
        where_all_are: for messages: what to type for a list of all flags.
    """

    def __init__(self, stages: dict[str, StageFlags], absent: dict[str, str], own: dict[str, Flag], where_all_are: str):
        self.stages = {name: stage for name, stage in stages.items() if name not in absent}
        self.absent = {name: (stages[name], reason) for name, reason in absent.items()}
        self.own, self.where_all_are = own, where_all_are
        self.words: dict[str, list[str]] = {name: [] for name in self.stages}
        self._spelled: dict[str, dict[str, str]] = {name: {} for name in self.stages}

    def add(self, name: str, values: list[str]) -> None:
        """Hand one flag, as the user spelt it, to its stages."""
        prefix, _, plain = name.rpartition(".")
        for stage in self._of_prefix(name, prefix, plain) if prefix else self._by_rule(name):
            self.words[stage] += [f"--{plain}", *values]
            self._spelled[stage][plain] = name

    def check(self) -> None:
        """Raises InputError for the first flag that its stage would refuse, in the user's own spelling."""
        for stage, words in self.words.items():
            try:
                if words:
                    self.stages[stage].check(words)
            except InputError as error:
                raise InputError(self._as_spelt(str(error), stage)) from None

    def _as_spelt(self, message: str, stage: str) -> str:
        """A stage's message in the user's spelling; it says the stage where that does not."""
        spellings = self._spelled[stage]
        spelled = re.sub(r"--(\w+)", lambda flag: f"--{spellings.get(flag[1], flag[1])}", message)
        return spelled if "." in spelled.split()[0] else f"{stage}: {spelled}"

    def _of_prefix(self, name: str, prefix: str, plain: str) -> list[str]:
        named = [stage for stage in LLM if stage in self.stages] if prefix == "llm" else [prefix]
        having = [stage for stage in named if stage in self.stages and self.stages[stage].has(plain)]
        if prefix == "llm" and plain in ONE_EACH:
            self._refuse_one_each(name, plain, having)
        if having:
            return having
        if prefix in self.absent and self.absent[prefix][0].has(plain):
            raise InputError(f"--{name}: {self.absent[prefix][1]}")
        self._refuse_wired(name, plain, named)
        flags = {flag for stage in named if stage in self.stages for flag in self.stages[stage].flags()}
        elsewhere = [stage for stage, described in self.stages.items() if described.has(plain)]
        if flags and elsewhere:
            raise InputError(f"unknown flag --{name}: did you mean --{elsewhere[0]}.{plain}?")
        if flags:  # the prefix is right, so it says nothing about what was meant
            raise InputError(unknown_flag(plain, sorted(flags), self.where_all_are).replace("--", f"--{prefix}."))
        raise InputError(unknown_flag(name, self._spellings(), self.where_all_are))

    def _by_rule(self, name: str) -> list[str]:
        having = [stage for stage, described in self.stages.items() if described.has(name)]
        if name in EVERYWHERE and having:
            if "data" in self.absent and self.absent["data"][0].has(name):
                raise InputError(f"--{name}: {self.absent['data'][1]}; or give {_spelt(having, name)}")
            return [stage for stage in having if stage != "demo"]
        llm = [stage for stage in having if stage in LLM]
        if name in ONE_EACH and llm:
            self._refuse_one_each(name, name, having)
        if llm or len(having) == 1:
            return llm or having
        if having:
            raise InputError(f"--{name} is ambiguous: give {_spelt(having, name)}")
        for described, reason in self.absent.values():
            if described.has(name):
                raise InputError(f"--{name}: {reason}")
        self._refuse_wired(name, name, list(self.stages))
        raise InputError(unknown_flag(name, [*self.own, *self._spellings()], self.where_all_are))

    def _refuse_one_each(self, name: str, plain: str, having: list[str]) -> None:
        raise InputError(f"--{name} is a number of its own in each stage: give {_spelt(having, plain)}")

    def _refuse_wired(self, name: str, plain: str, stages: list[str]) -> None:
        setting = [self.stages[stage] for stage in stages if stage in self.stages and plain in self.stages[stage].wired]
        if setting:
            instead = INSTEAD.get(plain, f"{setting[0].command} takes it")
            raise InputError(f"--{name} is set by the pipeline itself ({instead})")

    def _spellings(self) -> list[str]:
        names = [(stage, name) for stage, described in self.stages.items() for name in described.flags()]
        return list(dict.fromkeys([*(name for _, name in names), *(f"{stage}.{name}" for stage, name in names)]))


def _spelt(stages: list[str], name: str) -> str:
    return " or ".join(f"--{stage}.{name}" for stage in stages)


def share_flags(
    argv: list[str],
    own: type[Own],
    stages: dict[str, StageFlags] = STAGES,
    absent: dict[str, str] | None = None,
    command: str = "this command",
) -> tuple[Own, dict[str, list[str]]]:
    """Share a command line out among the stages, by prefix (`--sasrec.dropout 0.2`, `--llm.learning_rate 0.001`) or by `RULE`.

    Every flag is checked: that some stage has it, that it is clear which, and that the stage would take its value.

    Args:
        argv: flags and their values.
        own: a dataclass of the flags of the caller itself; they have no prefix and go to no stage.
        stages: those that there are, by the prefix of their flags.
        absent: stages that do not run this time, and why: `{"backbone": "no backbone is made where --base_model is given"}`.
        command: what the user typed, for messages.

    Returns an instance of `own`, and for every stage that runs (also those without any) the flags that it gets, ready to be put
    behind its command: `--name value ...` without prefixes, in the order they were given.

    Raises InputError, one line with the user's own spelling, for a flag that no stage has, that several have with different
    meanings, that the pipeline sets itself, or that its stage would refuse.
    """
    kinds: tuple[type, ...] = (own,)
    shares, own_argv = Shares(stages, absent or {}, flags_of(*kinds), f"{command} -h"), []
    for name, values in grouped(argv):
        if name in shares.own or name.removeprefix("no_") in shares.own:
            own_argv += [f"--{name}", *values]
        else:
            shares.add(name, values)
    (parsed,) = parse_arguments(own, own_argv, command=command)
    shares.check()
    return parsed, shares.words


def share_lines(shares: dict[str, list[str]]) -> list[str]:
    """One line for each stage, or several with the same share, that gets any flag: its names and the flags."""
    alike: dict[str, list[str]] = {}
    for stage, words in shares.items():
        if words:
            alike.setdefault(shlex.join(words), []).append(stage)
    width = max((len(", ".join(names)) for names in alike.values()), default=0)
    return [f"{', '.join(names):<{width}}  {words}" for words, names in alike.items()]
