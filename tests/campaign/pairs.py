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
    "data": {"k_core": 2},
    "encoder": {"seed": 1},
    "embeddings": {"pickle": False},
    "text": {"dimensions": 4},
    "backbone": {"seed": 1},
    "evaluation": {"split": "valid"},
    "export": {"model_of_pair": None},
}
KINDS = ("the same run", "another run", "another run that replaces")


def campaign(inputs: Inputs, names: list[str], place: Path, tally: Tally, number: int, draw: random.Random) -> None:
    """`number` pairs, stages and kinds in turn."""
    expected: dict[tuple[str, str], dict] = {}
    for pair in range(number):
        name, kind = names[pair % len(names)], KINDS[pair // len(names) % len(KINDS)]
        changes = (
            {}
            if kind == KINDS[0]
            else {key: value for key, value in CHANGES.get(name, {"seed": 1}).items() if key != "model_of_pair"}
        )
        works = [_work(inputs, name, place / name, {}), _work(inputs, name, place / name, changes, kind == KINDS[2])]
        for side, work in enumerate(works):
            if (name, kind + str(side)) not in expected:
                _renew(place / name)
                ended = run(work, place / "log")
                assert ended.status == 0, ended.said
                expected[name, kind + str(side)] = state_of(place / name / "out")
        _renew(place / name)
        logs = [place / "first.log", place / "second.log"]
        first = start(works[0], logs[0])
        time.sleep(draw.uniform(0.0, 1.5))
        second = start(works[1], logs[1])
        ended = [wait(process, log) for process, log in zip((first, second), logs)]
        _judge(tally, name, ended, state_of(place / name / "out"), [expected[name, kind + str(side)] for side in (0, 1)])
        shutil.rmtree(place / name)


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
        tally.add(
            kind, name, "refused in one line" if any(process.status for process in ended) else "equal to an undisturbed run"
        )
