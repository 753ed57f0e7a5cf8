"""Actions as JSON lines: Amazon's reviews of 2014, 2018 and 2023, and whatever else has one object a line (Yelp, Steam)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import polars as pl

from slmrec.data.columns import NONE, Columns, find_columns
from slmrec.data.compressed import read_head
from slmrec.data.interactions import ActionBlocks, Interactions, Place, line_of
from slmrec.data.json_values import NOT_PARSED, parse_line
from slmrec.data.jsonlines import Field, JsonLines
from slmrec.data.values import DATE, shown, times
from slmrec.errors import InputError

SAMPLE_LINES = 100  # that tell the names of the fields
RARELY_MISSING = 0.1  # share of them that may lack a field (and are refused for it when they are read)
AMAZON = {"user": "reviewerID", "item": "asin", "rating": "overall", "time": "unixReviewTime"}  # where no line can be read
KINDS = {"user": "id", "item": "id", "rating": "number", "time": "time"}


def sample_records(path: str, encoding: str) -> tuple[list[dict], bool]:
    """The first records of a file, and whether they are Python dictionaries rather than JSON."""
    lines = [line for line in read_head(path, encoding).split(b"\n") if line.strip()][:SAMPLE_LINES]
    for literals in (False, True):
        records = [record for line in lines if (record := parsed(line, literals)) is not None]
        if records:
            return records, literals
    return [], False


def parsed(line: bytes, literals: bool) -> dict | None:
    try:
        return parse_line(line, literals)
    except NOT_PARSED:
        return None


def find_fields(path: str, encoding: str, flags: dict[str, str | None]) -> Columns:
    """The names of the fields of actions; what nearly every record of the sample has comes first."""
    refuse_other_json(path, read_head(path, encoding).lstrip())
    records, _ = sample_records(path, encoding)
    if not records:
        named: dict[str, Any] = {role: None if flags[role] == NONE else flags[role] or name for role, name in AMAZON.items()}
        return Columns(**named)
    if len(records) == 1 and all(isinstance(value, (dict, list)) for value in records[0].values()):
        raise InputError(f"{path}: one JSON object holds the whole file, not one a line (pandas: orient='records', lines=True)")
    counts = Counter(name for record in records for name, value in record.items() if value is not None)
    common = [name for name in counts if counts[name] >= len(records) - max(1, RARELY_MISSING * len(records))]
    return find_columns(path, common, flags, [name for name in counts if name not in common])


def refuse_other_json(path: str, head: bytes) -> None:
    first_line = head.split(b"\n", 1)[0].strip()
    if head.startswith(b"["):
        raise InputError(f"{path}: one JSON array; wanted is an object a line (jq -c '.[]' makes that of it)")
    if first_line == b"{":
        raise InputError(f"{path}: a JSON object over several lines; wanted is an object a line (jq -c . makes that of them)")
    if first_line.startswith(b"{") and first_line.endswith(b"},"):
        raise InputError(f"{path}, line 1: a comma follows the object; wanted is an object a line and nothing else")


def read_amazon(paths: list[str], columns: Columns, max_malformed: float, encoding: str = "utf-8") -> Interactions:
    """Read review files of one layout, one after the other.

    While the files are read a review takes 13 bytes of memory, and each different id about 130.
    """
    fields = {role: Field(name, KINDS[role]) for role, name in vars(columns).items() if name}
    blocks, malformed = ActionBlocks(), 0
    for path in paths:
        lines = JsonLines(path, fields, encoding, literals=sample_records(path, encoding)[1])
        for rows, numbers in lines:
            add_rows(blocks, rows, numbers, columns, line_of(path))
        lines.report_malformed(max_malformed)
        malformed += lines.malformed
    if not blocks.rows:
        raise InputError(f"{', '.join(paths)}: holds no review")
    return blocks.interactions(paths[0], vars(columns), blocks.rows + malformed, malformed=malformed)


def add_rows(blocks: ActionBlocks, rows: list, numbers: Sequence[int], columns: Columns, place: Place) -> None:
    """Add rows of JsonLines; ids that are numbers become text."""
    if not rows:
        return
    found, kind = {}, None
    for side in ("user", "item"):
        ids = list(map(attrgetter(side), rows))
        plain = set(map(type, ids)) == {str}
        found[side] = pl.Series(ids if plain else list(map(str, ids)), dtype=pl.String)
    if columns.rating:
        found["rating"] = pl.Series(list(map(attrgetter("rating"), rows)), dtype=pl.Float32)
    if columns.time:
        frame, kind = json_times(list(map(attrgetter("time"), rows)), columns.time, lambda row: place(numbers[row]))
        found |= frame.to_dict()
    blocks.add(pl.DataFrame(found), place, numbers, kind)


def json_times(values: list[int | str], name: str, where: Place) -> tuple[pl.DataFrame, str]:
    """Times of JSON as `values.times` gives them: numbers, or ISO dates in quotes."""
    if set(map(type, values)) == {int}:
        try:
            return pl.DataFrame({"time": pl.Series(values, dtype=pl.Int64)}), "number"
        except (OverflowError, TypeError):  # beyond 64 bits
            pass
    for row, value in enumerate(values):
        if type(value) is str and not DATE.match(value.strip()):
            raise InputError(f"{where(row)}: {name} is {shown(value)}, neither a number nor an ISO date")
    return times(pl.Series([str(value) for value in values], dtype=pl.String), name, where)
