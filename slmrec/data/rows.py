"""Rows of large tables: chosen, ordered and counted without a second copy of the table, so that memory stays near its own size.

Shapes: E rows; a code is the number of a category (`pl.Series.to_physical`), C of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

PART_ROWS = 2**23  # that are worked on at once: 64 MiB of whole numbers
NEVER = np.uint32(2**32 - 1)  # no row has this number; polars has fewer rows


def take_rows(frame: pl.DataFrame, rows: np.ndarray) -> pl.DataFrame:
    """The rows, bool [E] or positions uint32, of a frame that is used up: it gives away one column after the other."""
    chosen = pl.Series(rows)
    pick = pl.Series.filter if rows.dtype == bool else pl.Series.gather
    return pl.DataFrame({name: pick(frame.drop_in_place(name), chosen) for name in frame.columns})


def codes_of(column: pl.Series) -> np.ndarray:
    """uint32 [E], the category of each row as a number; a view while the column lives."""
    return column.to_physical().to_numpy()


def parts(number: int) -> Iterator[slice]:
    """Slices of `number` rows, PART_ROWS each."""
    return (slice(start, min(start + PART_ROWS, number)) for start in range(0, number, PART_ROWS))


def count_codes(codes: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
    """How many rows each code has, int64 [C]; `kept`, positions: of these rows alone."""
    counts = np.zeros(int(codes.max(initial=0)) + 1, dtype=np.int64)
    for part in parts(len(codes) if kept is None else len(kept)):
        found = np.bincount(codes[part] if kept is None else codes[kept[part]])
        counts[: len(found)] += found
    return counts


def time_order(times: np.ndarray) -> np.ndarray:
    """Positions uint32 [E] that put int64 times in order; equal ones stay as they are.

    Time and position in one number are sorted in place: half the memory of an argsort.
    """
    first = times.min(initial=2**63 - 1)
    if int(times.max(initial=first)) - int(first) >= 2**32:
        return np.argsort(times, kind="stable").astype(np.uint32)
    return _low_half_in_order((times - first).view(np.uint64))


def group_order(numbers: np.ndarray) -> np.ndarray:
    """Positions uint32 [E] that put uint32 numbers in order; equal ones stay as they are."""
    return _low_half_in_order(numbers.astype(np.uint64))


def _low_half_in_order(keys: np.ndarray) -> np.ndarray:
    keys <<= np.uint64(32)
    for part in parts(len(keys)):
        keys[part] |= np.arange(part.start, part.stop, dtype=np.uint64)
    keys.sort()
    return keys.astype(np.uint32)


def first_of_pairs(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """bool [E], true where a pair of codes comes first. Some of the left codes at a time, as what was met is remembered."""
    fresh, groups = np.ones(len(left), dtype=bool), np.uint32(1 + len(left) // PART_ROWS)
    for group in range(int(groups)):
        rows = np.flatnonzero(left % groups == group)
        pairs = left[rows].astype(np.uint64) << np.uint64(32) | right[rows]
        fresh[rows] = pl.Series(pairs).is_first_distinct().to_numpy()
    return fresh


def first_rows(codes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The smallest of the numbers uint32 [E] of the rows with each code, uint32 [C]; NEVER for a code that no row has."""
    first = np.full(int(codes.max(initial=0)) + 1, NEVER, dtype=np.uint32)
    for part in parts(len(codes)):
        np.minimum.at(first, codes[part], rows[part])
    return first
