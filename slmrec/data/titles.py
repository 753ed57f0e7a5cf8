"""Titles of items, and the tables that give a processed source its original ids back."""

from __future__ import annotations

import html
import io

import polars as pl

from slmrec.artifacts import InputError
from slmrec.data.compressed import read_bytes
from slmrec.data.delimited import column, read_table
from slmrec.data.jsonlines import JsonLines

META_SCHEMA = {"asin": pl.String, "title": pl.String}


def read_titles(path: str, items: pl.Series, item_column: str, title_column: str, max_malformed: float) -> pl.Series:
    """The title of each of `items` (source ids, in order), "" where the file has none.

    The name says what the file is: .json(.gz) Amazon's meta file; .csv(.gz) a table with the two named columns; anything else a
    RecBole atomic file with item_id and either title or text ("title. categories. brand.": the title is what stands before the
    first ". "). HTML entities are resolved and runs of blanks become one.
    """
    name = path.removesuffix(".gz")
    if name.endswith(".json"):
        pairs = read_json_meta(path, items, max_malformed)
    elif name.endswith(".csv"):
        pairs = table_pairs(path, read_table(path, ",", '"'), item_column, title_column)
    else:
        pairs = read_atomic_meta(path)
    pairs = pairs.filter(pl.col("title") != "").unique("item", keep="first", maintain_order=True)
    titles = items.to_frame("item").join(pairs, on="item", how="left", maintain_order="left")["title"].fill_null("")
    return pl.Series("title", [" ".join(html.unescape(title).split()) for title in titles], pl.String)


def read_json_meta(path: str, items: pl.Series, max_malformed: float) -> pl.DataFrame:
    wanted = items.implode()
    lines = JsonLines(path, META_SCHEMA, optional=("title",), python_literals=True)
    blocks = [block.filter(pl.col("asin").is_in(wanted), pl.col("title").is_not_null()) for block in lines]
    lines.report_malformed(max_malformed)
    if not lines.rows:
        raise InputError(f"{path}: holds no item")
    return pl.concat(blocks).rename({"asin": "item"})


def read_atomic_meta(path: str) -> pl.DataFrame:
    table = read_table(path, "\t", None)
    if "title" in table.columns:
        return table_pairs(path, table, "item_id", "title")
    pairs = table_pairs(path, table, "item_id", "text")
    return pairs.with_columns(pl.col("title").str.split(". ").list.first())


def table_pairs(path: str, table: pl.DataFrame, item_column: str, title_column: str) -> pl.DataFrame:
    items = column(table, item_column, path)
    if title_column not in table.columns:
        raise InputError(f"{path}: has no column {title_column!r}; its columns are {', '.join(table.columns)}")
    return pl.DataFrame({"item": items, "title": table[title_column].fill_null("")})


def read_id_table(path: str) -> pl.DataFrame:
    """A table without header, "source id TAB number" (UniSRec's item2index, LC-Rec's item2id): columns source_id, index."""
    schema = {"source_id": pl.String, "index": pl.String}
    try:
        return pl.read_csv(io.BytesIO(read_bytes(path)), has_header=False, separator="\t", quote_char=None, schema=schema)
    except pl.exceptions.PolarsError:
        raise InputError(f"{path}: its lines are not 'source id TAB number'") from None
