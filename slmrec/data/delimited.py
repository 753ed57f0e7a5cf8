"""One action per row of a delimited file: CSV, and RecBole's tab-separated atomic `.inter` files."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import polars as pl

from slmrec.data.compressed import read_bytes
from slmrec.data.interactions import Interactions, whole_seconds
from slmrec.errors import InputError

NO_COLUMN = "none"


@dataclass
class Columns:
    """The names of the columns; "none" for a rating or a time that the source does not have."""

    user: str
    item: str
    rating: str
    time: str


def read_table(path: str, separator: str, quote: str | None) -> pl.DataFrame:
    """A delimited file with a header, every cell as text; names lose the blanks around them and RecBole's `:type`."""
    content = read_bytes(path)
    try:
        table = pl.read_csv(io.BytesIO(content), separator=separator, quote_char=quote, infer_schema=False)
    except pl.exceptions.NoDataError:
        raise InputError(f"{path}: is empty") from None
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: {long_row(content, separator, quote) or error}") from None
    names = [name.split(":")[0].strip() if separator == "\t" else name.strip() for name in table.columns]
    return table.rename(dict(zip(table.columns, names)))


def long_row(content: bytes, separator: str, quote: str | None) -> str:
    """Where a row has more cells than the header, in words; "" when none has."""
    quoting = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    rows = csv.reader(io.StringIO(content.decode("utf-8", errors="replace")), delimiter=separator, quoting=quoting)
    header = next(rows)
    for number, row in enumerate(rows, start=1):
        if len(row) > len(header):
            return f"row {number} after the header has {len(row)} cells where the header has {len(header)}"
    return ""


def column(table: pl.DataFrame, name: str, path: str) -> pl.Series:
    """One column as text without surrounding blanks. Raises InputError when it is missing, or empty in some row."""
    if name not in table.columns:
        raise InputError(f"{path}: has no column {name!r} (its columns: {', '.join(table.columns)})")
    values = table[name].str.strip_chars()
    absent = values.is_null() | (values == "")
    if absent.any():
        raise InputError(f"{path}, row {absent.arg_true()[0] + 1} after the header: {name} is missing")
    return values


def numeric_column(table: pl.DataFrame, name: str, path: str) -> pl.Series:
    """One column as Float64. Raises InputError with the row of a cell that is not a finite number."""
    text = column(table, name, path)
    numbers = text.cast(pl.Float64, strict=False)
    wrong = ~numbers.is_finite().fill_null(False)
    if wrong.any():
        row = wrong.arg_true()[0]
        raise InputError(f"{path}, row {row + 1} after the header: {name} is {text[row]!r}, not a number")
    return numbers


def read_interaction_rows(path: str, table: pl.DataFrame, columns: Columns) -> Interactions:
    """Actions from a table with one of them per row."""
    series = {"user": column(table, columns.user, path), "item": column(table, columns.item, path)}
    if columns.rating != NO_COLUMN:
        series["rating"] = numeric_column(table, columns.rating, path).cast(pl.Float32)
    if columns.time != NO_COLUMN:
        series["time"] = whole_seconds(path, numeric_column(table, columns.time, path))
    if not table.height:
        raise InputError(f"{path}: holds no action")
    return Interactions(pl.DataFrame(series), raw_rows=table.height)


def read_csv(path: str, columns: Columns) -> Interactions:
    return read_interaction_rows(path, read_table(path, ",", '"'), columns)
