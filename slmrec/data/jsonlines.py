"""JSON lines by msgspec, block by block; only around a line that it refuses does Python's own parser look at lines one by one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from slmrec.data.compressed import line_blocks
from slmrec.data.json_values import CHECKS, NOT_PARSED, WANTED, deeper_recursion, described, parse_line, reason
from slmrec.errors import InputError

MAX_REPORTED = 5  # malformed lines whose numbers are told
LINE_BY_LINE_BYTES = 64 << 10
FAST_TYPES = {"id": str | int, "number": float, "time": int | str, "any": Any}
NEWLINE, RETURN, OPEN, CLOSE = b"\n\r{}"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Field:
    """One field to read: its name in the file, and what it has to be.

    Kinds: "id" (text or a whole number), "number" (finite), "time" (a number, or an ISO date as text), "any" (null if missing).
    """

    name: str
    kind: str


class JsonLines:
    """The named fields of each line of a file, as rows with one attribute a field, in the order of the file.

    A line that is not a JSON object is left out and counted in `malformed`; `report_malformed` tells where they are. A field that
    is missing, or is not what it has to be, is an InputError. Of a key that a line has twice the last counts, as in Python.
    `literals`: lines are Python dictionaries, as those of Amazon's 2014 meta files and of Steam.
    """

    def __init__(self, path: str, fields: dict[str, Field], encoding: str = "utf-8", literals: bool = False):
        self.path, self.fields, self.encoding, self.literals = path, fields, encoding, literals
        optional = {"any": {"default": None}}
        self.row_type = msgspec.defstruct(
            "Row",
            [
                (attribute, FAST_TYPES[field.kind], msgspec.field(name=field.name, **optional.get(field.kind, {})))
                for attribute, field in fields.items()
            ],
            kw_only=True,
            gc=any(field.kind == "any" for field in fields.values()),  # text and numbers are in no circle of references
        )
        self.decoder = msgspec.json.Decoder(self.row_type)
        self.lines = self.rows = self.malformed = 0
        self.first_malformed: list[str] = []
        self.first_reason = ""

    def __iter__(self) -> Iterator[tuple[list, range | list[int]]]:
        """Pairs of rows and their line numbers."""
        for block in line_blocks(self.path, self.encoding):
            yield from self._parts(block)

    def _parts(self, block: bytes) -> Iterator[tuple[list, range | list[int]]]:
        """The rows of a block; one that msgspec refuses is halved until the part at fault is small enough to go line by line."""
        rows = self._read_strictly(block)
        numbers: range | list[int]
        middle = block.find(b"\n", len(block) // 2) + 1
        if rows is None and len(block) > LINE_BY_LINE_BYTES and 0 < middle < len(block):
            yield from self._parts(block[:middle])
            yield from self._parts(block[middle:])
            return
        if rows is None:
            rows, numbers = self._read_line_by_line(block)
            self.lines += block.count(b"\n")
        else:
            numbers = range(self.lines + 1, self.lines + 1 + len(rows))
            self.lines += len(rows)
        self.rows += len(rows)
        yield rows, numbers

    def _read_strictly(self, block: bytes) -> list | None:
        """The block as msgspec reads it, or None when a line needs a closer look."""
        if self.literals or not is_utf8(block):
            return None
        try:
            rows = self.decoder.decode_lines(block)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return None
        return rows if len(rows) == objects_a_line(block) else None

    def _read_line_by_line(self, block: bytes) -> tuple[list, list[int]]:
        rows, numbers = [], []
        with deeper_recursion():
            for number, line in enumerate(block.split(b"\n"), start=self.lines + 1):
                if not line.strip():
                    continue
                try:
                    record = parse_line(line, self.literals)
                except NOT_PARSED as error:
                    self._count_malformed(number, error)
                    continue
                rows.append(self.row_type(**{name: self._value(record, field, number) for name, field in self.fields.items()}))
                numbers.append(number)
        return rows, numbers

    def _count_malformed(self, number: int, error: Exception) -> None:
        self.malformed += 1
        self.first_reason = self.first_reason or reason(error)
        if self.malformed <= MAX_REPORTED:
            self.first_malformed.append(str(number))

    def _value(self, record: dict, field: Field, number: int) -> str | float | int | Any:
        value = record.get(field.name)
        if field.kind == "any":
            return value
        if value is None:
            raise InputError(f"{self.path}, line {number}: the field {field.name!r} is missing")
        found = CHECKS[field.kind](value)
        if found is None:
            raise InputError(f"{self.path}, line {number}: {field.name} is {described(value)}, {WANTED[field.kind]}")
        return found

    def report_malformed(self, max_share: float) -> None:
        """Log how many lines did not parse, or raise InputError when they are more than this share; for after the last line."""
        if not self.malformed:
            return
        total = self.rows + self.malformed
        where = ", ".join(self.first_malformed) + (", ..." if self.malformed > len(self.first_malformed) else "")
        what = f"{self.path}: {self.malformed} of {total} lines do not parse (line {where}; the first: {self.first_reason})"
        if self.malformed > max_share * total:
            raise InputError(f"{what}; --max_malformed allows a share of {max_share:g}")
        logger.warning("%s and are left out", what)


def is_utf8(block: bytes) -> bool:
    """msgspec looks at the strings that it returns alone."""
    if block.isascii():
        return True
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def objects_a_line(block: bytes) -> int:
    """How many lines a block has, if each of them runs from { to }; else -1. No JSON value goes on from } to { on a new line."""
    data = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(data == NEWLINE)
    if not len(ends) or ends[-1] != len(data) - 1:
        ends = np.append(ends, len(data))
    last = ends - 1
    last = last - (data[last] == RETURN)
    whole = data[0] == OPEN and (data[ends[:-1] + 1] == OPEN).all() and (data[last] == CLOSE).all()
    return len(ends) if whole else -1
