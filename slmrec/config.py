"""Command-line arguments: one dataclass per concern, read by transformers.HfArgumentParser, checked when built."""

from __future__ import annotations

from dataclasses import dataclass, field

from slmrec.artifacts import InputError


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"--{name} {value}: choose one of {', '.join(choices)}")


@dataclass
class OutputArguments:
    """Where a stage writes."""

    output_dir: str = field(metadata={"help": "directory of this stage; it exists under this name once it is whole"})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "replace a directory that holds another run"})
