"""What meta files say about items: titles and attributes, from JSON or from tables."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from slmrec.data.amazon import refuse_other_json, sample_records
from slmrec.data.attributes import ItemAttributes, number_attributes
from slmrec.data.columns import META_FLAG, META_KNOWN, NONE, guess, listed, refuse_twice
from slmrec.data.compressed import read_head
from slmrec.data.json_values import Number, is_text, read_object
from slmrec.data.jsonlines import Field, JsonLines
from slmrec.data.meta_table import FoundItems, MetaColumns, parquet_meta, table_meta
from slmrec.errors import InputError

MARKUP = "</"  # behind which the 2018 release has texts of the product page among the categories
SCRIPT = "getTime"  # in what the 2018 release has for a title where the page's script was taken for it
CATEGORIES = ("category", "categories", "genres")  # lists of names, or of lists of names
SCHEMA: dict[str, Any] = {"item": pl.String, "title": pl.String, "attributes": pl.List(pl.String)}


@dataclass
class Meta:
    """What is known about items.

    Attributes:
        titles: pl.String [N], "" where there is none.
        attributes: None where no item has any.
        matched: how many of the items the file knows.
        said: one line about it, for the terminal.
    """

    titles: pl.Series
    attributes: ItemAttributes | None
    matched: int
    said: str = ""


def no_meta(items: pl.Series) -> Meta:
    return Meta(pl.Series("title", [""] * len(items), dtype=pl.String), None, 0)


def read_meta(path: str, items: pl.Series, columns: MetaColumns, max_malformed: float, encoding: str = "utf-8") -> Meta:
    """What a file says about `items` (source ids in the order of their numbers).

    What the file holds says what it is: JSON lines (Amazon's meta files), one JSON object {item: {...}} (LC-Rec), parquet, or a
    table, which may be a RecBole atomic file.

    Attributes are the categories and the brand of JSON, and the cell of the category column of a table. There are none from
    atomic files: they join the names of an item's categories by blanks, which names have inside as well, so nothing tells where
    one ends.
    """
    found = parquet_meta(path, columns)
    if found is None:
        head = read_head(path, encoding).lstrip()
        if head.startswith((b"{", b"[")):
            found = json_meta(path, head, items, columns, max_malformed, encoding)
        else:
            found = table_meta(path, items, columns, encoding)
    return known_items(found, items, path)


def known_items(found: FoundItems, items: pl.Series, path: str) -> Meta:
    """What was found about `items` among all that a file has."""
    frame = found.frame.filter(pl.col("item").is_in(items.implode()))
    titles = first_known(frame.filter(pl.col("title") != ""), items, "title").fill_null("")
    attributes = first_known(frame.filter(pl.col("attributes").list.len() > 0), items, "attributes")
    matched = frame["item"].n_unique()
    titles = tidy(titles)
    titled = int((titles != "").sum())
    said = f"{Path(path).name}: {found.names}; {matched:,} of {len(items):,} items"
    said += f", {titled:,} with a title" if titled < matched else ""
    return Meta(titles, number_attributes(name_pairs(attributes), len(items)), matched, said)


def first_known(frame: pl.DataFrame, items: pl.Series, name: str) -> pl.Series:
    """The value of a column in the first row of each item, null for an item without a row."""
    rows = frame.select("item", name).unique("item", keep="first", maintain_order=True)
    return items.to_frame("item").join(rows, on="item", how="left", maintain_order="left")[name]


def name_pairs(attributes: pl.Series) -> pl.DataFrame:
    """(item from 0, name) pairs from each item's names, pl.List(pl.String) [N], in that order and tidy."""
    pairs = attributes.to_frame("name").with_row_index("item").explode("name").drop_nulls()
    names = pairs["name"].unique()  # far fewer than pairs
    pairs = pairs.join(pl.DataFrame({"name": names, "tidy": tidy(names)}), on="name", how="left", maintain_order="left")
    return pairs.select("item", name="tidy").filter(pl.col("name") != "")


def tidy(texts: pl.Series) -> pl.Series:
    """HTML entities resolved, runs of blanks made one, NUL characters gone, and nothing left of a page's script."""
    tidied = ["" if SCRIPT in text else " ".join(html.unescape(text).replace("\x00", " ").split()) for text in texts]
    return pl.Series(texts.name, tidied, pl.String)


# -- JSON ---------------------------------------------------------------------------------------------------------------------


def json_meta(path: str, head: bytes, items: pl.Series, columns: MetaColumns, max_malformed: float, encoding: str) -> FoundItems:
    """Columns item, title and attributes of JSON lines, or of one object of objects."""
    records, literals = sample_records(path, encoding)
    if is_one_object(head, records):
        return object_meta(path, columns, encoding)
    refuse_other_json(path, head)
    names = list(dict.fromkeys(name for record in records for name in record))
    item = columns.item or guess(names, META_KNOWN["item"]) or ("asin" if not names else None)
    if item is None:
        raise InputError(f"{path}: no field is called like an item (its fields: {listed(names)}); --meta_item_column names it")
    texts = text_fields(names, columns)
    refuse_twice(
        {"item": item, "title": texts["title"]} | ({"category": columns.category} if columns.category else {}), META_FLAG
    )
    fields = {"item": Field(item, "id")} | {role: Field(name, "any") for role, name in texts.items()}
    lines, wanted, rows, categories = JsonLines(path, fields, encoding, literals), set(items), [], False
    for block, _ in lines:
        for row in block:
            row.item = str(row.item).strip()
            if row.item in wanted:
                rows.append((row.item, *title_and_names({name: getattr(row, name) for name in fields})))
                categories = categories or bool(category_names(row.names0))
    lines.report_malformed(max_malformed)
    if not lines.rows:
        raise InputError(f"{path}: holds no item")
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    require_named_fields(path, columns, frame, categories)
    return FoundItems(frame, f"item = {item}, title = {fields['title'].name}")


def require_named_fields(path: str, columns: MetaColumns, frame: pl.DataFrame, categories: bool) -> None:
    """Raises InputError for a field that a flag names and that gave no item anything (`categories`: whether their list did)."""
    empty = {"title": (frame["title"].fill_null("") == "").all(), "category": not categories}
    for role, what in (("title", "text"), ("category", "list of names")):
        name = getattr(columns, role)
        if name not in (None, NONE) and frame.height and empty[role]:
            raise InputError(f"{path}: --meta_{role}_column {name}: no {what} stands there")


def text_fields(names: list[str], columns: MetaColumns) -> dict[str, str]:
    """The fields with title, brand and categories, by what they are called here (categories: names0, names1, ...).

    What a flag names is nothing else as well.
    """
    categories = [columns.category] if columns.category else CATEGORIES
    guessed = {"title": guess(names, META_KNOWN["title"]) or "title", "brand": guess(names, META_KNOWN["brand"]) or "brand"}
    guessed |= {f"names{number}": name for number, name in enumerate(categories)}
    flagged = {role: name for role, name in (("title", columns.title), ("names0", columns.category)) if name}
    taken = flagged.values()
    return {role: flagged.get(role, name) for role, name in guessed.items() if role in ("title", *flagged) or name not in taken}


def is_one_object(head: bytes, records: list[dict]) -> bool:
    """Whether a file is one object of objects, {item: {title, ...}}, on one line or several."""
    whole = len(records) == 1 and records[0] and all(isinstance(value, dict) for value in records[0].values())
    return head.split(b"\n", 1)[0].strip() == b"{" or bool(whole)


def object_meta(path: str, columns: MetaColumns, encoding: str) -> FoundItems:
    """LC-Rec's item file."""
    content = read_object(path, encoding)
    if not all(isinstance(value, dict) for value in content.values()):
        raise InputError(f"{path}: one JSON object, whose values are not the items' {{title, ...}}")
    fields = text_fields(list(dict.fromkeys(name for value in content.values() for name in value)), columns)
    rows = [
        (key.strip(), *title_and_names({role: value.get(name) for role, name in fields.items()}))
        for key, value in content.items()
    ]
    frame = pl.DataFrame([row for row in rows if is_text(row[0])], schema=SCHEMA, orient="row")
    categories = any(category_names(value.get(fields["names0"])) for value in content.values())
    require_named_fields(path, columns, frame, categories)
    return FoundItems(frame, f"one JSON object by item, title = {fields['title']}")


def title_and_names(values: dict) -> tuple[str | None, list[str]]:
    """The title and the attributes of an item with title, brand and names0, names1, ..."""
    names = [name for role, value in values.items() if role.startswith("names") for name in category_names(value)]
    brand = as_text(values.get("brand"))
    return as_text(values["title"]), names + ([brand] if brand else [])


def as_text(value: object) -> str | None:
    """A text or a number as text, None for anything else; where an escape left half a surrogate pair is a replacement mark."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    if type(value) is Number and not value.lstrip("-").isdecimal():
        value = float(value)
    text = "0" if value == "-0" and type(value) is Number else str(value)
    return text if is_text(text) else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def category_names(value: object) -> list[str]:
    """The names on the path `category` (release of 2018) or on each of the paths `categories` (2014).

    As in the code of Zhou et al. (S3-Rec), the root of a path is left out, which is the data set's own name, and a brand that is
    called as a category is the same attribute. What is no list counts as missing.
    """
    if not isinstance(value, list):
        return []
    paths = [path for path in value if isinstance(path, list)] or [value]
    return [name for path in paths for name in below_root(path)]


def below_root(path: list) -> list[str]:
    """The names of a path but the first, up to the first that is markup."""
    names = [as_text(value) or "" for value in path]
    end = next((number for number, name in enumerate(names) if MARKUP in name), len(names))
    return [name for name in names[1:end] if name]
