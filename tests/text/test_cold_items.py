import numpy as np
import torch

from slmrec.text.cold_items import fill_from_text, untrained_items


def test_untrained_items_by_hand():
    assert untrained_items(np.array([1, 3, 3], dtype=np.int32), 4).tolist() == [False, False, True, False, True]


def test_an_untrained_item_gets_what_a_linear_table_says():
    """Where the table is a linear function of the text but for rounding, ridge regression finds it."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(41, 3, generator=generator)
    vectors[0] = 0
    table = vectors @ torch.randn(3, 2, generator=generator) + torch.tensor([0.5, -1.0])
    untrained = torch.zeros(41, dtype=torch.bool)
    untrained[[2, 40]] = True
    damaged = table.clone()
    damaged[untrained] = 9.0
    filled = fill_from_text(damaged, vectors, untrained)
    torch.testing.assert_close(filled, table, rtol=0, atol=0.02)
    assert torch.equal(filled[~untrained], table[~untrained]) and torch.equal(damaged[2], torch.full((2,), 9.0))


def test_nothing_changes_where_every_item_is_trained():
    table = torch.randn(5, 2)
    assert torch.equal(fill_from_text(table, torch.randn(5, 3), torch.zeros(5, dtype=torch.bool)), table)
