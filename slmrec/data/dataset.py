"""A processed data set in memory, and its leave-one-out views (paper, Section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from slmrec.artifacts import read_json, read_manifest
from slmrec.data.attributes import ItemAttributes, load_attributes
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
    """

    items: np.ndarray
    offsets: np.ndarray
    num_items: int
    timestamps: np.ndarray | None = None
    item_map: str = ""
    stats: dict = field(default_factory=dict)
    attributes: ItemAttributes | None = None

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
    """Open the output directory of the data stage. Raises InputError when it is not one."""
    directory = Path(directory)
    manifest = read_manifest(directory, "data")
    stats = read_json(directory / "stats.json")
    with np.load(directory / "sequences.npz", allow_pickle=False) as arrays:
        timestamps = arrays.get("timestamps")
        sequences = arrays["items"], arrays["offsets"], stats["items"], timestamps
    return SequenceDataset(*sequences, manifest["item_map"], stats, load_attributes(directory))
