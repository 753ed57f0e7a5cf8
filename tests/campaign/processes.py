"""Running a stage in a process of its own that may be killed, and comparing what it left with an undisturbed run.

The process is forked from this one, which has imported everything already, so that hundreds of runs take minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slmrec.errors import tell
from tests.kills import WATCHES, Watch

LEFT_ALONE = (".slmrec.lock", ".tfevents")  # names of files that say nothing about the result
OF_THE_DAY = ("wall_seconds", "command", "git", "libraries", "resumed")  # what of a manifest differs from run to run
HANGS = 300  # seconds after which a process is taken to hang
TIMES = ("seconds", "peak_memory_mib")


@dataclass
class Ended:
    """How a process ended: its exit status (negative: the signal), and all that it printed."""

    status: int
    said: str

    def fault(self) -> str | None:
        """What no user should see; None for a success or an error of at most two lines."""
        if "Traceback" in self.said:
            return "traceback"
        if self.status not in (0, 2, -signal.SIGKILL):
            return f"status {self.status}"
        lines = [line for line in self.said.splitlines() if line.startswith("error:")]
        return "no error line" if self.status == 2 and len(lines) != 1 else None


class FatalWatch(Watch):
    """Kills the whole process at its event."""

    def die(self):
        super().die()
        os.kill(os.getpid(), signal.SIGKILL)


def start(work: Callable[[], None], log: Path, watch: FatalWatch | None = None) -> int:
    """Fork a process that does `work` as an entry point would, its output going to `log`; returns its id."""
    sys.stdout.flush(), sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(stream, 1), os.dup2(stream, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        if watch:
            WATCHES.append(watch)
        status = _as_entry_point(work)
        sys.stdout.flush(), sys.stderr.flush()
    finally:
        os._exit(status)


def _as_entry_point(work: Callable[[], None]) -> int:
    try:
        work()
    except BaseException as error:
        status = tell(error)
        if status is None:
            traceback.print_exc()
            return 1
        return status
    return 0


def wait(process: int, log: Path) -> Ended:
    """How a process ended; one that hangs is killed, and has a status that no stage has."""
    hung = not _has_ended(process, HANGS)
    if hung:
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return Ended(124 if hung else os.waitstatus_to_exitcode(status), said)


def _has_ended(process: int, seconds: float) -> bool:
    """Wait for the end of a process, at most so long."""
    descriptor = os.pidfd_open(process)
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def run(work: Callable[[], None], log: Path, watch: FatalWatch | None = None) -> Ended:
    return wait(start(work, log, watch), log)


def run_and_kill(work: Callable[[], None], log: Path, seconds: float) -> Ended:
    """Kill the process after so many seconds, if it still runs."""
    process = start(work, log)
    if not _has_ended(process, seconds):
        os.kill(process, signal.SIGKILL)
    return wait(process, log)


def number_of_events(work: Callable[[], None], log: Path, root: Path) -> int:
    """File events of a whole run below `root`."""
    counted = log.with_suffix(".events")
    watch = FatalWatch(root)

    def counting() -> None:
        work()
        events = len(watch.events)
        WATCHES.remove(watch)
        counted.write_text(str(events))

    ended = run(counting, log, watch)
    assert ended.status == 0, ended.said
    return int(counted.read_text())


def state_of(directory: Path) -> dict[str, str]:
    """What a result is, by file: the bytes, or of JSON the values without times and versions. Checkpoints and logs are not it."""
    found = {}
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory)
        if path.is_file() and not inside.parts[0].startswith(("checkpoint", "runs")) and not path.name.endswith(LEFT_ALONE):
            content = path.read_bytes()
            if path.suffix == ".json":
                content = json.dumps(_without_times(json.loads(content)), sort_keys=True).encode()
            found[str(inside)] = hashlib.sha256(content).hexdigest()[:12]
    return found


def _without_times(value):
    if isinstance(value, dict):
        own = {
            name: _without_times(entry) for name, entry in value.items() if name not in OF_THE_DAY and not name.endswith(TIMES)
        }
        if "outputs" in own and "stage" in own:  # the digest of a file with times in it
            own.pop("digest"), own["outputs"].pop("metrics.json", None)
        return own
    return [_without_times(entry) for entry in value] if isinstance(value, list) else value
