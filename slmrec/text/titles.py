"""The words of each item, as the data stage wrote them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from slmrec.artifacts import read_json, read_manifest
from slmrec.data.attributes import load_attributes


def share_with_title(data: str | Path) -> float:
    """Share of the items of a data stage that have a title."""
    read_manifest(data, "data")
    stats = read_json(Path(data) / "stats.json")
    return stats.get("items_with_title", 0) / max(stats["items"], 1)


def item_texts(data: str | Path, with_attributes: bool) -> list[str]:
    """The text of items 1..N, "" where nothing is known: the title, then with `with_attributes` categories and brand after it.

    Args:
        data: directory of the data stage.
    """
    read_manifest(data, "data")
    texts = pl.read_csv(Path(data) / "items.csv", infer_schema=False)["title"].fill_null("").to_list()
    attributes = load_attributes(Path(data)) if with_attributes else None
    if attributes is None:
        return texts
    return [". ".join([title, *attributes.of(item)] if title else attributes.of(item)) for item, title in enumerate(texts, 1)]
