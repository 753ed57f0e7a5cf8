"""How items are written: each as a few tokens out of a small alphabet of its own, kept as a table in the model's directory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from slmrec.data.dataset import SequenceDataset
from slmrec.errors import InputError
from slmrec.files import written_whole
from slmrec.openp5.indexing.collaborative import collaborative_ids
from slmrec.openp5.indexing.random import random_ids
from slmrec.openp5.indexing.sequential import sequential_ids

TABLE = "item_index.csv"
END = "end"  # the token after an id that another one goes on from
DIGITS = tuple("0123456789")
SCHEMA = {"id": pl.Int64, "tokens": pl.String}


@dataclass
class ItemIndex:
    """The ids of items 1..N, and the alphabet that they are written in.

    Attributes:
        ids: N tuples of symbols, all different; item n stands at n - 1.
    """

    ids: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """The alphabet, in a fixed order: END, the ten digits (users have numbers too), and what else ids are made of."""
        used = {symbol for one in self.ids for symbol in one}
        return (END, *DIGITS, *sorted(used - {*DIGITS}, key=lambda symbol: (symbol[0], int(symbol[1:] or 0))))

    @cached_property
    def places(self) -> dict[str, int]:
        """Symbol -> its place in the alphabet."""
        return {symbol: place for place, symbol in enumerate(self.symbols)}

    @cached_property
    def coded(self) -> list[list[int]]:
        """Every item's id as places in the alphabet, as it stands in a prompt; what item 0 (PAD) has is empty."""
        return [[], *([self.places[symbol] for symbol in one] for one in self.ids)]

    @cached_property
    def responses(self) -> list[list[int]]:
        """Every item's id as the model answers with it: END follows where another id goes on from it, so that no answer begins
        another one, and their probabilities can sum to one."""
        begun = {one[:end] for one in self.ids for end in range(1, len(one))}
        ended = [[], *([self.places[END]] if one in begun else [] for one in self.ids)]
        return [code + end for code, end in zip(self.coded, ended, strict=True)]

    def save(self, directory: Path) -> None:
        tokens = [" ".join(one) for one in self.ids]
        with written_whole(directory / TABLE) as path:
            pl.DataFrame({"tokens": tokens}).with_row_index("id", 1).write_csv(path)


def load_index(directory: str | Path) -> ItemIndex:
    """The table of a model's directory. Raises InputError when it is none."""
    path = Path(directory) / TABLE
    try:
        table = pl.read_csv(path, schema_overrides=SCHEMA).select(list(SCHEMA))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path}: no readable table of item ids ({str(error).splitlines()[0]})") from None
    ids = [tuple((tokens or "").split()) for tokens in table["tokens"].to_list()]
    numbered = np.array_equal(table["id"].to_numpy(), np.arange(1, len(table) + 1))
    if not numbered or len(set(ids)) < len(ids) or not all(ids):
        raise InputError(f"{path}: its rows are not items 1, 2, 3 ... with an id each and no two alike")
    return ItemIndex(ids)


def build_index(dataset: SequenceDataset, indexing: str, seed: int, clusters: int, largest: int) -> ItemIndex:
    """Write the items of a data set by one of the ways in slmrec/openp5/indexing, from the users' training parts alone."""
    items, lengths = training_parts(dataset)
    if indexing == "random":
        return ItemIndex(random_ids(dataset.num_items, seed))
    if indexing == "sequential":
        return ItemIndex(sequential_ids(items, dataset.num_items))
    return ItemIndex(collaborative_ids(items, lengths, dataset.num_items, clusters, largest, seed))


def training_parts(dataset: SequenceDataset) -> tuple[np.ndarray, np.ndarray]:
    """Every user's items but the last two (validation and test), back to back, int32 [T], and how many each has, int64 [U]."""
    ends = np.maximum(dataset.target_positions("train") + 1, dataset.offsets[:-1])
    return dataset.sequences_until(np.arange(dataset.num_users), ends)
