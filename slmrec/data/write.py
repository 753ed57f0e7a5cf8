"""Numbers users and items, and saves a data set in the layout that slmrec.data.dataset reads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from slmrec.data.rows import NEVER, codes_of, count_codes, first_rows, group_order
from slmrec.errors import InputError

MIN_ACTIONS = 3  # one each for training, validation and test


@dataclass
class NumberedSequences:
    """Sequences back to back, and the source ids behind the numbers.

    Attributes:
        items: int32 [E], 1..N.
        offsets: int64 [U + 1].
        timestamps: int64 [E] in Unix seconds, or None.
        nanoseconds: int64 [E], what comes on top of them, or None where no time has a fraction.
        item_ids: pl.String [N], the source id of item n stands at n - 1.
        user_ids: pl.String [U].
        known: int64 [U], how many of a user's actions an update found there already; None where this is no update.
    """

    items: np.ndarray
    offsets: np.ndarray
    timestamps: np.ndarray | None
    nanoseconds: np.ndarray | None
    item_ids: pl.Series
    user_ids: pl.Series
    known: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def item_map(self) -> str:
        """sha256 over the source ids in the order of their numbers. No id begins with a tab: a line break inside of one shows."""
        return hashlib.sha256("\n".join(item.replace("\n", "\n\t") for item in self.item_ids).encode()).hexdigest()


def number_by_first_row(frame: pl.DataFrame, column: str, ids: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """Number the distinct values of a column, places in `ids`, from 0, in the order in which the input first has them.

    Returns the ids in the order of their numbers, and the number of each row's id, uint32 [E].
    """
    codes, rows = codes_of(frame[column]), frame["row"].to_numpy()
    first = first_rows(codes, rows)
    found = np.flatnonzero(first != NEVER)
    found = found[np.argsort(first[found])]  # codes, in the order of their numbers
    numbers = np.zeros(len(first), dtype=np.uint32)
    numbers[found] = np.arange(len(found), dtype=np.uint32)
    return ids.gather(found).alias(column), numbers[codes]


def number_sequences(frame: pl.DataFrame, ids: dict[str, pl.Series]) -> NumberedSequences:
    """Group a filtered frame (columns user, item, row, perhaps time and nanosecond) by user, each in the order of the frame.

    `ids` are those of `Interactions`. The frame is used up: its columns go as soon as they are numbered, or in order.
    """
    refuse_short_users(frame, ids["user"])
    user_ids, users = number_by_first_row(frame, "user", ids["user"])
    frame.drop_in_place("user")
    item_ids, items = number_by_first_row(frame, "item", ids["item"])
    frame.drop_in_place("item")
    frame.drop_in_place("row")
    offsets = np.concatenate([[0], np.cumsum(count_codes(users))])
    order = group_order(users)
    del users
    items += 1
    return NumberedSequences(
        items=items.view(np.int32)[order],
        offsets=offsets,
        timestamps=frame.drop_in_place("time").to_numpy()[order] if "time" in frame.columns else None,
        nanoseconds=frame.drop_in_place("nanosecond").to_numpy()[order] if "nanosecond" in frame.columns else None,
        item_ids=item_ids,
        user_ids=user_ids,
    )


def refuse_short_users(frame: pl.DataFrame, ids: pl.Series) -> None:
    counts = count_codes(codes_of(frame["user"]))
    if (counts[counts > 0] >= MIN_ACTIONS).all():
        return
    short = np.flatnonzero((counts > 0) & (counts < MIN_ACTIONS))
    names = ids.gather(short)
    user, actions = names.min(), counts[short[names.arg_min()]]
    more = f" (and {len(short) - 1} more users have too few)" if len(short) > 1 else ""
    raise InputError(
        f"user {user!r} has {actions} actions{more}; {MIN_ACTIONS} are needed (training, validation, test): "
        f"--k_core {MIN_ACTIONS} or more drops such users"
    )


def tie_share(sequences: NumberedSequences) -> float | None:
    """Share of users whose last two actions have the same time; None where the source has no times."""
    if sequences.timestamps is None:
        return None
    last = sequences.offsets[1:] - 1
    same = sequences.timestamps[last] == sequences.timestamps[last - 1]
    if sequences.nanoseconds is not None:
        same &= sequences.nanoseconds[last] == sequences.nanoseconds[last - 1]
    return float(np.mean(same))


def describe(sequences: NumberedSequences) -> dict:
    """The counts that stats.json starts with."""
    users, items, actions = len(sequences.user_ids), len(sequences.item_ids), len(sequences.items)
    return {
        "users": users,
        "items": items,
        "interactions": actions,
        "density": actions / (users * items),
        "mean_length": float(sequences.lengths.mean()),
        "median_length": float(np.median(sequences.lengths)),
        "last_two_tie_share": tie_share(sequences),
    }


def save_sequences(sequences: NumberedSequences, titles: pl.Series, directory: Path) -> None:
    """Write sequences.npz, items.csv and users.csv."""
    arrays: dict[str, Any] = {"items": sequences.items, "offsets": sequences.offsets}
    if sequences.timestamps is not None:
        arrays["timestamps"] = sequences.timestamps
    if sequences.known is not None:
        arrays["known"] = sequences.known
    np.savez(directory / "sequences.npz", **arrays)
    items = pl.DataFrame({"source_id": sequences.item_ids, "title": titles}).with_row_index("id", 1)
    items.write_csv(directory / "items.csv")
    sequences.user_ids.to_frame("source_id").with_row_index("id").write_csv(directory / "users.csv")
