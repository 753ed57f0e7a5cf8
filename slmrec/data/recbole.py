"""RecBole's atomic `.inter` files: one action per row, or one sequence (`token_seq`) per row."""

from __future__ import annotations

import polars as pl

from slmrec.data.delimited import Columns, column, read_interaction_rows, read_table
from slmrec.data.interactions import Interactions
from slmrec.errors import InputError


def read_recbole(path: str, columns: Columns) -> Interactions:
    """Read an `.inter` file; with a column `<item>_list` it holds one sequence per row, the last item in a column of its own."""
    table = read_table(path, "\t", None)
    if f"{columns.item}_list" in table.columns:
        return read_sequence_rows(path, table, columns)
    return read_interaction_rows(path, table, columns)


def read_sequence_rows(path: str, table: pl.DataFrame, columns: Columns) -> Interactions:
    """Each user's longest row is the user's sequence; the others are earlier stages of it and add nothing.

    Raises InputError when a shorter row is not a part of the longest one: then no row holds all of that user's actions.
    """
    history, target = column(table, f"{columns.item}_list", path), column(table, columns.item, path)
    rows = pl.DataFrame({"user": column(table, columns.user, path), "sequence": " " + history + " " + target + " "})
    rows = rows.with_columns(length=pl.col("sequence").str.count_matches(" ", literal=True))
    longest = rows.sort("length", descending=True, maintain_order=True).unique("user", keep="first", maintain_order=True)
    longest = rows.select(pl.col("user").unique(maintain_order=True)).join(longest, on="user", maintain_order="left")
    parts = rows.join(longest, on="user", suffix="_longest")
    strange = parts.filter(~pl.col("sequence_longest").str.contains(pl.col("sequence"), literal=True))
    if strange.height:
        raise InputError(
            f"{path}: no row of user {strange['user'][0]!r} holds the whole sequence; use the file that has it (.test.inter)"
        )
    items = longest.select("user", item=pl.col("sequence").str.strip_chars().str.split(" ")).explode("item")
    notes = {"sequence_rows": rows.height, "repeated_sequence_rows": rows.height - longest.height}
    return Interactions(items, raw_rows=items.height, notes=notes)
