"""Command lines of all entry points: flags from dataclasses, every one checked, what is wrong said in one line.

The dataclasses are the only description of a flag: its name, type, default, help (`metadata={"help": ...}`) and, as `Literal`,
its choices; ranges are checked by `__post_init__`. Python's standard library is all that this needs, so that `-h` works and a
misspelt flag is told before anything is installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import math
import os
import sys
import types
from collections.abc import Iterable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from slmrec.errors import InputError

TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag, as a dataclass field describes it.

    Attributes:
        kind: type of one value: str, int, float or bool.
        choices: the values of a Literal; empty where any value will do.
        many: whether it takes a list of values.
        default: dataclasses.MISSING where the flag must be given.
    """

    name: str
    kind: type
    choices: tuple
    many: bool
    default: Any
    help: str

    def convert(self, text: str) -> Any:
        """One value from its text. Raises InputError when it is no such value; numbers must be finite."""
        if self.choices:
            if text not in map(str, self.choices):
                raise InputError(f"--{self.name} {text}: choose one of {', '.join(map(str, self.choices))}")
            return next(choice for choice in self.choices if str(choice) == text)
        if self.kind is bool:
            if text.lower() not in TRUE + FALSE:
                raise InputError(f"--{self.name} {text}: it is a switch, followed by nothing, true or false")
            return text.lower() in TRUE
        if not text:
            raise InputError(f"--{self.name} needs a value, not an empty one")
        return self._number(text) if self.kind in (int, float) else text

    def _number(self, text: str) -> int | float:
        try:
            value = self.kind(text)
        except ValueError:
            raise InputError(f"--{self.name} {text}: must be a {'whole ' if self.kind is int else ''}number") from None
        if not math.isfinite(value):
            raise InputError(f"--{self.name} {text}: must be a finite number")
        return value


@functools.cache
def flags_of(*kinds: type) -> dict[str, Flag]:
    """The flags of these dataclasses by name, in their order. Raises TypeError for a field that cannot be a flag."""
    found = {}
    for kind in kinds:
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if field.init:
                found[field.name] = _flag(field, hints[field.name])
    return found


def _flag(field: dataclasses.Field, hint: Any) -> Flag:
    if get_origin(hint) in (Union, types.UnionType):  # X | None: None is what is not given
        hint = next(option for option in get_args(hint) if option is not type(None))
    many = get_origin(hint) is list
    if many:
        (hint,) = get_args(hint)
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    kind = type(choices[0]) if choices else hint
    if kind not in (str, int, float, bool):
        raise TypeError(f"{field.name}: a flag cannot be a {hint}")
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return Flag(field.name, kind, choices, many, default, field.metadata.get("help", ""))


def parse_arguments(
    kinds: type | tuple[type, ...],
    argv: list[str] | None = None,
    *,
    description: str | None = None,
    command: str | None = None,
    **defaults: Any,
) -> tuple:
    """One instance of each dataclass, from a command line (default: sys.argv).

    Args:
        description: what the command does, for `-h`; of a docstring the first line is taken.
        command: what the user typed before the flags, for `-h` (default: found out).
        defaults: of this command, instead of the dataclasses' own.

    Raises:
        InputError: a flag is unknown, misses its value, is of another type or out of its range, or a required one is missing.
    """
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    command = command or typed_command()
    if "-h" in argv or "--help" in argv:
        print(help_text(kinds, command, description, **defaults))
        sys.exit(0)
    values = read_flags(flags_of(*kinds), argv, f"{command} -h")
    values = defaults | values
    missing = [flag for flag in flags_of(*kinds).values() if flag.default is dataclasses.MISSING]
    missing = [flag for flag in missing if flag.name not in values]
    if missing:
        raise InputError(
            f"--{missing[0].name} is missing: {missing[0].help or 'it has no default'} ({command} -h lists all flags)"
        )
    return tuple(kind(**{name: value for name, value in values.items() if name in flags_of(kind)}) for kind in kinds)


