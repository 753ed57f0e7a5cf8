"""Ranking metrics of the paper (Section 5.1) from the rank of each user's one target; per user first, averaged last.

Ranks are int [U], 1 is the best. Values are fractions float64 [U], not percent.
"""

from __future__ import annotations

import numpy as np

METRICS = ("HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10", "MRR")  # of the paper's tables, in our order


def hit_rate(ranks: np.ndarray, k: int) -> np.ndarray:
    """HR@k: 1 where the target is among the first k."""
    return (np.asarray(ranks) <= k).astype(np.float64)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k with a single relevant item, whose ideal gain is 1: 1 / log2(rank + 1) among the first k, 0 below."""
    return hit_rate(ranks, k) / np.log2(np.asarray(ranks) + 1.0)


def reciprocal_rank(ranks: np.ndarray) -> np.ndarray:
    """1 / rank, without a cut-off."""
    return 1.0 / np.asarray(ranks)


def summarise(ranks: np.ndarray) -> dict[str, float | int]:
    """Means over the users, under the names of the paper's tables, and how many users they are means of."""
    means = {f"HR@{k}": hit_rate(ranks, k).mean() for k in (1, 5, 10)}
    means |= {f"NDCG@{k}": ndcg(ranks, k).mean() for k in (5, 10)}
    means["MRR"] = reciprocal_rank(ranks).mean()
    return {name: float(value) for name, value in means.items()} | {"users": len(ranks)}
