"""RecBole's atomic `.inter` files of sequences (`token_seq`): one sequence a row, the last item in a column of its own."""

from __future__ import annotations

import polars as pl

from slmrec.data.columns import Columns, named
from slmrec.data.delimited import read_columns
from slmrec.data.interactions import ActionBlocks, Interactions
from slmrec.data.layout import Layout
from slmrec.data.sequences import refuse_tokens
from slmrec.data.values import clean_ids, shown
from slmrec.errors import InputError


def holds_sequences(layout: Layout, item: str) -> bool:
    return f"{item}_list" in layout.names


def read_sequence_rows(paths: list[str], layout: Layout, columns: Columns, encoding: str = "utf-8") -> Interactions:
    """Each user's longest row is the user's sequence; the others are earlier stages of it and add nothing.

    Raises InputError when a shorter row is not a part of the longest one: then no row holds all of that user's actions.
    """
    rows = pl.concat([sequence_rows(path, layout, columns, encoding) for path in paths])
    if not rows.height:
        raise InputError(f"{', '.join(paths)}: holds no action")
    longest = rows.sort("length", descending=True, maintain_order=True).unique("user", keep="first", maintain_order=True)
    longest = rows.select(pl.col("user").unique(maintain_order=True)).join(longest, on="user", maintain_order="left")
    parts = rows.join(longest, on="user", suffix="_longest", maintain_order="left")
    strange = parts.filter(~pl.col("sequence_longest").str.contains(pl.col("sequence"), literal=True))
    if strange.height:
        raise InputError(
            f"{strange['path'][0]}, row {strange['row'][0]} after the header: no row of user {shown(strange['user'][0])} "
            "holds the whole sequence; use the file that has it (.test.inter)"
        )
    items = longest.select("user", "path", "row", item=pl.col("sequence").str.strip_chars(" ").str.split(" ")).explode("item")
    blocks = ActionBlocks()
    blocks.add(
        items.select("user", "item"),
        lambda row: f"{items['path'][row]}, row {items['row'][row]} after the header",
        range(items.height),
    )
    notes = {"sequence_rows": rows.height, "repeated_sequence_rows": rows.height - longest.height}
    return blocks.interactions(", ".join(paths), vars(columns), ready=True, notes=notes)


def sequence_rows(path: str, layout: Layout, columns: Columns, encoding: str) -> pl.DataFrame:
    """Columns user, sequence (its items between and around blanks), length, path and row of one file."""
    wanted = [named(path, list(layout.names), name) for name in (columns.user, f"{columns.item}_list", columns.item)]
    frames = [
        frame.rename(dict(zip(wanted, ("user", "history", "item")))).with_columns(row=pl.Series(numbers, dtype=pl.Int64))
        for frame, numbers in read_columns(path, layout, wanted, encoding)
    ]
    if not frames:
        return pl.DataFrame(
            schema={"user": pl.String, "sequence": pl.String, "length": pl.Int64, "path": pl.String, "row": pl.Int64}
        )
    rows = pl.concat(frames)
    where = lambda row: f"{path}, row {rows['row'][row]} after the header"
    for name in ("user", "item"):
        rows = rows.with_columns(clean_ids(rows[name], getattr(columns, name), where).alias(name))
    items = pl.concat_str(pl.col("history").fill_null("").str.strip_chars(" "), "item", separator=" ")
    rows = rows.with_columns(tokens=items.str.strip_chars(" ").str.replace_all(" +", " ").str.split(" "))
    refuse_tokens(path, rows.select(number="row", id="tokens").explode("id"), "row", " after the header")
    sequence = " " + pl.col("tokens").list.join(" ") + " "
    return rows.select("user", sequence=sequence, length=pl.col("tokens").list.len().cast(pl.Int64), path=pl.lit(path), row="row")
