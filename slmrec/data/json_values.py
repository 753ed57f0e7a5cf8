"""JSON by Python's own parser: no digit of a number is lost, and what an id, a number and a time may be."""

from __future__ import annotations

import ast
import json
import math
import sys
import warnings
from contextlib import contextmanager

from slmrec.data.compressed import decoded, read_bytes
from slmrec.data.values import DATE, id_of_number, shown
from slmrec.errors import InputError

EXTRA_DEPTH = 200  # so that this parser reads whatever nesting msgspec does
NOT_PARSED = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)  # what parsing a line raises


class Number(str):
    """A number as its line writes it, so that no digit is lost."""


@contextmanager
def deeper_recursion():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + EXTRA_DEPTH)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def parse_line(line: bytes, literals: bool) -> dict:
    """One line as a dictionary. Raises ValueError and what Python's parsers raise when it is none."""
    text = line.decode("utf-8")
    try:
        record = json.loads(text, parse_int=Number, parse_float=Number, parse_constant=Number)
    except ValueError:
        if not literals:
            raise
        with warnings.catch_warnings():  # of odd escapes
            warnings.simplefilter("ignore")
            record = ast.literal_eval(text.strip())
        if isinstance(record, dict):
            record = {key: literal(value) for key, value in record.items() if isinstance(key, str)}
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return record


def literal(value: object) -> object:
    """A value of a Python dictionary as JSON would have it."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Number(repr(value))
    return value


def reason(error: Exception) -> str:
    """Why a line does not parse, without any of it."""
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    if isinstance(error, (RecursionError, MemoryError)):
        return "nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.lower().removesuffix(' at')} at character {error.pos + 1}"
    return "not a Python dictionary" if not str(error).startswith("not a") else str(error)


def described(value: object) -> str:
    """A value that is refused, in a few words."""
    kinds = {dict: "an object", list: "a list", bool: str(value).lower(), type(None): "null"}
    if type(value) in kinds:
        return kinds[type(value)]
    return shown(value).strip("'") if type(value) is Number else shown(value)


def as_id(value: object) -> str | None:
    if type(value) is Number:
        return id_of_number(value)
    return value if type(value) is str and is_text(value) else None


def is_text(value: str) -> bool:
    """Whether a string holds no half of a surrogate pair, which an escape in JSON may be."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def as_number(value: object) -> float | None:
    number = float(value) if type(value) is Number else math.nan
    return number if math.isfinite(number) else None


def as_time(value: object) -> str | int | None:
    if type(value) is Number:
        return Number("0") if value == "-0" else value
    return value if type(value) is str and DATE.match(value.strip()) else None


CHECKS = {"id": as_id, "number": as_number, "time": as_time}
WANTED = {"id": "which is no id", "number": "not a number", "time": "neither a number nor an ISO date"}


def read_object(path: str, encoding: str = "utf-8") -> dict:
    """A file that is one JSON object, numbers as `Number`. Raises InputError when it is none, or has a key twice."""
    text = decoded(read_bytes(path, encoding), path, 0)

    def refuse_repeats(pairs: list[tuple]) -> dict:
        content = dict(pairs)
        if len(content) != len(pairs):
            raise InputError(f"{path}: an object in it has a key twice")
        return content

    try:
        with deeper_recursion():
            content = json.loads(
                text, object_pairs_hook=refuse_repeats, parse_int=Number, parse_float=Number, parse_constant=Number
            )
    except (json.JSONDecodeError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"{path}{line}: not one JSON object ({reason(error)})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not one JSON object")
    return content
