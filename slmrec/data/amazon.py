"""Amazon reviews as JSON lines, 2014 and 2018 releases (jmcauley.ucsd.edu/data/amazon and .../amazon_v2)."""

from __future__ import annotations

import polars as pl

from slmrec.data.interactions import Interactions, whole_seconds
from slmrec.data.jsonlines import JsonLines
from slmrec.errors import InputError

SCHEMA = {"reviewerID": pl.String, "asin": pl.String, "overall": pl.Float64, "unixReviewTime": pl.Float64}


def read_amazon(path: str, max_malformed: float) -> Interactions:
    """Read a review file, .json or .json.gz.

    Users and items are held as categories (four bytes a row): a file of ten million reviews takes 20 bytes a row in memory.
    """
    lines = JsonLines(path, SCHEMA)
    compact = [
        pl.col("reviewerID").cast(pl.Categorical).alias("user"),
        pl.col("asin").cast(pl.Categorical).alias("item"),
        pl.col("overall").cast(pl.Float32).alias("rating"),
    ]
    blocks = [block.select(compact).with_columns(whole_seconds(path, block["unixReviewTime"])) for block in lines]
    lines.report_malformed(max_malformed)
    if not lines.rows:
        raise InputError(f"{path}: holds no review")
    return Interactions(pl.concat(blocks, rechunk=True), raw_rows=lines.rows + lines.malformed, malformed=lines.malformed)
