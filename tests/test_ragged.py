import torch

from slmrec.ragged import places, places_from_end, row_ends, row_numbers


def test_rows_of_one_three_and_two_items():
    lengths = torch.tensor([1, 3, 2])
    assert row_ends(lengths).tolist() == [0, 3, 5]
    assert row_numbers(lengths).tolist() == [0, 1, 1, 1, 2, 2]
    assert places(lengths).tolist() == [0, 0, 1, 2, 0, 1]
    assert places_from_end(lengths).tolist() == [0, 2, 1, 0, 1, 0]


def test_a_row_without_items_takes_no_place():
    assert row_numbers(torch.tensor([2, 0, 1])).tolist() == [0, 0, 2]
    assert places(torch.tensor([2, 0, 1])).tolist() == [0, 1, 0]
