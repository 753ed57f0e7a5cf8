"""A processed data set in memory, and its leave-one-out views (paper, Section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from slmrec.artifacts import read_arrays, read_json, read_manifest
from slmrec.data.attributes import ItemAttributes, load_attributes
from slmrec.errors import InputError
from slmrec.ragged import indices

PAD = 0
SPLIT_OFFSET = {"train": 3, "valid": 2, "test": 1}  # how far from the end of a sequence the target of a split stands


@dataclass
class SequenceDataset:
    """Each user's items in order, back to back in one array.

    Attributes:
        items: int32 [E], item ids 1..num_items; user u owns items[offsets[u]:offsets[u + 1]].
        offsets: int64 [U + 1].
        num_items: N; id 0 is PAD and never occurs in `items`.
        timestamps: int64 [E] in Unix seconds, or None where the source has no times.
        item_map: sha256 over the source ids in the order of their ids; two data sets with the same digest number items alike.
        stats: the content of stats.json.
        attributes: of the items, or None where the source has none.
        known: int64 [U], how many of a user's actions the data set held before its last update; None without one.
    """

    items: np.ndarray
    offsets: np.ndarray
    num_items: int
    timestamps: np.ndarray | None = None
    item_map: str = ""
    stats: dict = field(default_factory=dict)
    attributes: ItemAttributes | None = None
    known: np.ndarray | None = None

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Actions per user, int64 [U]."""
        return np.diff(self.offsets)

    def sequence(self, user: int) -> np.ndarray:
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def sequences_until(self, users: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The items of users [B] from their first up to, not including, index `ends` [B] into `items`.

        Returns them back to back, int32 [T], and how many each user has, int64 [B].
        """
        lengths = ends - self.offsets[users]
        return self.items[indices(self.offsets[users], lengths)], lengths

    def target_positions(self, split: str) -> np.ndarray:
        """Index into `items` of each user's target, int64 [U].

        test: the last action; valid: the last but one; train: the one before (the single training target of `--targets last`;
        everything before and up to it is the training part).
        """
        return self.offsets[1:] - SPLIT_OFFSET[split]


def load_dataset(directory: str | Path) -> SequenceDataset:
    """Open the output directory of the data stage, whose arrays are mapped from their file.

    Raises InputError when it is not one, or damaged.
    """
    directory = Path(directory)
    manifest = read_manifest(directory, "data")
    stats = read_json(directory / "stats.json")
    arrays = read_arrays(directory / "sequences.npz", "items", "offsets", mapped=True)
    if not isinstance(stats, dict) or "items" not in stats or "item_map" not in manifest:
        raise InputError(f"{directory}: its stats.json or manifest.json is not the data stage's")
    items, offsets, timestamps = arrays["items"], arrays["offsets"], arrays.get("timestamps")
    fits = items.ndim == offsets.ndim == 1 and len(offsets) > 1 and offsets[0] == 0 and offsets[-1] == len(items)
    if not fits or items.min() < 1 or items.max() > stats["items"] or (timestamps is not None and len(timestamps) != len(items)):
        raise InputError(f"{directory / 'sequences.npz'}: damaged (its arrays do not fit together)")
    sequences = items, offsets, stats["items"], timestamps
    return SequenceDataset(*sequences, manifest["item_map"], stats, load_attributes(directory), arrays.get("known"))
