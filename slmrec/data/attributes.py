"""Attributes of items, which are their categories and brands: what attributes there are, and which of them each item has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from slmrec.artifacts import read_arrays
from slmrec.errors import InputError

ARRAYS, NAMES = "attributes.npz", "attributes.csv"


@dataclass
class ItemAttributes:
    """Each item's attributes, back to back in one array.

    Attributes:
        ids: int32 [M], attributes 0..A - 1; item n owns ids[offsets[n - 1]:offsets[n]], which is empty where none is known.
        offsets: int64 [N + 1].
        names: [A].
    """

    ids: np.ndarray
    offsets: np.ndarray
    names: list[str]

    def of(self, item: int) -> list[str]:
        """The names of an item's attributes."""
        return [self.names[number] for number in self.ids[self.offsets[item - 1] : self.offsets[item]]]

    def counts(self) -> dict:
        """What stats.json says about them."""
        return {"items_with_attributes": int((np.diff(self.offsets) > 0).sum()), "attributes": len(self.names)}


def number_attributes(pairs: pl.DataFrame, num_items: int) -> ItemAttributes | None:
    """Number the names of (item from 0, name) pairs from 0 in the order in which they occur; None where there is no pair.

    The pairs stand in the order of the items. What an item is said to have twice counts once.
    """
    if not pairs.height:
        return None
    pairs = pairs.unique(maintain_order=True)
    names = pairs["name"].unique(maintain_order=True)
    ids = pairs.join(names.to_frame().with_row_index("id"), on="name", maintain_order="left")["id"]
    numbers = np.bincount(pairs["item"].to_numpy(), minlength=num_items)
    offsets = np.concatenate([[0], np.cumsum(numbers)]).astype(np.int64)
    return ItemAttributes(ids.to_numpy().astype(np.int32), offsets, names.to_list())


def save_attributes(attributes: ItemAttributes, directory: Path) -> None:
    """Write attributes.npz (ids, offsets) and attributes.csv (id, name)."""
    np.savez(directory / ARRAYS, ids=attributes.ids, offsets=attributes.offsets)
    pl.DataFrame({"name": attributes.names}).with_row_index("id").write_csv(directory / NAMES)


def load_attributes(directory: Path) -> ItemAttributes | None:
    """None where the data stage found none, or is older than they are. Raises InputError when a file is damaged."""
    if not (directory / ARRAYS).is_file():
        return None
    try:
        names = pl.read_csv(directory / NAMES, schema={"id": pl.UInt32, "name": pl.String})["name"]
    except (FileNotFoundError, pl.exceptions.PolarsError):
        raise InputError(f"{directory / NAMES}: missing or damaged") from None
    arrays = read_arrays(directory / ARRAYS, "ids", "offsets")
    return ItemAttributes(arrays["ids"], arrays["offsets"], names.to_list())
