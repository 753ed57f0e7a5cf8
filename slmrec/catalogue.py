"""What the numbers 1..N of a model mean: source ids, titles and popularity, in the model's own directory.

catalogue.csv has a row an item in the order of its number: id, source_id, title (may be empty), popularity (actions on it in the
training parts). With it a model directory can be copied anywhere and still be used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from slmrec.artifacts import input_directory, read_manifest, stage_directory
from slmrec.data.dataset import load_dataset
from slmrec.errors import InputError

CATALOGUE = "catalogue.csv"
SCHEMA = {"id": pl.Int64, "source_id": pl.String, "title": pl.String, "popularity": pl.Int64}


@dataclass
class Catalogue:
    """The items of a model.

    Attributes:
        source_ids, titles: N strings each; item n stands at n - 1. An item without a title has "".
        popularity: int64 [N], actions in the training parts.
    """

    source_ids: list[str]
    titles: list[str]
    popularity: np.ndarray

    def __len__(self) -> int:
        return len(self.source_ids)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Source id -> item number, 1..N."""
        return {source_id: number for number, source_id in enumerate(self.source_ids, start=1)}

    def known(self, source_ids: list[str]) -> tuple[list[int], list[str]]:
        """The numbers of those that the catalogue has, in order, and the ids that it does not have."""
        known = [self.numbers[source_id] for source_id in source_ids if source_id in self.numbers]
        return known, [source_id for source_id in source_ids if source_id not in self.numbers]


def catalogue_of(data: str | Path) -> Catalogue:
    """The items of a data stage, counted over its users' training parts."""
    dataset = load_dataset(data)
    items = _read(Path(data) / "items.csv", {name: SCHEMA[name] for name in ("id", "source_id", "title")})
    ends = dataset.target_positions("train") + 1
    trained, _ = dataset.sequences_until(np.arange(dataset.num_users), np.maximum(ends, dataset.offsets[:-1]))
    popularity = np.bincount(trained, minlength=dataset.num_items + 1)[1:]
    return Catalogue(items["source_id"].to_list(), items["title"].fill_null("").to_list(), popularity)


def save_catalogue(data: str | Path, directory: Path) -> None:
    """Write the items of a data stage into a model's directory."""
    items = catalogue_of(data)
    columns = {"source_id": items.source_ids, "title": items.titles, "popularity": items.popularity}
    pl.DataFrame(columns).with_row_index("id", 1).write_csv(directory / CATALOGUE)


def load_catalogue(model: str | Path) -> Catalogue:
    """The items of a model; for a directory written before models had a catalogue, those of the data that it was trained on.

    Raises InputError when neither is there.
    """
    stage = stage_directory(model)
    if not (stage / CATALOGUE).is_file():
        if "data" not in read_manifest(stage)["inputs"] or not input_directory(stage, "data").is_dir():
            raise InputError(
                f"{stage}: no {CATALOGUE} in it and its data directory is gone; its item numbers have lost their ids"
            )
        return catalogue_of(input_directory(stage, "data"))
    items = _read(stage / CATALOGUE, SCHEMA)
    return Catalogue(items["source_id"].to_list(), items["title"].fill_null("").to_list(), items["popularity"].to_numpy())


def _read(path: Path, schema: dict) -> pl.DataFrame:
    try:
        items = pl.read_csv(path, schema_overrides=schema).select(list(schema))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path}: no readable table of items ({str(error).splitlines()[0]})") from None
    if not np.array_equal(items["id"].to_numpy(), np.arange(1, len(items) + 1)):
        raise InputError(f"{path}: its ids do not count 1, 2, 3 ... as item numbers do")
    return items
