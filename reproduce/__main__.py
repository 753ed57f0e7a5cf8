"""What `run_tables.sh` runs: the experiments of `reproduce.experiments`, and the rendering of all there is.

python -m reproduce --render runs
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from reproduce.report import render
from reproduce.summarise import write_summaries
from slmrec.command_line import parse_arguments


@dataclass
class RenderArguments:
    """Which runs to render."""

    render: str = field(metadata={"help": "directory with one run directory per data set"})


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments(RenderArguments, argv, description=__doc__)
    root = Path(arguments.render)
    names = write_summaries(root)
    print(f"{root / 'tables'}: summaries of {', '.join(names) or 'no data set'}")
    print(f"Written to {render(root / 'tables')}, tables and figures below {root / 'tables'}")


if __name__ == "__main__":
    from slmrec.runtime import run_main

    run_main(main)
