"""Rows of a split as torch batches without any padding: each encoder lays them out as it needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from slmrec import processes
from slmrec.data.dataset import SPLIT_OFFSET, SequenceDataset
from slmrec.ragged import indices

Batch = dict[str, torch.Tensor]
LISTED = 2**16  # row numbers that are Python numbers at a time


class SplitRows(torch.utils.data.Dataset):
    """The users of one split. An element is a row number; `collate` turns row numbers into a batch.

    A batch holds, for B rows with T history items in all:
        users: int64 [B].
        history: int64 [T], the rows' histories back to back, oldest item first, at most `max_length` of the latest items each.
        lengths: int64 [B].
        targets: int64 [B], the item after each history; or, with targets="all", int64 [T], the item after each position.

    Args:
        split: "train", "valid" or "test".
        targets: "last" (one target per user) or "all" (train only: every position of the training part is a target but its
            first, which has no history).
        chosen: int64, the users whose rows these are; default: all.

    Users whose training part has no history (exactly three actions) give no training row; `left_out` counts them.
    """

    def __init__(
        self, dataset: SequenceDataset, split: str, max_length: int, targets: str = "last", chosen: np.ndarray | None = None
    ):
        if targets == "all" and split != "train":
            raise ValueError("targets='all' is for the training split; evaluation has one target per user")
        self.dataset, self.split, self.targets, self.max_length = dataset, split, targets, max_length
        asked = np.arange(dataset.num_users) if chosen is None else chosen
        self.users = asked[self.ends(asked) > dataset.offsets[asked]]
        self.left_out = len(asked) - len(self.users)

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, row: int) -> int:
        return row

    @property
    def lengths(self) -> np.ndarray:
        """History length of each row, int64 [len(self)]."""
        start, end = self._spans(self.users)
        return end - start

    def ends(self, users: np.ndarray) -> np.ndarray:
        """Where in the data set's items each user's history ends, one past its last item, int64 [B]: there its target stands."""
        return self.dataset.offsets[users + 1] - SPLIT_OFFSET[self.split]

    def _spans(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the histories of users [B] begin and end, worked out as they are asked for: a row is nothing but its user."""
        end = self.ends(users)
        return np.maximum(self.dataset.offsets[users], end - self.max_length), end

    def num_targets(self, rows: np.ndarray) -> int:
        """How many targets the batch of these rows has."""
        users = self.users[rows]
        start, end = self._spans(users)
        return int((end - start).sum()) if self.targets == "all" else len(users)

    def collate(self, rows: list[int] | np.ndarray) -> Batch:
        users = self.users[np.asarray(rows, dtype=np.int64)]
        start, end = self._spans(users)
        lengths = end - start
        flat = indices(start, lengths)
        items = self.dataset.items
        targets = items[flat + 1] if self.targets == "all" else items[end]
        arrays = {"users": users, "history": items[flat], "lengths": lengths, "targets": targets}
        return {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}


class ShuffledRows(torch.utils.data.Sampler[int]):
    """Row numbers in an order that only (seed, epoch) determines: that of accelerate's SeedableRandomSampler, in a fifth of the
    memory, as that one makes a list of Python numbers."""

    def __init__(self, num_rows: int, seed: int):
        self.num_rows, self.seed, self.epoch = num_rows, seed, 0

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.num_rows, generator=torch.Generator().manual_seed(self.seed + self.epoch))
        for part in order.split(LISTED):
            yield from part.tolist()
        self.epoch += 1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def collate_share(rows: Any, chosen: list[int] | np.ndarray) -> Batch:
    """This process's part of a batch of all processes, with two numbers more, int64 [].

    own_targets: how many targets of this part count; all_targets: those of all parts. Where there are fewer rows than processes,
    a part without any is the first row, none of whose targets count: all processes take each step together.

    Args:
        rows: a data set of row numbers with `collate` and `num_targets`, as `SplitRows` is.
        chosen: the row numbers of all processes' batch.
    """
    chosen = np.asarray(chosen, dtype=np.int64)
    own = processes.share(chosen)
    batch = rows.collate(own if len(own) else chosen[:1])
    counted = len(batch["targets"]) if len(own) else 0
    numbers = {"own_targets": counted, "all_targets": counted if processes.number() == 1 else rows.num_targets(chosen)}
    return batch | {name: torch.tensor(value) for name, value in numbers.items()}
