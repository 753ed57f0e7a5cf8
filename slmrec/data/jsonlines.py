"""JSON lines by polars, block by block; only around a line that it refuses are lines looked at one by one."""

from __future__ import annotations

import ast
import io
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from slmrec.data.compressed import line_blocks
from slmrec.errors import InputError

MAX_REPORTED = 5  # malformed lines whose numbers are told
LINE_BY_LINE_BYTES = 64 << 10

logger = logging.getLogger(__name__)


@dataclass
class JsonLines:
    """The named fields of each line of a file, as data frames in the order of the file.

    `schema` maps a field to pl.String, pl.Float64 or lists of strings, nested or not. A line that is not a JSON object is left
    out and counted in `malformed`; `report_malformed` tells where they are. A field that is missing (unless `optional`) or a
    number that is none is an InputError; a list that is none counts as missing.
    `python_literals` also accepts lines that are Python dictionaries: the meta files of the 2014 release are.
    """

    path: Path
    schema: dict[str, pl.DataType]
    optional: tuple[str, ...] = ()
    python_literals: bool = False
    lines: int = 0
    rows: int = 0
    malformed: int = 0
    first_malformed: list[str] = field(default_factory=list)
    first_reason: str = ""

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for block in line_blocks(self.path):
            yield from self._frames(block)

    def _frames(self, block: bytes) -> Iterator[pl.DataFrame]:
        """The rows of a block; one that polars refuses is halved until the part at fault is small enough to go line by line."""
        frame = self._read_strictly(block)
        middle = block.find(b"\n", len(block) // 2) + 1
        if frame is None and len(block) > LINE_BY_LINE_BYTES and 0 < middle < len(block):
            yield from self._frames(block[:middle])
            yield from self._frames(block[middle:])
            return
        frame = self._read_line_by_line(block) if frame is None else frame
        self.lines += block.count(b"\n")
        self.rows += frame.height
        yield frame

    def _read_strictly(self, block: bytes) -> pl.DataFrame | None:
        """The block as polars reads it, or None when a line needs a closer look."""
        try:
            frame = pl.read_ndjson(io.BytesIO(block), schema=self.schema)
        except (pl.exceptions.ComputeError, pl.exceptions.SchemaError):
            return None
        required = [name for name in self.schema if name not in self.optional]
        complete = not any(frame[name].null_count() for name in required)
        return frame if complete else None

    def _read_line_by_line(self, block: bytes) -> pl.DataFrame:
        columns: dict[str, list] = {name: [] for name in self.schema}
        for number, line in enumerate(block.split(b"\n"), start=self.lines + 1):
            if not line.strip():
                continue
            try:
                record = self._parse(line)
            except (ValueError, SyntaxError, RecursionError) as error:
                self._count_malformed(number, error)
                continue
            for name in self.schema:
                columns[name].append(self._value(record, name, number))
        return pl.DataFrame(columns, schema=self.schema)

    def _parse(self, line: bytes) -> dict:
        try:
            record = json.loads(line)
        except ValueError:
            if not self.python_literals:
                raise
            record = ast.literal_eval(line.decode("utf-8"))
        if not isinstance(record, dict):
            raise ValueError("not a JSON object")
        return record

    def _count_malformed(self, number: int, error: Exception) -> None:
        self.malformed += 1
        self.first_reason = self.first_reason or str(error)
        if self.malformed <= MAX_REPORTED:
            self.first_malformed.append(str(number))

    def _value(self, record: dict, name: str, number: int) -> str | float | list | None:
        value = record.get(name)
        if value is None and name in self.optional:
            return None
        if value is None:
            raise InputError(f"{self.path}, line {number}: the field {name!r} is missing")
        if self.schema[name] != pl.Float64:
            return as_text(value, self.schema[name])
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(f"{self.path}, line {number}: {name} is {value!r}, not a number")
        return float(value)

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


def as_text(value: object, kind: pl.DataType) -> str | list | None:
    """A JSON value as polars reads it under pl.String or lists of it; None where a list is wanted and it is none."""
    if kind == pl.String:
        return value if value is None or isinstance(value, str) else json.dumps(value)
    return [as_text(inner, kind.inner) for inner in value] if isinstance(value, list) else None