def read_flags(flags: dict[str, Flag], argv: list[str], where_all_are: str) -> dict[str, Any]:
    """The values that a command line gives, by flag name; of a flag given twice the last one.

    Understood are `--x value`, `--x=value`, `--list a b c`, `--switch`, `--switch false` and `--no_switch`; hyphens in names too.
    """
    values = {}
    for name, texts in grouped(argv):
        name, texts = _switched_off(flags, name, texts)
        if name not in flags:
            raise InputError(unknown_flag(name, flags, where_all_are))
        flag = flags[name]
        if not texts and flag.kind is not bool:
            raise InputError(f"--{name} needs a value")
        if len(texts) > 1 and not flag.many:
            raise InputError(f"--{name} takes one value, not {' '.join(texts)}")
        converted = [flag.convert(text) for text in texts] or [True]
        values[name] = converted if flag.many else converted[0]
    return values


def grouped(argv: list[str]) -> list[tuple[str, list[str]]]:
    """A command line as pairs of a flag's name, without dashes, and the words that follow it up to the next flag.

    Raises InputError when it does not begin with a flag.
    """
    groups: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            groups.append((name.replace("-", "_"), [value] if equals else []))
        elif groups:
            groups[-1][1].append(word)
        else:
            raise InputError(f"{word}: a flag such as --name is expected here")
    return groups


def _switched_off(flags: dict[str, Flag], name: str, texts: list[str]) -> tuple[str, list[str]]:
    switch = flags.get(name.removeprefix("no_"))
    if name not in flags and name.startswith("no_") and switch and switch.kind is bool and not texts:
        return switch.name, ["false"]
    return name, texts


def unknown_flag(name: str, known: Iterable[str], where_all_are: str) -> str:
    """One line about a flag that there is not, with the one that may have been meant: spelt alike, shortened, or longer."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    near = near or [other for other in known if "".join(word[0] for word in other.split("_")) == name]  # lr
    near = near or [other for other in known if name in other.split("_")]  # epochs
    return f"unknown flag --{name}: " + (f"did you mean --{near[0]}?" if near else f"{where_all_are} lists all there are")


def typed_command() -> str:
    """What the user typed before the flags: `python finetune.py`, `python -m slmrec.data`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None:
        return f"python -m {spec.name.removesuffix('.__main__')}"
    return f"python {os.path.relpath(sys.argv[0])}" if sys.argv[0] else "python"


def help_text(kinds: tuple[type, ...], command: str, description: str | None = None, **defaults: Any) -> str:
    """What `-h` prints: how the command is called, then each dataclass's flags under the first line of its docstring."""
    flags = flags_of(*kinds).values()
    required = [flag for flag in flags if flag.default is dataclasses.MISSING and flag.name not in defaults]
    usage = " ".join([command, *(f"--{flag.name} {flag.name.upper()}" for flag in required), "[flags]"])
    sections = [((kind.__doc__ or "").strip().partition("\n")[0].rstrip("."), "--", flags_of(kind)) for kind in kinds]
    return help_sections(usage, (description or "").strip().partition("\n")[0], sections, **defaults)


def help_sections(usage: str, description: str, sections: list[tuple[str, str, dict[str, Flag]]], **defaults: Any) -> str:
    """Flags in sections: each a title, what its flags begin with (`--`, `--sasrec.`), and the flags."""
    parser = argparse.ArgumentParser(add_help=False, usage=usage.replace("%", "%%"), description=description or None)
    for title, prefix, flags in sections:
        group = parser.add_argument_group(title)
        for flag in flags.values():
            default = defaults.get(flag.name, flag.default)
            text = f"{flag.help}{_default_text(default, flag.help)}".replace("%", "%%")
            metavar = "{" + ",".join(map(str, flag.choices)) + "}" if flag.choices else flag.kind.__name__.upper()
            shown = {"action": "store_true"} if flag.kind is bool else {"nargs": "+" if flag.many else None, "metavar": metavar}
            names = [f"{prefix}{flag.name}"] + ([f"{prefix}no_{flag.name}"] if default is True else [])
            group.add_argument(*names, help=text or None, **shown)
    return parser.format_help().rstrip()


def _default_text(default: Any, text: str) -> str:
    if default is dataclasses.MISSING:
        return " (required)"
    if default is None or default is False or "default:" in text:
        return ""
    shown = (
        " ".join(map(str, default)) if isinstance(default, list) else f"{default:g}" if isinstance(default, float) else default
    )
    return f" (default: {shown})"
