"""Disks that are full or read-only: one line that names the file, nothing half-written, the same result once there is room."""

from __future__ import annotations

import contextlib
import random
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.campaign.processes import Ended, run, state_of
from tests.campaign.stages import Inputs
from tests.campaign.tally import Tally

SIZES = 16  # of a stage


@contextlib.contextmanager
def small_disk(place: Path, options: str) -> Iterator[bool]:
    """A file system in memory at `place`; False where this user may not mount one."""
    place.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, check=False)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(place)], check=True)


def campaign(inputs: Inputs, name: str, place: Path, tally: Tally, share: float, draw: random.Random) -> None:
    """`share` of the sizes of a full disk and of a largest file, in turn, and a read-only disk."""
    _renew(place / name)
    assert run(lambda: inputs.run(name, place / name / "out"), place / "log").status == 0
    expected = state_of(place / name / "out")
    sizes = [path.stat().st_size for path in (place / name).rglob("*") if path.is_file()]
    for trial in range(max(1, round(SIZES * share))):
        _renew(place / name)
        if trial % 2:
            _full(inputs, name, place / name, int(draw.uniform(0.02, 1.5) * sum(sizes)) // 4096 * 4096 + 4096, tally, expected)
        else:
            size = 1000 + int(draw.uniform(0.0, 1.1) * max(sizes))  # what is printed goes to a file as well
            _limited(inputs, name, place / name, size, tally, expected)
    _renew(place / name)
    _read_only(inputs, name, place / name, tally)


def _renew(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)


def _limited(inputs: Inputs, name: str, place: Path, size: int, tally: Tally, expected: dict) -> None:
    """No file may be larger than `size`."""

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        inputs.run(name, place / "out")

    ended = run(work, place.with_name("log"))
    _judge("files of limited size", name, place, ended, tally, size, expected, lambda: inputs.run(name, place / "out"))


def _full(inputs: Inputs, name: str, place: Path, size: int, tally: Tally, expected: dict) -> None:
    with small_disk(place, f"size={size}") as mounted:
        if not mounted:
            return
        ended = run(lambda: inputs.run(name, place / "out"), place.with_name("log"))

        def with_room() -> None:
            subprocess.run(["mount", "-o", "remount,size=1g", str(place)], check=True)
            inputs.run(name, place / "out")

        _judge("a full disk", name, place, ended, tally, size, expected, with_room)


def _read_only(inputs: Inputs, name: str, place: Path, tally: Tally) -> None:
    with small_disk(place, "ro") as mounted:
        if mounted:
            ended = run(lambda: inputs.run(name, place / "out"), place.with_name("log"))
            refused = ended.status == 2 and not ended.fault()
            tally.add(
                "a read-only disk",
                name,
                "refused in one line" if refused else ended.fault() or "another result",
                ended.said[-300:],
            )


def _judge(kind: str, name: str, place: Path, ended: Ended, tally: Tally, size: int, expected: dict, again) -> None:
    detail = f"{size} bytes: {ended.said[-400:]}"
    if ended.fault() or ended.status not in (0, 2):
        tally.add(kind, name, ended.fault() or "traceback", detail)
        return
    if ended.status == 0:
        equal = state_of(place / "out") == expected
        tally.add(kind, name, "equal" if equal else "another result", detail)
        return
    left = [path.name for path in place.iterdir() if path.name == "out" or path.name.endswith(".replaced")]
    if left or str(place) not in ended.said:
        tally.add(kind, name, "half-written" if left else "no error line", detail)
        return
    repeated = run(again, place.with_name("log"))
    if repeated.status or state_of(place / "out") != expected:
        tally.add(kind, name, "dead directory", detail + repeated.said[-300:])
    else:
        tally.add(kind, name, "refused in one line")
