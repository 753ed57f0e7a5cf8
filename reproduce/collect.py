"""Copy the small part of a run (metrics, manifests, statistics) to where results are committed; never data or weights.

python -m reproduce.collect --run_dir runs/beauty --output_dir results/main/beauty/seed_0
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from slmrec.artifacts import MANIFEST
from slmrec.command_line import parse_arguments
from slmrec.errors import InputError

COLLECTED = ("manifest.json", "metrics.json", "stats.json")
LARGEST = 200_000  # bytes; whatever is larger is no summary


@dataclass
class CollectArguments:
    """What to copy and where to."""

    run_dir: str = field(metadata={"help": "run directory whose stages are finished"})
    output_dir: str = field(metadata={"help": "where the copies go, e.g. results/main/beauty/seed_0"})


def collect(run_dir: Path, output_dir: Path) -> list[Path]:
    """Copy the collected files of every finished stage below `run_dir`, and the comparison table; returns what was written.

    Raises InputError when there is no finished stage or a file is too large to be a summary.
    """
    stages = sorted(path.parent for path in run_dir.rglob(MANIFEST) if ".partial" not in str(path))
    if not stages:
        raise InputError(f"{run_dir}: no finished stage there")
    files = [stage / name for stage in stages for name in COLLECTED if (stage / name).is_file()]
    files += [path for path in (run_dir / "comparison.md", run_dir / "comparison.csv") if path.is_file()]
    for path in files:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path}: {path.stat().st_size} bytes are too many for a committed result")
    written = []
    for path in files:
        target = output_dir / path.relative_to(run_dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        written.append(target)
    return written


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments(CollectArguments, argv, description=__doc__)
    written = collect(Path(arguments.run_dir), Path(arguments.output_dir))
    print(f"{len(written)} files written below {arguments.output_dir}")


if __name__ == "__main__":
    from slmrec.runtime import run_main

    run_main(main)
