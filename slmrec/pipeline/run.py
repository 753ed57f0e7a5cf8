"""Run the stages of a pipeline in order, those that are not up to date.

    python -m slmrec.pipeline.run RUN_DIR DRY_RUN STAGES

DRY_RUN is empty, or the commands are only printed. STAGES are the commands, as `read_steps` reads them; all of their
flags are checked before the first one starts. A stage is not even started when its command, this project's code and all that it
reads are what they were when it last ended well, and what it wrote is still there (`up_to_date.json` in the run directory). A
stage that is started decides for itself, by its manifest. What another command made is made anew.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from slmrec.artifacts import MANIFEST, json_sha256, read_json, write_json
from slmrec.errors import InputError
from slmrec.pipeline.steps import Step, check_base_models, check_flags, check_together, read_steps
from slmrec.progress import STAGE, announce, head, say

ROOT = Path(__file__).resolve().parents[2]
RECORD = "up_to_date.json"


def run_stages(steps: list[Step], run_dir: str | Path, dry_run: bool = False) -> int:
    """Run what is not up to date, one after the other; the exit status of the first that fails, else 0.

    Raises InputError, before anything runs, for flags that their stage would refuse and for stages that do not fit together.
    """
    given = check_flags(steps)
    check_together(steps, given)
    record = Record(Path(run_dir))
    pending = pending_steps(steps, record)
    if dry_run:
        for step in steps:
            print(step.typed() + ("" if step in pending else "  # up to date"))
        return 0
    check_base_models(pending, given)
    try:
        for number, step in enumerate(steps, 1):
            os.environ[STAGE] = f"{number}/{len(steps)} {step.name}"
            status = _run_if_need_be(step, steps[number:], record)
            if status:
                return status
    finally:
        os.environ.pop(STAGE, None)
    return 0


def _run_if_need_be(step: Step, later: list[Step], record: Record) -> int:
    if record.holds(step):
        say(f"{head()}up to date")
        return 0
    if step.output_dir is None and later and record.holds(later[0]):
        return 0  # it would prepare what needs no preparation
    announce()
    status = run_command(step.command())
    if not status:
        record.note(step)
    return status


def pending_steps(steps: list[Step], record: Record) -> list[Step]:
    """The steps that are not up to date, and those that read what these are going to write."""
    pending: list[Step] = []
    for step in steps:
        written = [other.output_dir for other in pending if other.output_dir]
        reads = any(Path(word).is_relative_to(place) for word in step.words for place in written)
        if reads or not record.holds(step):
            pending.append(step)
    return pending


def run_command(words: list[str]) -> int:
    """Run a command to its end; what stops this process stops it too, and it has the time to clean up."""
    try:
        process = subprocess.Popen(words)
    except OSError as error:
        raise InputError(f"{words[0]}: cannot be started ({error.strerror})") from None
    former = {number: signal.signal(number, lambda *_: process.terminate()) for number in (signal.SIGTERM, signal.SIGHUP)}
    former[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal has sent it to both
    try:
        status = process.wait()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


# -- what is up to date ---------------------------------------------------------------------------------------------------------


class Record:
    """What each stage of a run directory was made from when it last ended well, as one digest."""

    def __init__(self, run_dir: Path):
        self.path = run_dir / RECORD
        self.digests, self.code = self._read(), code_digest()

    def _read(self) -> dict[str, str]:
        return read_json(self.path) if self.path.is_file() else {}

    def holds(self, step: Step) -> bool:
        """Whether starting the stage would change nothing."""
        known = self.digests.get(str(step.output_dir))
        return known is not None and known == self._digest(step)

    def note(self, step: Step) -> None:
        digest = self._digest(step)
        if digest:
            self.digests = self._read() | {str(step.output_dir): digest}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # another pipeline here wrote at this very moment; what is lost is only asked again
                write_json(self.path, self.digests)

    def _digest(self, step: Step) -> str | None:
        """Of the command, the code, what the command names on disk, and what it wrote, if anything; None for no stage."""
        if step.output_dir is None:
            return None
        named = [(word, fingerprint(Path(word))) for word in step.words if os.path.exists(word)]
        manifest = step.output_dir / MANIFEST
        files = None
        if manifest.is_file():
            files = [_changed(step.output_dir / name) for name in read_json(manifest).get("outputs", {})]
        return json_sha256([self.code, step.words, named, files])


def fingerprint(path: Path) -> list:
    """What tells whether a command reads the same: of a stage the digest of all it did, else sizes and times of change."""
    if (path / MANIFEST).is_file():
        return [read_json(path / MANIFEST).get("digest")]
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [[str(file), *_changed(file)] for file in files if file.is_file()]


def _changed(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except FileNotFoundError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def code_digest() -> str:
    """Of everything that could change what a command does: this project's Python and shell files, the pins, Python itself."""
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("*.sh"), *ROOT.glob("slmrec/**/*.py"), ROOT / "requirements.txt"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


# -- command line ---------------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    run_dir, dry_run, *words = sys.argv[1:] if argv is None else argv
    status = run_stages(read_steps(words), run_dir, bool(dry_run))
    if status:
        sys.exit(status)


if __name__ == "__main__":
    from slmrec.runtime import run_main

    run_main(main)
