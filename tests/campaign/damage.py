"""Damage to what stages left: a bit, a half, zeros ... of any file that the next stage may open."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.campaign.processes import run, state_of
from tests.campaign.stages import Inputs
from tests.campaign.tally import Tally

READS = {  # the directories that each stage opens
    "data": ("demo",),
    "encoder": ("data",),
    "embeddings": ("encoder",),
    "text": ("data",),
    "teacher": ("data", "embeddings", "backbone"),
    "student": ("teacher", "data", "embeddings"),
    "openp5": ("data", "backbone"),
    "evaluation": ("teacher", "data"),
    "export": ("teacher", "data"),
}
TRIALS = 60  # of a stage
DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a bit": lambda content, draw: _bit(content, draw),
    "cut": lambda content, draw: content[: draw.randrange(len(content))],
    "zeros": lambda content, draw: bytes(len(content)),
    "a block of zeros": lambda content, draw: (
        content[: len(content) // 3] + bytes(len(content) // 3) + content[2 * (len(content) // 3) :]
    ),
    "longer": lambda content, draw: content + draw.randbytes(1 + draw.randrange(50)),
    "noise": lambda content, draw: draw.randbytes(len(content)),
    "empty": lambda content, draw: b"",
    "[]": lambda content, draw: b"[]",
    "{}": lambda content, draw: b"{}",
    "nested": lambda content, draw: b"[" * 100_000,
    "digits": lambda content, draw: b'{"stage": ' + b"9" * 10_000 + b"}",
}


def _bit(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def campaign(inputs: Inputs, name: str, place: Path, tally: Tally, share: float, draw: random.Random) -> None:
    """`share` of the damages to what a stage opens, files and ways drawn."""
    files = [path for source in READS.get(name, ()) for path in sorted((inputs.root / source).rglob("*")) if path.is_file()]
    if not files:
        return
    place.mkdir(parents=True)
    assert run(lambda: inputs.run(name, place / "out"), place / "log").status == 0
    expected = state_of(place / "out")
    for _ in range(max(1, round(TRIALS * share))):
        path, way = draw.choice(files), draw.choice([*DAMAGES, "missing"])
        _one(inputs, name, place, path, way, tally, expected, draw)


def _one(inputs, name, place, path: Path, way: str, tally: Tally, expected: dict, draw: random.Random) -> None:
    content = path.read_bytes()
    shutil.rmtree(place / "out", ignore_errors=True)
    path.unlink()
    try:
        if way != "missing":
            path.write_bytes(DAMAGES[way](content, draw) if content else b"x")
        ended = run(lambda: inputs.run(name, place / "out"), place / "log")
    finally:
        path.write_bytes(content)
    kind, detail = "damage to a stage's input", f"{path.relative_to(inputs.root)}, {way}: {ended.said[-300:]}"
    if ended.fault():
        tally.add(kind, name, "traceback" if ended.fault() == "traceback" else "no error line", detail)
    elif ended.status == 2:
        tally.add(kind, name, "refused in one line")
    else:
        equal = state_of(place / "out") == expected
        tally.add(kind, name, "equal" if equal else "another result", detail)
