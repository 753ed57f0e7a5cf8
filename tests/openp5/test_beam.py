"""Constrained beam search says items alone, with the scores of exact scoring; with as many beams as items it misses none."""

import pytest
import torch

from slmrec.data.batches import SplitRows
from slmrec.openp5.beam import beam_search


@pytest.mark.parametrize("how", [{}, {"tied": False, "softmax": "ids"}, {"indexing": "collaborative", "lora": True}])
def test_beams_of_the_whole_catalogue_are_the_exact_order(how, small_data, make_openp5):
    model = make_openp5(small_data, **how)
    batch = SplitRows(small_data, "test", 10).collate([4])
    with torch.no_grad():
        exact = model.encode(batch)[0, 1:]
    items, scores = beam_search(model, model.prompts(batch)[0], beams=25)
    assert sorted(items) == list(range(1, 26))
    assert scores == pytest.approx([float(exact[item - 1]) for item in items], abs=1e-4)
    assert scores == sorted(scores, reverse=True)
    assert items[:3] == (1 + exact.topk(3).indices).tolist()


def test_few_beams_give_so_many_items(small_data, make_openp5):
    model = make_openp5(small_data)
    batch = SplitRows(small_data, "test", 10).collate([0])
    items, scores = beam_search(model, model.prompts(batch)[0], beams=4)
    with torch.no_grad():
        exact = model.encode(batch)[0]
    assert len(set(items)) == 4 and scores == pytest.approx(exact[items].tolist(), abs=1e-4)
