"""Tables whose columns have types: parquet files, and data frames of polars or pandas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl

from slmrec.data.columns import Columns
from slmrec.data.interactions import ActionBlocks, Interactions
from slmrec.data.values import BILLION, Where, numbers, refuse, times
from slmrec.errors import InputError

PARQUET = b"PAR1"  # how such a file begins
PART_ROWS = 1 << 20  # of a parquet file at a time


@contextmanager
def opened_parquet(path: str):
    """A pyarrow.parquet.ParquetFile. Raises InputError when the file is damaged, also while it is being read."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pyarrow.ArrowException, UnicodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the data's
            raise
        raise InputError(f"{path}: damaged parquet file ({first_line(error)})") from None


def parquet_columns(path: str) -> list[str]:
    """Names of the columns of a parquet file."""
    with opened_parquet(path) as file:
        return file.schema_arrow.names


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:100] if str(error) else type(error).__name__


def parquet_parts(path: str, names: list[str] | None = None) -> Iterator[pl.DataFrame]:
    """The rows of a parquet file, some at a time; `names`: these columns alone."""
    with opened_parquet(path) as file:
        for batch in file.iter_batches(PART_ROWS, columns=names):
            batch.validate(full=True)
            yield pl.DataFrame(batch)


def read_parquet(paths: list[str], columns: Columns) -> Interactions:
    """Actions from parquet files of one layout, one after the other."""
    blocks = ActionBlocks()
    names = list(dict.fromkeys(name for name in vars(columns).values() if name))
    for path in paths:
        row = 0
        for part in parquet_parts(path, names):
            add_frame(blocks, part, columns, path, row)
            row += part.height
    return blocks.interactions(", ".join(paths), vars(columns))


def add_frame(blocks: ActionBlocks, frame: pl.DataFrame, columns: Columns, path: str, rows_before: int = 0) -> None:
    """Add the actions of a table with typed columns."""
    if not frame.height:
        return
    first = rows_before + 1
    where = lambda row: f"{path}, row {first + row}"
    found, kind = {side: typed_ids(frame[getattr(columns, side)], where).alias(side) for side in ("user", "item")}, None
    if columns.rating:
        found["rating"] = typed_numbers(frame[columns.rating], where).cast(pl.Float32)
    if columns.time:
        time, kind = typed_times(frame[columns.time], where)
        found |= time.to_dict()
    blocks.add(pl.DataFrame(found), lambda number: f"{path}, row {number}", range(first, first + frame.height), kind)


def typed_ids(ids: pl.Series, where: Where) -> pl.Series:
    """Ids as text: of text, categories or whole numbers; numbers with a fraction of nought count as whole ones."""
    if ids.dtype.is_float():
        refuse_null(ids.fill_nan(None), ids.name, where)
        refuse(~ids.is_finite() | (ids != ids.round()), ids, ids.name, "which is no id", where)
        exact = 2**24 if ids.dtype == pl.Float32 else 2**53  # whole numbers from here on have neighbours that look the same
        refuse(ids.abs() >= exact, ids, ids.name, "a rounded number; ids that large have to be whole numbers or text", where)
        ids = ids.cast(pl.Int64)
    elif not (ids.dtype.is_integer() or ids.dtype in (pl.String, pl.Categorical, pl.Enum)):
        raise InputError(f"{where(0)}: {ids.name} is of type {ids.dtype}; ids are text or whole numbers")
    return ids.cast(pl.String)


def refuse_null(values: pl.Series, name: str, where: Where) -> None:
    missing = values.is_null()
    if missing.any():
        raise InputError(f"{where(missing.arg_true()[0])}: {name} is missing")


def typed_numbers(values: pl.Series, where: Where) -> pl.Series:
    if values.dtype == pl.String:
        return numbers(values, values.name, where)
    if not values.dtype.is_numeric():
        raise InputError(f"{where(0)}: {values.name} is of type {values.dtype}, not a number")
    refuse_null(values, values.name, where)
    values = values.cast(pl.Float64)
    refuse(~values.is_finite(), values, values.name, "not a number", where)
    return values


def typed_times(values: pl.Series, where: Where) -> tuple[pl.DataFrame, str]:
    """Times as `values.times` gives them, of text, numbers, dates or datetimes."""
    if values.dtype == pl.String:
        return times(values, values.name, where)
    refuse_null(values, values.name, where)
    if values.dtype.is_integer() and values.dtype != pl.UInt64:
        return pl.DataFrame({"time": values.cast(pl.Int64)}), "number"
    if values.dtype.is_numeric():
        return times(values.cast(pl.String), values.name, where)
    if values.dtype not in (pl.Date, pl.Datetime):
        raise InputError(f"{where(0)}: {values.name} is of type {values.dtype}, not a time")
    values = values if isinstance(values.dtype, pl.Datetime) else values.cast(pl.Datetime("us"))
    unit = (values.dtype.time_unit if isinstance(values.dtype, pl.Datetime) else None) or "us"
    ticks = {"ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    moments = values.to_physical()  # in UTC, whatever the zone
    return pl.DataFrame({"time": moments // ticks, "part": moments % ticks * (BILLION // ticks)}), "date"


def as_polars(frame: Any, names: list[str] | None = None) -> pl.DataFrame:
    """A data frame of polars or pandas as one of polars, with these columns. Raises InputError for anything else."""
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    frame = frame if names is None else frame[names]
    if isinstance(frame, pl.DataFrame):
        return frame
    try:
        return pl.from_pandas(frame)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise InputError(f"a column of the data frame holds values of several types ({first_line(error)})") from None


def frame_columns(frame: Any) -> list[str]:
    """Names of the columns of a data frame. Raises InputError when it is none of polars or pandas."""
    if isinstance(frame, pl.LazyFrame):
        return frame.collect_schema().names()
    if not isinstance(frame, pl.DataFrame) and type(frame).__module__.partition(".")[0] != "pandas":
        raise InputError(f"a data frame of polars or pandas is needed, not a {type(frame).__name__}")
    return [str(name) for name in frame.columns]
