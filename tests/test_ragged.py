import numpy as np
import pytest
import torch

from slmrec.ragged import indices, places, places_from_end, row_ends, row_numbers, row_starts, spread


@pytest.fixture(params=[np.array, torch.tensor], ids=["numpy", "torch"])
def array(request):
    """Makes an integer array of the one kind or the other from a list."""
    return lambda values: request.param(values, dtype=np.int64 if request.param is np.array else torch.int64)


def test_rows_of_one_three_and_two_items(array):
    lengths = array([1, 3, 2])
    assert row_starts(lengths).tolist() == [0, 1, 4]
    assert row_ends(lengths).tolist() == [0, 3, 5]
    assert row_numbers(lengths).tolist() == [0, 1, 1, 1, 2, 2]
    assert places(lengths).tolist() == [0, 0, 1, 2, 0, 1]
    assert places_from_end(lengths).tolist() == [0, 2, 1, 0, 1, 0]
    assert spread(array([7, 8, 9]), lengths).tolist() == [7, 8, 8, 8, 9, 9]
    assert indices(array([10, 0, 4]), lengths).tolist() == [10, 0, 1, 2, 4, 5]


def test_a_row_without_items_takes_no_place(array):
    lengths = array([2, 0, 1])
    assert row_numbers(lengths).tolist() == [0, 0, 2]
    assert places(lengths).tolist() == [0, 1, 0]
    assert indices(array([5, 9, 3]), lengths).tolist() == [5, 6, 3]


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]])
def test_no_items_at_all(array, lengths):
    for found in (row_numbers, places, places_from_end, lambda rows: indices(rows, rows)):
        assert found(array(lengths)).tolist() == []


def test_what_goes_in_comes_out(array):
    lengths = array([1, 3, 2])
    for found in (row_starts, row_ends, row_numbers, places, places_from_end, lambda rows: indices(rows, rows)):
        assert type(found(lengths)) is type(lengths) and found(lengths).dtype == lengths.dtype
