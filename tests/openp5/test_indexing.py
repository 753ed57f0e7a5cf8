"""Ways to write items as tokens: cases worked out by hand, and that none of them looks at what is held out."""

import numpy as np
import pytest

from slmrec.data.dataset import SequenceDataset
from slmrec.errors import InputError
from slmrec.openp5.indexing.collaborative import co_occurrences, collaborative_ids, cut
from slmrec.openp5.indexing.random import random_ids
from slmrec.openp5.indexing.sequential import first_appearances, sequential_ids
from slmrec.openp5.item_index import ItemIndex, build_index, load_index

WAYS = ("sequential", "random", "collaborative")


def dataset_of(*sequences, num_items):
    offsets = np.cumsum([0, *map(len, sequences)])
    return SequenceDataset(np.concatenate(sequences).astype(np.int32), offsets, num_items)


def test_sequential_numbers_follow_the_first_appearance_and_the_rest_comes_last():
    items = np.array([5, 2, 5, 1])
    assert first_appearances(items, 5).tolist() == [5, 2, 1, 3, 4]
    ids = sequential_ids(items, 5)
    assert ["".join(one) for one in ids] == ["1003", "1002", "1004", "1005", "1001"]


def test_random_numbers_are_a_permutation_by_the_seed():
    assert sorted("".join(one) for one in random_ids(4, seed=1)) == ["1001", "1002", "1003", "1004"]
    assert random_ids(50, seed=1) == random_ids(50, seed=1) != random_ids(50, seed=2)


def test_co_occurrences_by_hand():
    """Users [1, 2, 2] and [2, 1, 3]: items 1 and 2 together twice, 3 with each of them once; nothing with itself."""
    graph = co_occurrences(np.array([1, 2, 2, 2, 1, 3]), np.array([3, 3]), 4)
    assert graph.toarray().tolist() == [[0, 2, 1, 0], [2, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]


def two_groups():
    """Items 1 to 4 are bought together, and so are 5 to 8, by ten users each; one user joins the groups; nobody had item 9."""
    first, second = np.tile([1, 2, 3, 4], 10), np.tile([5, 6, 7, 8], 10)
    return np.concatenate([first, second, [4, 5]]), np.array([4] * 20 + [2])


def test_collaborative_ids_part_the_groups_by_hand():
    items, lengths = two_groups()
    graph = co_occurrences(items, lengths, 9)
    parts = cut(graph, np.arange(8), 2, seed=0)
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    ids = collaborative_ids(items, lengths, 9, clusters=3, largest=4, seed=0)
    assert ids == [(f"a{group}", f"b{place}") for group in (0, 1) for place in range(4)] + [("a2", "b0")]


def test_clusters_that_nothing_tells_apart_are_cut_in_order():
    graph = co_occurrences(np.array([1, 2]), np.array([1, 1]), 5)  # no edge at all
    assert [part.tolist() for part in cut(graph, np.arange(5), 2, seed=0)] == [[0, 1, 2], [3, 4]]
    ids = collaborative_ids(np.array([1, 2]), np.array([1, 1]), 5, clusters=2, largest=2, seed=0)
    assert len(set(ids)) == 5


@pytest.mark.parametrize("way", WAYS)
def test_no_way_sees_validation_and_test_actions(way):
    """Other items in the last two places of every sequence: the same ids. In the place before: other ones, but by chance."""
    random = np.random.default_rng(0)
    sequences = [random.integers(1, 31, 8) for _ in range(40)]
    ids = build_index(dataset_of(*sequences, num_items=30), way, 0, 3, 5).ids
    held_out = [np.concatenate([one[:-2], random.integers(1, 31, 2)]) for one in sequences]
    assert build_index(dataset_of(*held_out, num_items=30), way, 0, 3, 5).ids == ids
    trained = [np.concatenate([random.integers(1, 31, 6), one[-2:]]) for one in sequences]
    assert (build_index(dataset_of(*trained, num_items=30), way, 0, 3, 5).ids == ids) == (way == "random")


@pytest.mark.parametrize("way", WAYS)
def test_the_table_gives_the_index_back(way, tmp_path):
    index = build_index(dataset_of(*[np.arange(1, 31)] * 3, num_items=30), way, 0, 3, 5)
    index.save(tmp_path)
    assert load_index(tmp_path).ids == index.ids and load_index(tmp_path).symbols == index.symbols


def test_end_follows_ids_that_another_one_goes_on_from():
    index = ItemIndex([("1", "0"), ("1", "0", "2"), ("3",)])
    end, one, nought, two, three = (index.places[symbol] for symbol in ("end", "1", "0", "2", "3"))
    assert index.responses == [[], [one, nought, end], [one, nought, two], [three]]
    assert index.coded[1] == [one, nought]  # in a prompt commas part them


@pytest.mark.parametrize("table", ["", "id,tokens\n1,1 2\n3,4\n", "id,tokens\n1,1 2\n2,1 2\n", "id,tokens\n1,1 2\n2,\n"])
def test_a_damaged_table_is_refused(table, tmp_path):
    (tmp_path / "item_index.csv").write_text(table, encoding="utf-8")
    with pytest.raises(InputError, match=r"item_index\.csv"):
        load_index(tmp_path)
