"""The k best items equal the first k of a full stable sort, whatever the size of the blocks."""

import numpy as np
import pytest
import torch

from slmrec.topk import best_items


def by_full_sort(scores, k, excluded=None):
    """Plain definition: mask, sort every row stably, take k; what is masked is filled with PAD."""
    scores = scores.clone()
    scores[:, 0] = -np.inf
    if excluded is not None:
        scores[excluded] = -np.inf
    values, items = scores.sort(dim=1, descending=True, stable=True)
    values, items = values[:, :k], items[:, :k]
    return values, torch.where(values == -np.inf, 0, items)


def columns(scores):
    return lambda start, stop: scores[:, start:stop]


def test_by_hand():
    scores = torch.tensor([[9.0, 1.0, 3.0, 3.0, 2.0], [9.0, 0.0, 0.0, 0.0, 0.0]])
    values, items = best_items(columns(scores), 2, 4, 3)
    assert items.tolist() == [[2, 3, 4], [1, 2, 3]] and values.tolist() == [[3, 3, 2], [0, 0, 0]]
    excluded = torch.tensor([0, 0, 0]), torch.tensor([2, 3, 4])
    values, items = best_items(columns(scores), 2, 4, 3, excluded=excluded)
    assert items.tolist() == [[1, 0, 0], [1, 2, 3]] and values[0].tolist() == [1, -np.inf, -np.inf]


@pytest.mark.parametrize("block", [1, 40, 10**6])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("k", [1, 7, 300])
def test_equals_a_full_stable_sort(block, ties, k):
    torch.manual_seed(k)
    scores = torch.randint(0, 5, (6, 201)).float() if ties else torch.randn(6, 201)
    excluded = torch.randint(0, 6, (90,)), torch.randint(1, 201, (90,))
    for options in ({}, {"excluded": excluded}):
        values, items = best_items(columns(scores), 6, 200, k, block_floats=block, **options)
        expected_values, expected = by_full_sort(scores, k, options.get("excluded"))
        width = expected.shape[1]
        assert torch.equal(items[:, :width], expected) and torch.equal(values[:, :width], expected_values)
        assert values.shape == items.shape == (6, k) and (items[:, width:] == 0).all()


def test_a_score_that_is_not_a_number_is_an_error():
    with pytest.raises(ValueError, match="row 1"):
        best_items(columns(torch.tensor([[0.0, 1.0], [0.0, float("nan")]])), 2, 1, 1)


def test_memory_is_bounded_by_the_block():
    widest = []

    def scores(start, stop):
        widest.append(stop - start)
        return torch.zeros(10, stop - start)

    best_items(scores, 10, 5000, 3, block_floats=2000)
    assert max(widest) == 200 and sum(widest) == 5000


def test_what_is_not_a_number_is_found_where_it_is_excluded_too():
    scores, excluded = torch.tensor([[0.0, 1.0], [0.0, float("nan")]]), (torch.tensor([1]), torch.tensor([1]))
    with pytest.raises(ValueError, match="row 1"):
        best_items(columns(scores), 2, 1, 1, excluded=excluded)


def test_the_scores_of_the_caller_are_left_alone():
    scores = torch.randn(2, 6)
    before = scores.clone()
    best_items(columns(scores), 2, 5, 2, excluded=(torch.tensor([0]), torch.tensor([3])))
    assert torch.equal(scores, before)
