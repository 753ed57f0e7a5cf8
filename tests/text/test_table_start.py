"""An item table from text vectors: the decomposition against a case worked out by hand, then what must hold of any."""

import math

import pytest
import torch

from slmrec.text.table_start import principal_directions, scaled_to, start_table

FIRST = torch.tensor([3.0, -1.0, -2.0]) / math.sqrt(14)  # two orthogonal directions of length 1 whose entries sum to 0
SECOND = torch.tensor([-1.0, 5.0, -4.0]) / math.sqrt(42)
# Three items: centred, their singular values are 4 and 1 and their left singular vectors the two directions.
ITEMS = torch.stack([4 * FIRST, SECOND], dim=1) + torch.tensor([7.0, -3.0])


@pytest.mark.parametrize("exponent, values", [(0.0, (1.0, 1.0)), (0.5, (2.0, 1.0)), (1.0, (4.0, 1.0))])
def test_three_items_by_hand(exponent, values):
    expected = torch.stack([values[0] * FIRST, values[1] * SECOND], dim=1)
    torch.testing.assert_close(principal_directions(ITEMS, exponent, 2), expected, rtol=1e-5, atol=1e-6)


def test_the_sign_is_that_of_the_entry_of_largest_size():
    torch.testing.assert_close(principal_directions(-ITEMS, 0.5, 2), principal_directions(ITEMS, 0.5, 2))


def test_the_cut_keeps_the_leading_directions():
    torch.testing.assert_close(principal_directions(ITEMS, 1.0, 1), 4 * FIRST.unsqueeze(1), rtol=1e-5, atol=1e-6)


def test_there_are_no_more_directions_than_the_texts_have():
    repeated = ITEMS.repeat(1, 3)  # six columns of rank two
    assert principal_directions(repeated, 0.5, 6).shape == (3, 2)


def test_the_deviation_by_hand():
    torch.testing.assert_close(scaled_to(torch.tensor([[3.0, 0.0], [0.0, 4.0]]), 0.5), torch.tensor([[0.6, 0.0], [0.0, 0.8]]))
    assert not scaled_to(torch.zeros(2, 2), 0.5).any()


def test_a_table_of_three_items_by_hand():
    """The square root of 4 and 1 gives columns of length 2 and 1: the mean square of the six entries is 5/6."""
    random = torch.arange(9.0).view(3, 3)
    table = start_table(ITEMS, random, 0.5, 0.06)
    factor = 0.06 / math.sqrt(5 / 6)
    expected = torch.stack([2 * factor * FIRST, factor * SECOND, random[:, 2]], dim=1)
    torch.testing.assert_close(table, expected, rtol=1e-5, atol=1e-6)
    cut = start_table(ITEMS, random, 0.5, 0.06, dimensions=1)
    torch.testing.assert_close(cut[:, 1:], random[:, 1:])
    assert cut[:, 0].square().mean().sqrt() == pytest.approx(0.06)


def test_items_of_the_same_text_start_alike_and_those_without_one_at_zero():
    vectors = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    vectors[4] = vectors[1]
    vectors[5] = vectors[:5].mean(0)  # what the text stage gives an item without a text
    table = start_table(vectors, torch.zeros(6, 4), 0.5, 0.06)
    torch.testing.assert_close(table[4], table[1])
    torch.testing.assert_close(table[5], torch.zeros(4), rtol=0, atol=1e-6)
