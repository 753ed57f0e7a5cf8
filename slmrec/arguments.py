"""Command-line arguments that several stages share; each stage's own stand beside the stage."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class OutputArguments:
    """Where a stage writes."""

    output_dir: str = field(metadata={"help": "directory of this stage; it exists under this name once it is whole"})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "replace a directory that holds another run"})
