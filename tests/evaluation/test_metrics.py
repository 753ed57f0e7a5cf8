import math

import numpy as np
import pytest
import torch
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalNormalizedDCG

from slmrec.evaluation.metrics import hit_rate, ndcg, reciprocal_rank, summarise

RANKS = np.array([1, 2, 5, 6, 1000], dtype=np.int32)


def test_per_user_values_by_hand():
    assert hit_rate(RANKS, 5).tolist() == [1, 1, 1, 0, 0]
    assert ndcg(RANKS, 5) == pytest.approx([1, 1 / math.log2(3), 1 / math.log2(6), 0, 0])
    assert reciprocal_rank(RANKS) == pytest.approx([1, 1 / 2, 1 / 5, 1 / 6, 1 / 1000])


def test_summary_by_hand():
    summary = summarise(RANKS)
    assert summary == {
        "HR@1": pytest.approx(0.2),
        "HR@5": pytest.approx(0.6),
        "HR@10": pytest.approx(0.8),
        "NDCG@5": pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(6)) / 5),
        "NDCG@10": pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(6) + 1 / math.log2(7)) / 5),
        "MRR": pytest.approx((1 + 1 / 2 + 1 / 5 + 1 / 6 + 1 / 1000) / 5),
        "users": 5,
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_torchmetrics(seed):
    generator = torch.Generator().manual_seed(seed)
    users, items = 40, 60
    scores = torch.stack([torch.randperm(items, generator=generator) for _ in range(users)]).float() / items  # no ties
    scores += (torch.arange(items) == 0) * 0.35  # item 0 is the target of every user, and often near the top
    scores += torch.arange(items) * 1e-4
    ranks = 1 + (scores[:, 1:] >= scores[:, :1]).sum(1).numpy()
    relevant = (torch.arange(items) == 0).expand(users, items)
    rows = torch.arange(users).unsqueeze(1).expand(users, items)

    def theirs(metric) -> float:
        return float(metric(scores.flatten(), relevant.flatten(), indexes=rows.flatten()))

    ours = summarise(ranks)
    assert 0 < ours["HR@5"] < ours["HR@10"] < 1  # the case tells the cut-offs apart
    for k in (1, 5, 10):
        assert ours[f"HR@{k}"] == pytest.approx(theirs(RetrievalHitRate(top_k=k)), abs=1e-6)
    for k in (5, 10):
        assert ours[f"NDCG@{k}"] == pytest.approx(theirs(RetrievalNormalizedDCG(top_k=k)), abs=1e-6)
    assert ours["MRR"] == pytest.approx(theirs(RetrievalMRR()), abs=1e-6)
