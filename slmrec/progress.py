"""What a person sees of a stage: one line, redrawn while it runs, and left with its result.

    [4/9] teacher e4srec_8    67/110 steps |█████████       | 00:18 < 00:12  validation MRR 0.301 at step 60
    [4/9] teacher e4srec_8    110/110 steps  00:29  best validation MRR 0.319 at step 100

A script that starts several stages names each of them in the environment: SLMREC_STAGE="4/9 teacher e4srec_8". Without it a stage
is named by its output directory. The moving line goes to stderr and only to a terminal; elsewhere a plain line a minute shows
that the stage lives. Results go to stdout. Of several processes of one run only the first one speaks.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Self, TextIO, TypeVar

from tqdm import tqdm

STAGE = "SLMREC_STAGE"
HEAD_WIDTH = 28  # of the stage's number and name, so that a pipeline's lines stand in columns
METER = "{n_fmt}/{total_fmt}{unit} |{bar:16}| {elapsed} < {remaining}"
PLAIN_METER = "{n_fmt}/{total_fmt}{unit}  {elapsed} < {remaining}"
REDRAW_SECONDS, PLAIN_SECONDS = 0.1, 60.0

Item = TypeVar("Item")

_counters: list[Counter] = []  # that run now, each inside the one before
_stage: dict[str, Any] = {"name": "", "started": time.monotonic()}


def begin(name: str) -> None:
    """From here on the lines are those of the stage `name` (its output directory)."""
    _stage.update(name=name, started=time.monotonic())


def in_pipeline() -> bool:
    """Whether a script has named this stage, and shows the results of all of its stages in the end."""
    return bool(os.environ.get(STAGE))


def head() -> str:
    """What every line of the stage starts with."""
    if in_pipeline():
        number, _, name = os.environ[STAGE].partition(" ")
        return f"[{number}] {name}".ljust(HEAD_WIDTH) + "  "
    return f"{_stage['name']}: " if _stage["name"] else ""


def announce() -> None:
    """Begin the moving line with the stage's head: a script does this for the seconds in which the stage's own process starts."""
    if speaks() and sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{head()}")
        sys.stderr.flush()


def speaks() -> bool:
    """False in all processes of a distributed run but the first."""
    return os.environ.get("RANK", "0") == "0"


def clear_line() -> None:
    """Remove the moving line, which a script may have begun with the head of its stage."""
    if sys.stderr.isatty() and speaks():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line of its own (default: to stdout), above the moving one."""
    if not speaks():
        return
    if not _counters:
        clear_line()
    tqdm.write(text, file=stream or sys.stdout)
    (stream or sys.stdout).flush()


def finish(result: str, count: str = "") -> None:
    """Print the line of a finished stage: what it counted ("110/110 steps"), the time it took, and its result."""
    seconds = time.monotonic() - _stage["started"]
    parts = [count, tqdm.format_interval(seconds) if seconds >= 1 else "", result]
    say(head() + "  ".join(part for part in parts if part))


class Counter:
    """Counts to `total` on the stage's line. Use it in a `with` block; inside another counter it shows as a share there.

    Args:
        what: is counted, e.g. "ranking test"; shown where no stage has a name, and inside another counter.
        initial: what was done before a kill; it does not count for the time left.
        unit: behind the numbers, e.g. "steps"; "B" writes them in KB, MB ....
        shown: False counts in silence.
    """

    def __init__(self, what: str, total: int, *, initial: int = 0, unit: str = "", shown: bool = True):
        self.what, self.total, self.initial, self.unit = what, total, initial, unit
        self.done, self.note = initial, ""
        self._shown = shown and speaks()
        self._bar: tqdm | None = None
        self._started = self._drawn = time.monotonic()

    def __enter__(self) -> Self:
        if self._shown:
            if not _counters and sys.stderr.isatty():
                self._bar = tqdm(file=sys.stderr, bar_format="{desc}", leave=False, dynamic_ncols=True)
            _counters.append(self)
        self._started = self._drawn = time.monotonic()
        return self

    def __exit__(self, *error) -> None:
        if self._shown:
            _counters.remove(self)
        if self._bar is not None:
            self._bar.close()
        elif self._shown and _counters:
            _counters[0].draw()

    def update(self, count: int = 1) -> None:
        self.done += count
        if not self._shown:
            return
        outermost = _counters[0]
        outermost.draw("" if outermost is self else f"{self.what} {self.done / max(self.total, 1):.0%}")

    def show(self, note: str) -> None:
        """Put a note behind the numbers, e.g. the latest validation."""
        self.note = note
        if self._shown and _counters[0] is self:
            self.draw()

    def draw(self, inner: str = "") -> None:
        """Redraw the line, if it is time to; `inner` says how far a counter inside of this one is."""
        now = time.monotonic()
        if now - self._drawn < (PLAIN_SECONDS if self._bar is None else REDRAW_SECONDS):
            return
        self._drawn = now
        if self._bar is not None:
            self._bar.set_description_str(self._text(METER, inner))
        else:
            print(self._text(PLAIN_METER, inner), file=sys.stderr, flush=True)

    def _text(self, meter: str, inner: str) -> str:
        bytes_ = self.unit == "B"
        unit, seconds = "B" if bytes_ else f" {self.unit}", time.monotonic() - self._started
        count = tqdm.format_meter(
            self.done, self.total, seconds, unit=unit, unit_scale=bytes_, bar_format=meter, initial=self.initial
        )
        return "  ".join(part for part in ((head() or f"{self.what}: ") + count, inner, self.note) if part)


def track(items: Iterable[Item], what: str, total: int, unit: str = "") -> Iterator[Item]:
    """The items, counted on the stage's line as they are taken."""
    with Counter(what, total, unit=unit) as counter:
        for item in items:
            yield item
            counter.update()


class LogLines(logging.Handler):
    """Log records as lines of their own on stderr, above the moving one."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record), sys.stderr)
