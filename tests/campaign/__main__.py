"""The campaign: kills, pairs, full disks and damage, on every stage, and damaged data files; a table of outcomes.

bash tests/campaign/run.sh               # all of it
bash tests/campaign/run.sh --share 0.02  # a seeded fiftieth
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from slmrec import artifacts
from tests.campaign import damage, disk, kill, mutate_inputs, pairs
from tests.campaign.processes import run
from tests.campaign.stages import Inputs
from tests.campaign.tally import Tally

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- outcomes: written by tests/campaign/run.sh -->", "<!-- end of outcomes -->"
PARTS = {"kill": kill, "pairs": pairs, "disk": disk, "damage": damage, "mutations": mutate_inputs}


def main(argv: list[str] | None = None) -> Tally:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of all trials (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    parser.add_argument("--stages", nargs="*", help="these alone")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS), help="these alone")
    parser.add_argument("--log", type=Path, help="a line for each part of each stage; what stands in it is not tried again")
    parser.add_argument("--write", action="store_true", help="write the table of a whole campaign into docs/reliability.md")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    artifacts.git_state = artifacts.library_versions = dict  # slow, and no part of what is tried
    started, root = time.monotonic(), Path(tempfile.mkdtemp(prefix="campaign-"))
    try:
        tally = _try(arguments, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(tally.table())
    print(f"{len(tally.faults)} faults in {(time.monotonic() - started) / 60:.0f} minutes")
    whole = arguments.share >= 1 and not arguments.stages and set(arguments.parts) == set(PARTS)
    if arguments.write and whole:
        write_table(tally, arguments)
    return tally


def _try(arguments: argparse.Namespace, root: Path) -> Tally:
    """Every part of every stage, each with a seed of its own, so that a part of the whole draws the same."""
    inputs, tally = Inputs(root / "inputs"), Tally()
    made = run(inputs.make, root / "log")
    assert made.status == 0, made.said
    inputs.warm_up()
    done = _finished(arguments.log)
    for part in arguments.parts:
        for name in arguments.stages or inputs.stages if part != "mutations" else mutate_inputs.SEEDS:
            started, draw = time.monotonic(), random.Random(f"{arguments.seed} {part} {name}")
            if (part, name) not in done:
                done[part, name] = Tally()
                PARTS[part].campaign(inputs, name, root / part, done[part, name], arguments.share, draw)
                shutil.rmtree(root / part, ignore_errors=True)
                print(f"{part}, {name}: {time.monotonic() - started:.0f} s", flush=True)
                _append(arguments.log, {"part": part, "stage": name} | done[part, name].to_json())
            tally.update(done[part, name])
    return tally


def _finished(log: Path | None) -> dict[tuple[str, str], Tally]:
    if log is None or not log.exists():
        return {}
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return {(line["part"], line["stage"]): Tally.from_json(line) for line in lines}


def _append(log: Path | None, line: dict) -> None:
    if log:
        with log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def write_table(tally: Tally, arguments: argparse.Namespace) -> None:
    """Put the table between the marks in docs/reliability.md."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    said = f"`bash tests/campaign/run.sh --share {arguments.share:g} --seed {arguments.seed}`, {time.strftime('%Y-%m-%d')}:"
    PAGE.write_text(f"{before}{BEGIN}\n\n{said}\n\n{tally.table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(1 if main().faults else 0)
