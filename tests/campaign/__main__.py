"""The campaign: kills, pairs, full disks and damage, on every stage; a table of outcomes.

bash tests/campaign/run.sh               # all of it
bash tests/campaign/run.sh --share 0.02  # a seeded fiftieth
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from slmrec import artifacts
from tests.campaign import damage, disk, kill, pairs
from tests.campaign.processes import run
from tests.campaign.stages import Inputs
from tests.campaign.tally import Tally

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- outcomes: written by tests/campaign/run.sh -->", "<!-- end of outcomes -->"
PARTS = ("kill", "pairs", "disk", "damage")


def main(argv: list[str] | None = None) -> Tally:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of all trials (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    parser.add_argument("--stages", nargs="*", help="these alone")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="these alone")
    parser.add_argument("--write", action="store_true", help="write the table into docs/reliability.md")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    artifacts.git_state = artifacts.library_versions = dict  # slow, and no part of what is tried
    started, tally, root = time.monotonic(), Tally(), Path(tempfile.mkdtemp(prefix="campaign-"))
    try:
        _try(arguments, root, tally)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(tally.table())
    print(f"{len(tally.faults)} faults in {(time.monotonic() - started) / 60:.0f} minutes")
    if arguments.write:
        write_table(tally, arguments)
    return tally


def _try(arguments: argparse.Namespace, root: Path, tally: Tally) -> None:
    inputs, draw = Inputs(root / "inputs"), random.Random(arguments.seed)
    made = run(inputs.make, root / "log")
    assert made.status == 0, made.said
    names, share = arguments.stages or list(inputs.stages), arguments.share
    if "kill" in arguments.parts:
        kill.campaign(inputs, names, root / "kill", tally, share, draw)
    if "pairs" in arguments.parts:
        pairs.campaign(inputs, names, root / "pairs", tally, max(1, round(78 * share)), draw)
    if "disk" in arguments.parts:
        disk.campaign(inputs, names, root / "disk", tally, max(1, round(208 * share)), draw)
    if "damage" in arguments.parts:
        damage.campaign(inputs, names, root / "damage", tally, max(1, round(1000 * share)), draw)


def write_table(tally: Tally, arguments: argparse.Namespace) -> None:
    """Put the table between the marks in docs/reliability.md."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    said = f"`bash tests/campaign/run.sh --share {arguments.share:g} --seed {arguments.seed}`, {time.strftime('%Y-%m-%d')}:"
    PAGE.write_text(f"{before}{BEGIN}\n\n{said}\n\n{tally.table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(1 if main().faults else 0)
