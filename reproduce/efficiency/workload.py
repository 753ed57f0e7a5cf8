"""The users whose histories a benchmark reads: a sample of a processed data set, or invented ones of a given mean length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from reproduce.efficiency.arguments import BenchmarkArguments
from slmrec.data.batches import Batch, SplitRows
from slmrec.data.dataset import SequenceDataset, load_dataset
from slmrec.errors import InputError

FEWEST_ACTIONS = 5  # of a user in a 5-core
BATCHES = 4  # different batches that the repeats go through


@dataclass
class Workload:
    """Attributes:
    dataset: the users.
    label: where their lengths come from, for every reader of a number.
    """

    dataset: SequenceDataset
    label: str

    def rows(self, split: str, max_length: int) -> SplitRows:
        return SplitRows(self.dataset, split, max_length)

    def batches(self, split: str, max_length: int, size: int, device: torch.device) -> list[Batch]:
        """Batches of `size` rows on `device`, as many as the users give, at most `BATCHES`."""
        rows = self.rows(split, max_length)
        if len(rows) < size:
            raise InputError(f"{self.label}: {len(rows)} {split} rows are less than a batch of {size}")
        starts = range(0, min(len(rows) - size + 1, BATCHES * size), size)
        return [{name: tensor.to(device) for name, tensor in rows.collate(np.arange(s, s + size)).items()} for s in starts]


def make_workload(arguments: BenchmarkArguments) -> Workload:
    """As many users as the batches need, drawn with --seed."""
    random = np.random.default_rng(arguments.seed)
    wanted = 2 * BATCHES * max(arguments.train_batch_size, arguments.infer_batch_size)  # not every user has a training row
    if arguments.data is None:
        lengths = draw_lengths(random, arguments.mean_length, wanted)
        label = f"invented: {FEWEST_ACTIONS} actions and a geometric rest, mean {arguments.mean_length:g}"
        return Workload(_invented(random, lengths, arguments.num_items), label)
    dataset = load_dataset(arguments.data)
    chosen = random.permutation(dataset.num_users)[:wanted]
    sequences = [dataset.sequence(user) for user in chosen]
    label = f"{arguments.data}: {len(chosen):,} of {dataset.num_users:,} users"
    return Workload(SequenceDataset(np.concatenate(sequences), _offsets([len(s) for s in sequences]), dataset.num_items), label)


def draw_lengths(random: np.random.Generator, mean: float, number: int) -> np.ndarray:
    """Actions per user, int64 [number]: 5 and a geometric rest, the shape that 5-core review data roughly has."""
    return FEWEST_ACTIONS + random.geometric(1 / (mean - FEWEST_ACTIONS + 1), number) - 1


def mean_history(mean: float, behind: int, max_length: int) -> float:
    """Expected history of a user with `draw_lengths` actions whose target stands `behind` actions from the end (1: test)."""
    least, stays = FEWEST_ACTIONS - behind, 1 - 1 / (mean - FEWEST_ACTIONS + 1)
    # E[min(least + G, max)] = least + sum over k = 1..max - least of P(G >= k), and P(G >= k) = stays^k
    return min(least, max_length) + sum(stays**k for k in range(1, max_length - least + 1))


def _invented(random: np.random.Generator, lengths: np.ndarray, num_items: int) -> SequenceDataset:
    items = random.integers(1, num_items + 1, lengths.sum()).astype(np.int32)
    return SequenceDataset(items, _offsets(lengths), num_items)


def _offsets(lengths: np.ndarray | list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
