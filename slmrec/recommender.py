"""The contract that every model of this repository fulfils; evaluation and serving are written once, over it."""

from __future__ import annotations

import torch
from torch import nn

from slmrec.errors import InputError

# Up to this many times more items than candidates, one product with the whole catalogue is cheaper than gathering the
# candidates' vectors (memory traffic, not arithmetic, is what gathering costs).
DENSE_SCORE_FACTOR = 64


class Recommender(nn.Module):
    """Maps histories to user vectors that live in the space of the item vectors.

    Attributes:
        max_length: how many of a user's latest items the model reads.
    """

    max_length: int

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """User vectors float32 [B, d] for a batch of `slmrec.data.batches.SplitRows` (only its history is read)."""
        raise NotImplementedError

    def item_matrix(self) -> torch.Tensor:
        """Item vectors float32 [N + 1, d]; row 0 belongs to PAD."""
        raise NotImplementedError

    def score_all(self, users: torch.Tensor) -> torch.Tensor:
        """Dot products float32 [B, N + 1] of user vectors [B, d] with every item vector; column 0 belongs to PAD."""
        return users @ self.item_matrix().T

    def score_block(self, users: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Columns start..stop - 1 of `score_all`, float32 [B, stop - start], for catalogues too large to be scored at once."""
        return users @ self.item_matrix()[start:stop].T

    def score(self, users: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        """Dot products float32 [B, C] of user vectors [B, d] with the item vectors of candidates int64 [B, C]."""
        items = self.item_matrix()
        if _dense(len(items), candidates.shape[1]):
            return self.score_all(users).gather(1, candidates)
        return torch.bmm(items[candidates], users.unsqueeze(2)).squeeze(2)

    def answering(self, precision: str = "fp32") -> Recommender:
        """The same model for answering alone, faster where something can be kept; its weights must not change afterwards.

        Raises InputError for another precision than fp32 where the model has none.
        """
        if precision != "fp32":
            raise InputError(f"--precision {precision}: of all models E4SRec and SLMRec alone answer in it")
        return self

    def floats_per_row(self, num_candidates: int, num_scores: int) -> int:
        """How many floats `score` holds for a user at most, beside the candidates' vectors; N + 1 where it is a model's own."""
        gathers = type(self).score is Recommender.score and not _dense(num_scores, num_candidates)
        return num_candidates if gathers else num_scores


def _dense(num_scores: int, num_candidates: int) -> bool:
    return num_scores <= DENSE_SCORE_FACTOR * num_candidates
