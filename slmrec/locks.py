"""One process at a time in a directory: a lock file beside it that says who holds it, and that goes with its process."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from slmrec.errors import InputError
from slmrec.progress import say

POLL_SECONDS = 0.2


class DirectoryLock:
    """The lock of `directory`, held from `acquire` to `release` or to the end of the process, however that comes.

    It lies beside the directory, `.<name>.slmrec.lock`, so that the directory itself may be renamed, and is removed on release.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        self.path = self.directory.with_name(f".{self.directory.name}.slmrec.lock")
        self._lock = FileLock(self.path, fallback_to_soft=False)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *error) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock, if need be after waiting for its holder, who is named. Raises InputError when that is this process."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            self.path.touch()  # where no file can be made, as in /proc, this says so, and filelock would wait for ever
            self._wait()
        with contextlib.suppress(OSError):  # on a full disk it says no name, and locks all the same
            self.path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")

    def _wait(self) -> None:
        say(f"{self.directory}: {self._holder()} is writing it, waiting for it to end")
        try:
            self._lock.acquire(timeout=-1, poll_interval=POLL_SECONDS)
        except RuntimeError:  # it would wait for itself
            raise InputError(f"{self.directory}: this very process is writing it already") from None

    def _holder(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8").strip() or "another process"
        except OSError:  # it has just let go
            return "another process"

    def release(self) -> None:
        """Let go; harmless when it is not held. The file goes first: who waits notices that it is gone and makes its own."""
        if self._lock.is_locked:
            self.path.unlink(missing_ok=True)
            self._lock.release()
