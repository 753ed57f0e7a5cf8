"""Titles and categories from tables: with a header, without one (MovieLens), RecBole's atomic files, parquet."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from slmrec.data.columns import META_FLAG, META_KNOWN, NONE, guess, listed, named, refuse_twice
from slmrec.data.delimited import read_columns
from slmrec.data.frames import PARQUET, parquet_parts
from slmrec.data.layout import Layout, find_layout
from slmrec.errors import InputError
from slmrec.files import starts_with

GENRES = "genres"  # MovieLens' column, the one known that has several names in a cell, between bars
HEADLESS = {"item": "1", "title": "2"}  # MovieLens' movies.dat (genres third) and u.item (a date third)


@dataclass
class MetaColumns:
    """What the flags say about the names of the columns; None where they are silent."""

    item: str | None = None
    title: str | None = None
    category: str | None = None

    def __post_init__(self):
        """Raises InputError where what a meta file is for shall not be there, or one column is for two purposes."""
        for role in ("item", "title"):
            if getattr(self, role) == NONE:
                raise InputError(f"--meta_{role}_column none: without a column of {role}s a meta file says nothing")
        refuse_twice({role: name for role, name in vars(self).items() if name}, META_FLAG)


@dataclass
class FoundItems:
    """Items of a file: columns item, title (pl.String) and attributes (pl.List(pl.String)); and which fields they are from."""

    frame: pl.DataFrame
    names: str


def table_meta(path: str, items: pl.Series, columns: MetaColumns, encoding: str) -> FoundItems:
    """Items of a delimited table.

    An atomic file has item_id and either title or text ("title. categories. brand.": the title is what stands before the first
    ". "). A table is without header where its first rows begin with items of the data set.
    """
    layout = find_layout(path, encoding, atomic=True)
    atomic = layout.separator == "\t" and "item_id" in layout.names
    if layout.skip and not columns.item and guess(layout.names, META_KNOWN["item"]) is None:
        layout = without_header(path, layout, items, encoding)
    found = find_columns(path, layout, columns)
    if atomic and not columns.category:
        found.pop("category", None)
    frames = [frame for frame, _ in read_columns(path, layout, list(dict.fromkeys(found.values())), encoding)]
    if not frames:
        raise InputError(f"{path}: holds no item")
    several = not columns.category and (found.get("category") == GENRES or not layout.skip)
    frame = as_meta(pl.concat(frames), found, several)
    if atomic and found["title"] == "text":
        frame = frame.with_columns(pl.col("title").str.split(". ").list.first())
    return FoundItems(frame, told(found))


def told(found: dict[str, str]) -> str:
    return ", ".join(f"{role} = {name}" for role, name in found.items())


def find_columns(path: str, layout: Layout, columns: MetaColumns) -> dict[str, str]:
    """The columns by role: item, title and perhaps category."""
    names = list(layout.names)
    found = {role: flag or guess(names, META_KNOWN[role]) for role, flag in vars(columns).items()}
    if not layout.skip:
        genres = "3" if layout.separator == "::" and len(names) > 2 else None
        found = HEADLESS | {"category": genres} | {role: flag for role, flag in vars(columns).items() if flag}
    for role in ("item", "title"):
        if not found[role]:
            raise InputError(
                f"{path}: none of its columns is called like {'an item' if role == 'item' else 'a title'} "
                f"(its columns: {listed(names)}); --meta_{role}_column names it"
            )
    return {role: named(path, names, name) for role, name in found.items() if name and name != NONE}


def as_meta(table: pl.DataFrame, found: dict[str, str], several: bool) -> pl.DataFrame:
    """`several`: a cell has names between bars."""
    nothing = pl.lit(None, dtype=pl.List(pl.String))
    category = pl.col(found["category"]) if "category" in found else nothing
    if "category" in found and table.schema[found["category"]] != pl.List(pl.String):
        category = category.cast(pl.String)
        category = category.str.split("|") if several else pl.concat_list(category)
    return table.select(
        item=pl.col(found["item"]).cast(pl.String).str.strip_chars(),
        title=pl.col(found["title"]).cast(pl.String).fill_null(""),
        attributes=category.list.drop_nulls(),
    )


def without_header(path: str, layout: Layout, items: pl.Series, encoding: str) -> Layout:
    """The layout without a header of a table whose first rows begin with items of the data set; of another its own."""
    plain = find_layout(path, encoding, no_header=True, atomic=True)
    for frame, _ in read_columns(path, plain, [HEADLESS["item"]], encoding):
        first = frame[HEADLESS["item"]].head(1000).str.strip_chars()
        return plain if first.is_in(items.implode()).any() else layout
    return layout


def parquet_meta(path: str, columns: MetaColumns) -> FoundItems | None:
    """Items of a parquet file; None for another file."""
    if not starts_with(path, PARQUET):
        return None
    parts = list(parquet_parts(path))
    if not parts:
        raise InputError(f"{path}: holds no item")
    return typed_meta(path, pl.concat(parts), columns)


def typed_meta(path: str, table: pl.DataFrame, columns: MetaColumns) -> FoundItems:
    """Items of a table whose columns have types."""
    found = find_columns(path, Layout("|", tuple(table.columns), 1, False), columns)
    several = found.get("category") == GENRES and not columns.category
    return FoundItems(as_meta(table, found, several), told(found))
