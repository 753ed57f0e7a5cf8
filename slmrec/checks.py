"""Range checks of command-line arguments: each raises InputError with one line that names the flag."""

from __future__ import annotations

from importlib.util import find_spec

from slmrec.errors import InputError


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"--{name} {value}: choose one of {', '.join(choices)}")


def share_below_one(name: str, value: float | None) -> None:
    """Raise InputError unless `value` is a probability of dropping that leaves something."""
    if value is not None and not 0 <= value < 1:
        raise InputError(f"--{name} {value}: must be at least 0 and below 1")


def at_least(name: str, value: float | None, least: float) -> None:
    """Raise InputError when a number was given and is below `least`."""
    if value is not None and not value >= least:
        raise InputError(f"--{name} {value}: must be at least {least}")


def above(name: str, value: float | None, bound: float) -> None:
    """Raise InputError when a number was given and is not above `bound`."""
    if value is not None and not value > bound:
        raise InputError(f"--{name} {value}: must be above {bound}")


def report_target(value: str) -> None:
    """Raise InputError unless `value` of --report_to can be served here."""
    one_of("report_to", value, ("none", "tensorboard", "wandb"))
    if value != "none" and find_spec(value) is None:
        raise InputError(f"--report_to {value}: the package {value} is not installed (pip install {value})")
