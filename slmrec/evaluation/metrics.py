"""Ranking metrics of the paper (Section 5.1) from the rank of each user's one target; per user first, averaged last.

Ranks are int [U], 1 is the best, and 0 (UNDEFINED) stands for a target without anything to be ranked against, for which every
value is NaN. Values are fractions float64 [U], not percent.
"""

from __future__ import annotations

import numpy as np

METRICS = ("HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10", "MRR")  # of the paper's tables, in our order
UNDEFINED = 0


def hit_rate(ranks: np.ndarray, k: int) -> np.ndarray:
    """HR@k: 1 where the target is among the first k."""
    ranks = np.asarray(ranks)
    return np.where(ranks == UNDEFINED, np.nan, ranks <= k)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k with a single relevant item, whose ideal gain is 1: 1 / log2(rank + 1) among the first k, 0 below."""
    return hit_rate(ranks, k) / np.log2(np.maximum(ranks, 1) + 1.0)


def reciprocal_rank(ranks: np.ndarray) -> np.ndarray:
    """1 / rank, without a cut-off."""
    ranks = np.asarray(ranks)
    return np.where(ranks == UNDEFINED, np.nan, 1.0 / np.maximum(ranks, 1))


def summarise(ranks: np.ndarray) -> dict[str, float | int]:
    """Means over the users who have a rank, under the names of the paper's tables, and how many users these are.

    `users_without_rivals` counts the others, where there are any.
    """
    without = int((np.asarray(ranks) == UNDEFINED).sum())
    ranks = np.asarray(ranks)[np.asarray(ranks) > UNDEFINED]
    means = {f"HR@{k}": hit_rate(ranks, k).mean() for k in (1, 5, 10)}
    means |= {f"NDCG@{k}": ndcg(ranks, k).mean() for k in (5, 10)}
    means["MRR"] = reciprocal_rank(ranks).mean()
    counts = {"users": len(ranks)} | ({"users_without_rivals": without} if without else {})
    return {name: float(value) for name, value in means.items()} | counts
