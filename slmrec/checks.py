"""Range checks of command-line arguments: each raises InputError with one line that names the flag.

None stands for a flag that was not given and passes. Numbers that are not finite never pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from slmrec.command_line import flags_of
from slmrec.errors import InputError

LARGEST = 2**40


def check_choices(arguments: Any) -> None:
    """Raise InputError unless every field of a dataclass whose type is a Literal holds one of its values."""
    kind: type = type(arguments)
    for flag in flags_of(kind).values():
        value = getattr(arguments, flag.name)
        if flag.choices and value is not None:
            for one in value if flag.many else [value]:
                one_of(flag.name, one, flag.choices)


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"--{name} {value}: choose one of {', '.join(choices)}")


def share_below_one(name: str, value: float | None) -> None:
    """Raise InputError unless `value` is a probability of dropping that leaves something."""
    if value is not None and not 0 <= value < 1:
        raise InputError(f"--{name} {value}: must be at least 0 and below 1")


def finite(name: str, value: float | None) -> None:
    """Raise InputError when a number was given and is infinite or undefined."""
    if value is not None and not math.isfinite(value):
        raise InputError(f"--{name} {value}: must be a finite number")


def at_least(name: str, value: float | None, least: float) -> None:
    """Raise InputError when a number was given and is below `least`, or a whole number is larger than arrays can be."""
    if value is not None and not (value >= least and math.isfinite(value)):
        raise InputError(f"--{name} {value}: must be at least {least}")
    if isinstance(value, int) and value >= LARGEST:
        raise InputError(f"--{name} {value}: must be below 2**40")


def above(name: str, value: float | None, bound: float) -> None:
    """Raise InputError when a number was given and is not above `bound`."""
    if value is not None and not (value > bound and math.isfinite(value)):
        raise InputError(f"--{name} {value}: must be above {bound}")


def seed_in_range(name: str, value: int, bits: int = 32) -> None:
    """Raise InputError unless `value` is a seed of that many bits: numpy takes 32."""
    if not 0 <= value < 2**bits:
        raise InputError(f"--{name} {value}: must be in 0..2**{bits} - 1")


def each(check: Callable[..., None], arguments: Any, names: str, *bounds: float) -> None:
    """Apply one of the checks above to several fields of a dataclass, named in one string."""
    for name in names.split():
        check(name, getattr(arguments, name), *bounds)


def device_name(name: str, value: str) -> None:
    """Raise InputError unless `value` is how a device is called; whether it is there is asked where it is used."""
    if not re.fullmatch("auto|cpu|cuda(:[0-9]{1,3})?", value):
        raise InputError(f"--{name} {value}: choose auto, cpu, cuda or cuda:N")


def report_target(value: str) -> None:
    """Raise InputError unless what --report_to names is installed; before anything is, nothing can be missing."""
    if value != "none" and find_spec("torch") and find_spec(value) is None:
        raise InputError(f"--report_to {value}: the package {value} is not installed (pip install {value})")
