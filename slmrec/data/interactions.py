"""What every source is read into: one row per action, in the order of the source."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from slmrec.errors import InputError


@dataclass
class Interactions:
    """Actions as a source holds them.

    Attributes:
        frame: columns user and item (pl.String, or pl.Categorical to save memory), and where the source has them rating
            (pl.Float32) and time (pl.Int64, Unix seconds).
        raw_rows: actions or lines that the source holds, malformed ones included.
        malformed: lines that did not parse.
        notes: more counts for stats.json.
    """

    frame: pl.DataFrame
    raw_rows: int
    malformed: int = 0
    notes: dict = field(default_factory=dict)

    @property
    def has_ratings(self) -> bool:
        return "rating" in self.frame.columns

    @property
    def has_times(self) -> bool:
        return "time" in self.frame.columns


def whole_seconds(path: str, numbers: pl.Series) -> pl.Series:
    """Unix times as the column time, Int64. Raises InputError for a number that is none."""
    times = numbers.cast(pl.Int64, strict=False).alias("time")
    if times.null_count():
        raise InputError(f"{path}: {numbers.filter(times.is_null())[0]!r} is not a time in Unix seconds")
    return times


def rename_by_table(frame: pl.DataFrame, column: str, table: pl.DataFrame, path: str) -> pl.DataFrame:
    """Replace the source's numbers in `column` by the source ids of `table` (columns index, source_id)."""
    if table["index"].is_duplicated().any():
        raise InputError(f"{path}: gives the number {table['index'].filter(table['index'].is_duplicated())[0]!r} twice")
    unknown = frame.join(table, left_on=column, right_on="index", how="anti")
    if unknown.height:
        raise InputError(f"{path}: has no entry for the {column} {unknown[column][0]!r}")
    renamed = frame.join(table, left_on=column, right_on="index", how="left", maintain_order="left")
    return renamed.with_columns(pl.col("source_id").alias(column)).drop("source_id")
