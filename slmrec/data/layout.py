"""How a delimited file is cut into columns, and which of them hold what."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slmrec.data.columns import NONE, Columns, find_columns
from slmrec.data.compressed import decoded, read_head
from slmrec.errors import InputError

SEPARATORS = {"::": "double colons", "\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
QUOTED = ",;\t"  # separators of tables whose cells may stand in quotes
TYPES = (":token", ":token_seq", ":float", ":float_seq")  # behind the names of RecBole's atomic files
AMAZON_ITEM, AMAZON_USER = re.compile(r"(B[0-9A-Z]{9}|[0-9]{9}[0-9X])$"), re.compile(r"A[0-9A-Z]{8,20}$")
LARGEST_RATING = 10_000  # a larger number is a time


@dataclass(frozen=True)
class Layout:
    """How a file is cut into columns.

    Attributes:
        names: of the columns, "1", "2", ... where there is no header.
        skip: lines up to the header and with it, 0 without one.
        quoted: whether cells may stand in quotes.
        first: the cells of the first row, where there is no header.
    """

    separator: str
    names: tuple[str, ...]
    skip: int
    quoted: bool
    first: tuple[str, ...] = ()

    def place(self, path: str) -> Callable[[int], str]:
        after = " after the header" if self.skip else ""
        return lambda number: f"{path}, row {number}{after}"

    @property
    def named_by(self) -> str:
        return "the header" if self.skip else "the first row"

    def __str__(self) -> str:
        return f"columns between {SEPARATORS[self.separator]}" + ("" if self.skip else " without header")


def find_layout(path: str, encoding: str, no_header: bool = False, atomic: bool = False) -> Layout:
    """The layout that the first line tells. A file between double colons (MovieLens) never has a header.

    `atomic`: between tabs there are no quotes (RecBole's atomic files).
    """
    lines = decoded(read_head(path, encoding), path, 0).split("\n")
    start = next((number for number, line in enumerate(lines) if line.strip()), None)
    if start is None:
        raise InputError(f"{path}: is empty")
    line = lines[start].rstrip("\r")
    separator = find_separator(line)
    if separator is None and len(line.split()) > 1 and '"' not in line:
        raise InputError(
            f"{path}: between its columns are no tabs, commas, semicolons or bars; perhaps blanks, which ids may hold"
        )
    separator = separator or ","
    quoted = separator in QUOTED and not (atomic and separator == "\t")
    cells = cut(line, separator, quoted, path)
    if no_header or separator == "::":
        return Layout(separator, tuple(str(number + 1) for number in range(len(cells))), 0, quoted, tuple(cells))
    typed = any(cell.endswith(TYPES) for cell in cells)
    names = [cell.split(":")[0].strip() if typed else cell.strip() for cell in cells]
    return Layout(separator, tuple(names), start + 1, quoted)


def find_separator(line: str) -> str | None:
    """Double colons or tabs where there are some, else what is most frequent."""
    counts = {separator: line.count(separator) for separator in SEPARATORS}
    for separator in ("::", "\t"):
        if counts[separator]:
            return separator
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] else None


def cut(line: str, separator: str, quoted: bool, path: str) -> list[str]:
    """The first line as cells."""
    if not quoted or '"' not in line:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:
        raise InputError(f"{path}, line 1: its quotes do not pair") from None


def find_row_columns(path: str, layout: Layout, flags: dict[str, str | None]) -> Columns:
    """Which columns of a table with one action a row hold what: by their names, or without a header by their order."""
    if layout.first:
        return find_columns(path, layout.names, positions(layout.first) | {role: name for role, name in flags.items() if name})
    try:
        return find_columns(path, layout.names, flags)
    except InputError:
        if any(map(is_number, layout.names)):
            raise InputError(
                f"{path}: its first row holds a number and no names; --no_header reads user, item, rating, time"
            ) from None
        raise


def positions(row: Sequence[str]) -> dict[str, str]:
    """The column of each role, told from a row. In Amazon's 2018 ratings the item stands first; its ids show that."""
    names = ["user", "item", "rating", "time"]
    if len(row) == 2 or len(row) == 3 and not (is_number(row[2]) and float(row[2]) <= LARGEST_RATING):
        names.remove("rating")
    if len(row) > 1 and AMAZON_ITEM.match(row[0].strip()) and AMAZON_USER.match(row[1].strip()):
        names[:2] = "item", "user"
    return {"rating": NONE} | {name: str(place + 1) for place, name in enumerate(names[: len(row)])}


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
