"""Two references that count and train nothing: what is bought most, and what is bought next most often.

popularity: score(j) = actions on j in the training part.
markov: score(j | last item i) = times that j came right after i in the training part, a first-order Markov chain. Equal counts,
    among them the zeros of an item i that nothing followed, are ordered by popularity (the back-off): to each count is added
    popularity(j) / (1 + highest popularity), which is below 1.

The training part is that of the users who give a training row: at validation and test the last item may be one that it never
holds, and at test it is the validation item. Only the last item of a history is read.
Scores are float32, so orders of popularity may merge into ties where counts and popularities together need more than 24 bits
(a count of 1,000 and a popularity of 10,000 do not).

Shapes: B rows, N items, M different pairs of items in a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np
import torch

from slmrec.encoders.encoder import Encoder
from slmrec.errors import InputError
from slmrec.ragged import places, row_ends, row_numbers

if TYPE_CHECKING:
    from slmrec.data.batches import SplitRows


class CountingModel(Encoder):
    """A user vector is the id of the last item, float32 [B, 1] (exact up to 2^24 items); `prepare` is the whole training."""

    max_length = 1
    popularity: torch.Tensor

    def __init__(self, num_items: int):
        super().__init__()
        self.register_buffer("popularity", torch.zeros(num_items + 1))  # [N + 1]

    def encode_positions(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["history"].unsqueeze(1).float()

    def item_matrix(self) -> NoReturn:
        """Raises InputError: there are no item vectors."""
        raise InputError(f"{type(self).__name__.lower()} only counts and has no item embeddings; choose another --model for them")

    def item_tables(self) -> NoReturn:
        """Raises InputError, likewise."""
        self.item_matrix()

    def score_all(self, users: torch.Tensor) -> torch.Tensor:
        return self.score_block(users, 0, len(self.popularity))

    def score(self, users: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        return self.score_all(users).gather(1, candidates)


class Popularity(CountingModel):
    """See the head of this file."""

    def prepare(self, rows: SplitRows) -> None:
        items, _ = training_parts(rows)
        self.popularity = count(items, len(self.popularity))

    def score_block(self, users: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        return self.popularity[start:stop].repeat(len(users), 1)


class Markov(CountingModel):
    """See the head of this file.

    Its state holds the pairs that occur, sorted by their first item: `offsets` int64 [N + 2], where the pairs of each first item
    begin and end, `following` int64 [M] and `times` float32 [M]. M is known from the data alone, so loading takes it from the
    file.
    """

    offsets: torch.Tensor
    following: torch.Tensor
    times: torch.Tensor

    def __init__(self, num_items: int):
        super().__init__(num_items)
        self.register_buffer("offsets", torch.zeros(num_items + 2, dtype=torch.int64))
        self.register_buffer("following", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("times", torch.zeros(0))

    def prepare(self, rows: SplitRows) -> None:
        size = len(self.popularity)
        items, lengths = training_parts(rows)
        self.popularity = count(items, size)
        inside = np.ones(len(items), dtype=bool)
        inside[row_ends(lengths)] = False  # nothing follows a user's last item
        pairs = items[:-1].astype(np.int64) * size + items[1:]
        pairs, times = np.unique(pairs[inside[:-1]], return_counts=True)
        self.offsets = torch.from_numpy(np.searchsorted(pairs, np.arange(size + 1) * size))
        self.following = torch.from_numpy(pairs % size)
        self.times = torch.from_numpy(times).float()

    def score_block(self, users: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        last = users.squeeze(1).long()
        first = self.offsets[last]  # [B] the first of the pairs that begin with the last item
        numbers = self.offsets[last + 1] - first
        row = row_numbers(numbers)
        pair = first[row] + places(numbers)
        scores = (self.popularity[start:stop] / (1 + self.popularity.max())).repeat(len(last), 1)
        inside = (self.following[pair] >= start) & (self.following[pair] < stop)
        scores[row[inside], self.following[pair[inside]] - start] += self.times[pair[inside]]
        return scores

    def _load_from_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str, *rest) -> None:
        """Makes room for as many pairs as the file has."""
        for name in ("following", "times"):
            if prefix + name in state_dict:
                setattr(self, name, getattr(self, name).new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def training_parts(rows: SplitRows) -> tuple[np.ndarray, np.ndarray]:
    """Every user's items up to the last training target, back to back, int32 [T], and how many each has, int64."""
    return rows.dataset.sequences_until(rows.users, rows.ends(rows.users) + 1)


def count(items: np.ndarray, size: int) -> torch.Tensor:
    """How often each id below `size` occurs, float32 [size]."""
    return torch.from_numpy(np.bincount(items, minlength=size)).float()
