"""Delimited tables, block by block: by polars, and from the first quote on by Python's csv module.

A table without any quote can be cut in one way only; of one with quotes csv in its strict mode tells what is malformed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import itemgetter

import numpy as np
import polars as pl

from slmrec.data.columns import Columns
from slmrec.data.compressed import decoded, line_blocks
from slmrec.data.interactions import ActionBlocks, Interactions, Numbers
from slmrec.data.layout import Layout
from slmrec.data.values import numbers as as_numbers
from slmrec.data.values import times
from slmrec.errors import InputError

INSIDE = "\x1f"  # stands for "::", because polars cuts at one byte
CHUNK_ROWS = 50_000  # of a table with quotes, that become one frame


def read_columns(path: str, layout: Layout, wanted: Sequence[str], encoding: str) -> Iterator[tuple[pl.DataFrame, Numbers]]:
    """Pairs of a frame with the wanted columns, as text, and its row numbers (from 1, behind the header); blank lines left out.

    Raises InputError for a row with more cells than there are columns, for quotes that do not pair, and for other encodings.
    """
    blocks, lines_before, rows_before = line_blocks(path, encoding), 0, 0
    for block in blocks:
        lines = block.count(b"\n")
        if not lines_before:
            block = without_first(block, layout.skip)
        if layout.quoted and b'"' in block:
            yield from quoted_rows(path, layout, wanted, chain([block], blocks), rows_before)
            return
        decoded(block, path, rows_before + layout.skip)
        frame, numbers = plain_rows(path, layout, wanted, block, rows_before)
        lines_before += lines
        rows_before = lines_before - layout.skip
        if frame.height:
            yield frame, numbers


def without_first(block: bytes, lines: int) -> bytes:
    for _ in range(lines):
        block = block[block.find(b"\n") + 1 :] if b"\n" in block else b""
    return block


def plain_rows(path: str, layout: Layout, wanted: Sequence[str], block: bytes, rows_before: int) -> tuple[pl.DataFrame, Numbers]:
    """The rows of a block of lines without quotes."""
    separator = layout.separator
    if len(separator) > 1:
        block, separator = block.replace(separator.encode(), INSIDE.encode()), INSIDE
    header = separator.join(str(number) for number in range(len(layout.names)))
    try:
        frame = pl.read_csv(
            io.BytesIO(header.encode() + b"\n" + block),
            separator=separator,
            quote_char=None,
            infer_schema=False,
            raise_if_empty=False,
        )
    except pl.exceptions.PolarsError as error:
        refuse_long_row(path, layout, block.split(b"\n"), separator, rows_before)
        raise InputError(f"{path}: cannot be cut into columns ({str(error).splitlines()[0][:100]})") from None
    frame = frame.select(frame.to_series(layout.names.index(name)).alias(name) for name in wanted)
    numbers = range(rows_before + 1, rows_before + 1 + frame.height)
    empty = frame.select(pl.all_horizontal((pl.all().is_null()) | (pl.all().str.strip_chars() == ""))).to_series()
    if not empty.any():
        return frame, numbers
    lines = block.split(b"\n")
    nothing = b" \t\r" + separator.encode()
    kept = np.array([row for row, none in enumerate(empty) if not none or lines[row].strip(nothing)], dtype=np.int64)
    return frame[kept], kept + rows_before + 1


def refuse_long_row(path: str, layout: Layout, lines: list[bytes], separator: str, rows_before: int) -> None:
    for number, line in enumerate(lines, start=rows_before + 1):
        cells = line.count(separator.encode()) + 1
        if cells > len(layout.names):
            raise InputError(f"{layout.place(path)(number)} has {cells} cells where {layout.named_by} has {len(layout.names)}")


def quoted_rows(
    path: str, layout: Layout, wanted: Sequence[str], blocks: Iterator[bytes], number: int
) -> Iterator[tuple[pl.DataFrame, Numbers]]:
    """The rows of blocks of lines in which cells may stand in quotes, `number` rows after the start."""
    place, positions = layout.place(path), [layout.names.index(name) for name in wanted]
    lines = chain.from_iterable(text_blocks(path, blocks, number + layout.skip))
    reader = csv.reader(lines, delimiter=layout.separator, strict=True)
    pick = itemgetter(*positions, positions[0])  # one more, so that it is a tuple for one column, too
    rows: list[tuple[str, ...]] = []
    numbers: list[int] = []
    line, width = 0, len(layout.names)
    try:
        for row in reader:
            number += 1
            if reader.line_num - line > 1:
                refuse_backslash(row, place(number))
            line = reader.line_num
            if len(row) != width or not row[0].strip():
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) > width:
                    raise InputError(f"{place(number)} has {len(row)} cells where {layout.named_by} has {width}")
                row += [""] * (width - len(row))
            rows.append(pick(row))
            numbers.append(number)
            if len(rows) == CHUNK_ROWS:
                yield as_frame(rows, wanted), numbers
                rows, numbers = [], []
    except csv.Error as error:
        if "new-line" in str(error):
            raise InputError(f"{place(number + 1)}: a carriage return stands inside it") from None
        raise InputError(f"{place(number + 1)}: its quotes do not pair (a quote in a quoted cell is written twice)") from None
    if rows:
        yield as_frame(rows, wanted), numbers


def refuse_backslash(row: list[str], where: str) -> None:
    """Raise InputError where \\" may have ended a cell for one program and not for another, so that rows are swallowed."""
    if any('\\"' in cell and "\n" in cell for cell in row):
        raise InputError(f'{where}: a cell with \\" goes on over several lines; a quote in a quoted cell is written twice')


def text_blocks(path: str, blocks: Iterator[bytes], lines_before: int) -> Iterator[io.StringIO]:
    """The blocks as text that gives its lines one by one, each of which ends at a line feed alone."""
    for block in blocks:
        yield io.StringIO(decoded(block, path, lines_before), newline="\n")
        lines_before += block.count(b"\n")


def as_frame(rows: list[tuple[str, ...]], names: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame({name: pl.Series(cells, dtype=pl.String) for name, cells in zip(names, zip(*rows))})


def read_rows(paths: list[str], layout: Layout, columns: Columns, encoding: str) -> Interactions:
    """Actions from tables of one layout with one action a row, one table after the other."""
    blocks = ActionBlocks()
    names = {role: name for role, name in vars(columns).items() if name}
    for path in paths:
        place = layout.place(path)
        for frame, numbers in read_columns(path, layout, list(names.values()), encoding):
            where = lambda row, place=place, numbers=numbers: place(numbers[row])
            found, kind = {side: frame[names[side]].alias(side) for side in ("user", "item")}, None
            if columns.rating:
                found["rating"] = as_numbers(frame[columns.rating], columns.rating, where).cast(pl.Float32)
            if columns.time:
                time, kind = times(frame[columns.time], columns.time, where)
                found |= time.to_dict()
            blocks.add(pl.DataFrame(found), place, numbers, kind)
    return blocks.interactions(", ".join(paths), vars(columns))
