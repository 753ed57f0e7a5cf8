"""Rows of large tables, worked on in parts: the same as at once."""

import numpy as np
import polars as pl
import pytest

from slmrec.data import rows
from slmrec.data.values import clean_ids
from slmrec.errors import InputError


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(rows, "PART_ROWS", 7)


@pytest.fixture
def codes():
    return np.random.default_rng(0).integers(0, 12, (2, 100)).astype(np.uint32)


@pytest.mark.parametrize("scale", [1, 10**9, -(2**58)])
def test_times_are_put_in_order_and_equal_ones_stay(scale):
    times = np.random.default_rng(1).integers(-9, 9, 100) * scale
    assert np.array_equal(rows.time_order(times), np.argsort(times, kind="stable"))


def test_groups_and_counts(codes):
    users, items = codes
    assert np.array_equal(rows.group_order(users), np.argsort(users, kind="stable"))
    kept = np.flatnonzero(items > 3).astype(np.uint32)
    assert rows.count_codes(users).tolist() == np.bincount(users).tolist()
    assert rows.count_codes(users, kept).tolist() == np.bincount(users[kept]).tolist()


def test_the_first_of_each_pair(codes):
    met, expected = set(), []
    for pair in zip(*codes.tolist()):
        expected.append(pair not in met)
        met.add(pair)
    assert rows.first_of_pairs(*codes).tolist() == expected and not all(expected)


def test_the_first_row_of_each_code():
    first = rows.first_rows(np.array([3, 1, 3], dtype=np.uint32), np.array([9, 5, 2], dtype=np.uint32))
    assert first.tolist() == [rows.NEVER, 5, rows.NEVER, 2]


def test_nothing_is_ordered_and_counted():
    nothing = np.zeros(0, dtype=np.uint32)
    assert not len(rows.time_order(nothing.astype(np.int64))) and not len(rows.first_of_pairs(nothing, nothing))
    assert rows.count_codes(nothing).tolist() == [0]


def test_rows_are_taken_and_the_frame_is_used_up():
    frame = pl.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    assert rows.take_rows(frame.clone(), np.array([True, False, True])).rows() == [(1, "x"), (3, "z")]
    assert rows.take_rows(frame, np.array([2, 0], dtype=np.uint32)).rows() == [(3, "z"), (1, "x")] and not frame.columns


def test_ids_are_looked_at_in_parts():
    """The blank, the word for a missing value and the second spelling stand in different parts."""
    ids = [str(number) for number in range(20)]
    where = "row {}".format
    assert clean_ids(pl.Series([*ids, " 3"]), "item", where).to_list() == [*ids, "3"]
    with pytest.raises(InputError, match="row 20: item is 'nan', which is no id"):
        clean_ids(pl.Series([*ids, "nan", "NULL"]), "item", where)
    with pytest.raises(InputError, match="row 20: item is '7.0', elsewhere '7'"):
        clean_ids(pl.Series([*ids, "7.0"]), "item", where)
