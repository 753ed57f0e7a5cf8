"""The in-memory data set and its leave-one-out views."""

import numpy as np

from slmrec.data.dataset import SequenceDataset

DATASET = SequenceDataset(np.arange(1, 10, dtype=np.int32), np.array([0, 3, 5, 9]), 9)


def test_sequences_until_of_chosen_users():
    items, lengths = DATASET.sequences_until(np.array([2, 0]), np.array([9, 3]))
    assert items.tolist() == [6, 7, 8, 9, 1, 2, 3]
    assert lengths.tolist() == [4, 3]
    items, lengths = DATASET.sequences_until(np.array([2, 1]), np.array([7, 3]))
    assert items.tolist() == [6, 7]
    assert lengths.tolist() == [2, 0]


def test_targets_stand_at_the_end_of_each_sequence():
    assert DATASET.items[DATASET.target_positions("test")].tolist() == [3, 5, 9]
    assert DATASET.items[DATASET.target_positions("valid")].tolist() == [2, 4, 8]
