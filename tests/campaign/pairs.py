"""Two processes at once in one directory: the result is one of theirs as a whole, and each ends well or in one line."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

from tests.campaign.processes import run, start, state_of, wait
from tests.campaign.stages import Inputs
from tests.campaign.tally import Tally

# What the second process of a pair asks for: the same, or something else, with or without the leave to replace the first one's.
CHANGES = {
    "demo": {"seed": 1},
    "data": {"k_core": 4},
    "encoder": {"seed": 1},
    "embeddings": {"pickle": False},
    "text": {"dimensions": 4},
    "backbone": {"seed": 1},
    "evaluation": {"split": "valid"},
    "export": {},
}
KINDS = ("the same run", "another run", "another run that replaces")
PAIRS = 6  # of a stage


def campaign(inputs: Inputs, name: str, place: Path, tally: Tally, share: float, draw: random.Random) -> None:
    """`share` of the pairs of a stage, the kinds in turn; the second process starts while the first one runs."""
    place.mkdir(parents=True)
    changes = CHANGES.get(name, {"seed": 1})
    alone = [_alone(_work(inputs, name, place / name, asked), place, name) for asked in ({}, changes)]
    for pair in range(max(1, round(PAIRS * share))):
        kind = KINDS[pair % len(KINDS)]
        second = _work(inputs, name, place / name, {} if kind == KINDS[0] else changes, kind == KINDS[2])
        works, logs = (_work(inputs, name, place / name, {}), second), (place / "first.log", place / "second.log")
        _renew(place / name)
        processes = [start(works[0], logs[0])]
        time.sleep(draw.uniform(0.0, 0.8 * alone[0][1]))
        processes.append(start(works[1], logs[1]))
        both = [wait(process, log) for process, log in zip(processes, logs)]
        _judge(tally, name, both, state_of(place / name / "out"), [state for state, _ in alone])


def _alone(work, place: Path, name: str) -> tuple[dict, float]:
    """What a process leaves that nobody disturbs, and its seconds."""
    _renew(place / name)
    started = time.monotonic()
    ended = run(work, place / "log")
    assert ended.status == 0, ended.said
    return state_of(place / name / "out"), time.monotonic() - started


def _work(inputs: Inputs, name: str, place: Path, changes: dict, replaces: bool = False):
    return lambda: inputs.run(name, place / "out", **changes, overwrite_output_dir=replaces)


def _renew(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)


def _judge(tally: Tally, name: str, ended: list, found: dict, expected: list[dict]) -> None:
    kind, said = "two processes at once", " / ".join(process.said[-200:] for process in ended)
    if any(process.fault() for process in ended):
        tally.add(kind, name, "traceback", said)
    elif found not in expected or all(process.status for process in ended):
        tally.add(kind, name, "another result", said)
    else:
        tally.add(kind, name, "refused in one line" if any(process.status for process in ended) else "equal")
