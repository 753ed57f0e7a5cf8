"""New actions on top of a data set that is there: old users and items keep their numbers, new ones come after them.

A user's new actions stand behind the old ones. What the rules ask of users and items holds for new ones alone: whoever is known
stays, with everything that is known of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from slmrec.artifacts import read_json, read_manifest
from slmrec.data.arguments import DataArguments
from slmrec.data.attributes import ItemAttributes
from slmrec.data.dataset import SequenceDataset, load_dataset
from slmrec.data.filters import Rule, core, keep_first, paper_rules
from slmrec.data.interactions import Interactions
from slmrec.data.rows import codes_of
from slmrec.data.write import NumberedSequences, number_by_first_row, refuse_short_users
from slmrec.errors import InputError


@dataclass
class OldData:
    """The data set that is updated.

    Attributes:
        item_ids, user_ids, titles: of its items and users, in the order of their numbers.
    """

    directory: Path
    dataset: SequenceDataset
    item_ids: pl.Series
    user_ids: pl.Series
    titles: pl.Series

    def rules(self, source: Interactions, args: DataArguments) -> list[Rule]:
        """The paper's rules, those on repeats and on rare users and items minding what is known already."""
        assert args.k_core is not None  # `take_over_rules` has filled it in
        min_rating = args.min_rating if source.has_ratings else None
        *others, repeats, rare = paper_rules(source, args.duplicates, min_rating, args.k_core)
        text = f"new users and items with fewer than {args.k_core} new actions, to a fixed point"
        repeats = replace(repeats, text=f"{repeats.text}, known ones included", apply=partial(self.drop_repeats, source.ids))
        return [*others, repeats, replace(rare, text=text, apply=partial(self.new_core, args.k_core, source.ids))]

    def places(self, frame: pl.DataFrame, ids: dict[str, pl.Series]) -> tuple[np.ndarray, np.ndarray]:
        """Numbers from 0 of each row's user and item, int64 [E] each, -1 for one that is new; `ids`: see `Interactions`."""
        users, items = _places(ids["user"], self.user_ids), _places(ids["item"], self.item_ids)
        return users[codes_of(frame["user"])], items[codes_of(frame["item"])]

    def drop_repeats(self, ids: dict[str, pl.Series], frame: pl.DataFrame) -> pl.DataFrame:
        """Of each (user, item) pair the first action, unless the pair is in the old data."""
        users, items = self.places(frame, ids)
        width = len(self.item_ids) + 1
        known = _rows(self.dataset) * width + self.dataset.items
        repeated = (users >= 0) & (items >= 0) & np.isin(users * width + items + 1, known)
        return keep_first(frame.filter(~pl.Series(repeated)))

    def new_core(self, k: int, ids: dict[str, pl.Series], frame: pl.DataFrame) -> pl.DataFrame:
        """Drop new users and items with fewer than k actions until every one that is left has k."""
        users, items = self.places(frame, ids)
        return core(k, frame, {"user": users >= 0, "item": items >= 0})

    def followed_by(self, frame: pl.DataFrame, ids: dict[str, pl.Series]) -> NumberedSequences:
        """The old sequences with the actions of a filtered frame behind them, each user's in the order of the frame.

        Raises InputError for a new user with too few actions to be trained and tested on.
        """
        users, items = self.places(frame, ids)
        if (users < 0).any():
            refuse_short_users(frame.filter(pl.Series(users < 0)), ids["user"])
        user_ids, users = _with_new(frame, "user", ids["user"], self.user_ids, users)
        item_ids, items = _with_new(frame, "item", ids["item"], self.item_ids, items)
        old = self.dataset
        all_users = np.concatenate([_rows(old), users])
        order = np.argsort(all_users, kind="stable")  # the old actions stand before the new ones
        times = None
        if old.timestamps is not None and "time" in frame.columns:
            times = np.concatenate([old.timestamps, frame["time"].to_numpy()])[order]
        return NumberedSequences(
            items=np.concatenate([old.items, items + 1])[order].astype(np.int32),
            offsets=np.concatenate([[0], np.cumsum(np.bincount(all_users, minlength=len(user_ids)))]).astype(np.int64),
            timestamps=times,
            nanoseconds=None,
            item_ids=item_ids,
            user_ids=user_ids,
            known=np.pad(old.lengths, (0, len(user_ids) - old.num_users)),
        )

    def counts(self, frame: pl.DataFrame, ids: dict[str, pl.Series], sequences: NumberedSequences) -> dict:
        """For stats.json: what was known, what came, how many new actions are older than their user's last known one."""
        users, _ = self.places(frame, ids)
        late = 0
        if self.dataset.timestamps is not None and "time" in frame.columns:
            last = self.dataset.timestamps[self.dataset.offsets[1:] - 1]
            late = int((frame["time"].to_numpy()[users >= 0] < last[users[users >= 0]]).sum())
        return {
            "known_users": self.dataset.num_users,
            "known_items": self.dataset.num_items,
            "known_interactions": len(self.dataset.items),
            "users_with_new_actions": int((sequences.lengths > sequences.known).sum()),
            "late_actions": late,
        }

    def titles_over(self, new: pl.Series) -> pl.Series:
        """The titles of all items, "" where there is none: those of a new meta file, else the old ones."""
        old = pl.concat([self.titles, pl.Series([""] * (len(new) - len(self.titles)), dtype=pl.String)])
        return new.zip_with(new != "", old)

    def attributes_over(self, new: ItemAttributes | None, num_items: int) -> ItemAttributes | None:
        """Those of a new meta file, else the old ones; items that came since have none there."""
        old = self.dataset.attributes
        if new is not None or old is None:
            return new
        return ItemAttributes(old.ids, np.pad(old.offsets, (0, num_items + 1 - len(old.offsets)), mode="edge"), old.names)


