"""Kills: at every file event of every stage, and at random moments. The same command must then end as if nothing had happened."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

from tests.campaign.processes import Ended, FatalWatch, number_of_events, run, run_and_kill, state_of
from tests.campaign.stages import Inputs
from tests.campaign.tally import Tally


class Kills:
    """Kills of one stage, in a directory that is made anew for each."""

    def __init__(self, inputs: Inputs, name: str, place: Path, tally: Tally):
        self.inputs, self.name, self.place, self.tally = inputs, name, place, tally
        self.log = place.with_name(f"{name}.log")
        self._renew()
        started = time.monotonic()
        self.events = number_of_events(self.work, self.log, place)
        self.seconds = time.monotonic() - started
        self.expected = self._state()

    def work(self) -> None:
        self.inputs.run(self.name, self.place / "out")

    def _renew(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)

    def _state(self) -> dict:
        return state_of(self.place / "out")

    def at_event(self, number: int, cut: bool) -> None:
        self._renew()
        watch = FatalWatch(self.place, number, cut)
        self._judge(f"a kill at every file event{', the file left half' if cut else ''}", run(self.work, self.log, watch), number)

    def at_random(self, seconds: float) -> None:
        self._renew()
        self._judge("a kill at a random moment", run_and_kill(self.work, self.log, seconds), round(seconds, 3))

    def _judge(self, kind: str, killed: Ended, where: float) -> None:
        """Start the same command again."""
        again = run(self.work, self.log)
        detail = f"{where}: {again.said[-300:]}"
        if killed.fault():
            self.tally.add(kind, self.name, "traceback", killed.said[-300:])
        elif again.fault():
            self.tally.add(kind, self.name, "traceback", detail)
        elif again.status != 0:
            self.tally.add(kind, self.name, "dead directory", detail)
        elif self._state() != self.expected:
            self.tally.add(kind, self.name, "another result", detail)
        elif [path.name for path in self.place.iterdir() if path.name.endswith((".partial", ".replaced"))]:
            self.tally.add(kind, self.name, "half-written", detail)
        else:
            self.tally.add(kind, self.name, "equal")


def campaign(inputs: Inputs, name: str, place: Path, tally: Tally, share: float, draw: random.Random) -> None:
    """`share` of all events of a stage and of 50 random kills (1: all of them)."""
    kills = Kills(inputs, name, place / name, tally)
    for number in range(1, kills.events + 1):
        if draw.random() < share:
            kills.at_event(number, cut=draw.random() < 0.5)
    for _ in range(max(1, round(50 * share))):
        kills.at_random(draw.uniform(0.0, kills.seconds))
