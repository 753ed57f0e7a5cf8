"""Both sides of the comparison give what full sorting gives."""

import pytest
import torch

from reproduce.efficiency import topk


def test_both_sides_equal_full_sorting():
    faiss = pytest.importorskip("faiss", reason="pip install faiss-cpu")
    torch.manual_seed(0)
    items, users, viewed = torch.randn(301, 16), torch.randn(5, 16), torch.randint(1, 301, (5, 9))
    index = faiss.IndexFlatIP(16)
    index.add(items[1:].numpy())
    plain = topk.by_sorting(items, users, viewed, 7)
    assert torch.equal(topk.blocked(items, users, viewed, 7), plain)
    assert torch.equal(topk.by_faiss(index, users, viewed, 7), plain)
    assert not (plain.unsqueeze(2) == viewed.unsqueeze(1)).any() and (plain > 0).all()