def take_over_rules(args: DataArguments) -> None:
    """Give flags that are not given the values of the old data. Raises InputError for data whose rules cannot go on."""
    assert args.update_from is not None
    read_manifest(args.update_from, "data")
    old = read_json(Path(args.update_from) / "config.json")
    if args.protocol != "paper" or old["protocol"] != "paper":
        raise InputError("--update_from is for the rules of --protocol paper; the released code orders no actions by time")
    for name in ("duplicates", "k_core", "min_rating"):
        setattr(args, name, old[name] if getattr(args, name) is None else getattr(args, name))


def open_old(directory: str) -> OldData:
    """Raises InputError unless it is a directory of the data stage."""
    path = Path(directory)
    dataset = load_dataset(path)
    schema = {"source_id": pl.String, "title": pl.String}
    items = pl.read_csv(path / "items.csv", schema_overrides=schema)
    users = pl.read_csv(path / "users.csv", schema_overrides={"source_id": pl.String})
    return OldData(path, dataset, items["source_id"], users["source_id"], items["title"].fill_null(""))


def _rows(dataset: SequenceDataset) -> np.ndarray:
    """The user of each action, int64 [E]."""
    return np.repeat(np.arange(dataset.num_users), dataset.lengths)


def _places(ids: pl.Series, known: pl.Series) -> np.ndarray:
    """Of each id the place among the known ones, -1 for one that is new."""
    table = pl.DataFrame({"id": known, "place": np.arange(len(known))})
    return ids.alias("id").to_frame().join(table, on="id", how="left", maintain_order="left")["place"].fill_null(-1).to_numpy()


def _with_new(
    frame: pl.DataFrame, column: str, ids: pl.Series, known: pl.Series, places: np.ndarray
) -> tuple[pl.Series, np.ndarray]:
    """All ids, the new ones in the order in which the source first has them, and the place of each row's id among them."""
    new = places < 0
    if not new.any():
        return known, places
    found, numbers = number_by_first_row(frame.filter(pl.Series(new)), column, ids)
    places[new] = len(known) + numbers
    return pl.concat([known, found.alias(known.name)]), places
