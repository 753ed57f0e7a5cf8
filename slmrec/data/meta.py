"""What meta files say about items, titles and attributes, and the tables that give a processed source its original ids back."""

from __future__ import annotations

import html
import io
from dataclasses import dataclass

import polars as pl

from slmrec.data.attributes import ItemAttributes, number_attributes
from slmrec.data.compressed import read_bytes
from slmrec.data.delimited import column, read_table
from slmrec.data.jsonlines import JsonLines
from slmrec.errors import InputError

PATH = pl.List(pl.String)  # names of categories from the root down
JSON_SCHEMA = {"asin": pl.String, "title": pl.String, "brand": pl.String, "category": PATH, "categories": pl.List(PATH)}
CATEGORY_COLUMN = "Category"  # of a .csv file, where it has one
MARKUP = "</"  # behind which the 2018 release has texts of the product page among the categories
NO_ATTRIBUTES = pl.lit(None, dtype=PATH).alias("attributes")


@dataclass
class MetaColumns:
    """The names of the columns of a .csv file; `category` None for "Category", which the file may lack."""

    item: str | None
    title: str | None
    category: str | None


def read_meta(path: str, items: pl.Series, columns: MetaColumns, max_malformed: float) -> tuple[pl.Series, ItemAttributes | None]:
    """The title of each of `items` (source ids, in order), "" where the file has none, and their attributes, if it has any.

    The name says what the file is: .json(.gz) Amazon's meta file; .csv(.gz) a table with the named columns; anything else a
    RecBole atomic file with item_id and either title or text ("title. categories. brand.": the title is what stands before the
    first ". ").

    Attributes are the categories and the brand of an Amazon meta file, and the cell of the category column of a table. There are
    none from atomic files: they join the names of an item's categories by blanks, which names have inside as well, so nothing
    tells where one ends.
    """
    name = path.removesuffix(".gz")
    if name.endswith(".json"):
        frame = read_json_meta(path, items, max_malformed)
    elif name.endswith(".csv"):
        frame = read_table_meta(path, columns)
    else:
        frame = read_atomic_meta(path)
    titles = first_known(frame.filter(pl.col("title") != ""), items, "title").fill_null("")
    attributes = first_known(frame.filter(pl.col("attributes").list.len() > 0), items, "attributes")
    return tidy(titles), number_attributes(name_pairs(attributes), len(items))


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
    """HTML entities resolved, runs of blanks made one."""
    return pl.Series(texts.name, [" ".join(html.unescape(text).split()) for text in texts], pl.String)


def read_json_meta(path: str, items: pl.Series, max_malformed: float) -> pl.DataFrame:
    wanted = items.implode()
    optional = tuple(JSON_SCHEMA.keys() - {"asin"})
    lines = JsonLines(path, JSON_SCHEMA, optional=optional, python_literals=True)
    blocks = [block.filter(pl.col("asin").is_in(wanted)) for block in lines]
    lines.report_malformed(max_malformed)
    if not lines.rows:
        raise InputError(f"{path}: holds no item")
    return pl.concat(blocks).select(pl.col("asin").alias("item"), "title", json_attributes())


def json_attributes() -> pl.Expr:
    """The names on the path `category` (release of 2018) or on each of the paths `categories` (2014), and the brand.

    As in the code of Zhou et al. (S3-Rec), the root of a path is left out, which is the data set's own name, and a brand that is
    called as a category is the same attribute.
    """
    name, nothing = pl.element(), pl.lit([], dtype=PATH)
    before_markup = name.str.contains(MARKUP, literal=True).cast(pl.Int8).cum_max() == 0
    path = pl.col("category").list.eval(name.filter(before_markup)).list.slice(1)
    paths = pl.col("categories").list.eval(name.list.slice(1).explode())
    found = pl.concat_list(path.fill_null(nothing), paths.fill_null(nothing), pl.col("brand").fill_null(""))
    return found.list.eval(name.filter(name != "")).alias("attributes")


def read_table_meta(path: str, columns: MetaColumns) -> pl.DataFrame:
    table = read_table(path, ",", '"')
    pairs = table_pairs(path, table, columns.item, columns.title)
    name = columns.category or CATEGORY_COLUMN
    if columns.category is None and name not in table.columns:
        return pairs.with_columns(NO_ATTRIBUTES)
    return pairs.with_columns(attributes=pl.concat_list(text_column(path, table, name)))


def read_atomic_meta(path: str) -> pl.DataFrame:
    table = read_table(path, "\t", None)
    if "title" in table.columns:
        return table_pairs(path, table, "item_id", "title").with_columns(NO_ATTRIBUTES)
    pairs = table_pairs(path, table, "item_id", "text")
    return pairs.with_columns(pl.col("title").str.split(". ").list.first(), NO_ATTRIBUTES)


def table_pairs(path: str, table: pl.DataFrame, item_column: str, title_column: str) -> pl.DataFrame:
    return pl.DataFrame({"item": column(table, item_column, path), "title": text_column(path, table, title_column)})


def text_column(path: str, table: pl.DataFrame, name: str) -> pl.Series:
    if name not in table.columns:
        raise InputError(f"{path}: has no column {name!r}; its columns are {', '.join(table.columns)}")
    return table[name].fill_null("")


def read_id_table(path: str) -> pl.DataFrame:
    """A table without header, "source id TAB number" (UniSRec's item2index, LC-Rec's item2id): columns source_id, index."""
    schema = {"source_id": pl.String, "index": pl.String}
    try:
        return pl.read_csv(io.BytesIO(read_bytes(path)), has_header=False, separator="\t", quote_char=None, schema=schema)
    except pl.exceptions.PolarsError:
        raise InputError(f"{path}: its lines are not 'source id TAB number'") from None
