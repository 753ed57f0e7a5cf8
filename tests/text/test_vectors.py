import numpy as np
import pytest
import torch

from slmrec.errors import InputError
from slmrec.text.tfidf import tfidf_vectors
from slmrec.text.vectors import control_vectors, fill_missing


def test_items_without_a_text_get_the_mean_by_hand():
    known = np.array([True, False, True])
    table = fill_missing(known, np.array([[1.0, 2.0], [3.0, 6.0]], dtype=np.float32))
    assert table.tolist() == [[0, 0], [1, 2], [2, 4], [3, 6]] and table.dtype == torch.float32


def test_controls_keep_the_shape_and_shuffled_ones_the_rows():
    table = torch.cat([torch.zeros(1, 3), torch.arange(15.0).view(5, 3)])
    assert control_vectors(table, "none", 0) is not None and torch.equal(control_vectors(table, "none", 0), table)
    shuffled, gaussian = control_vectors(table, "shuffled", 1), control_vectors(table, "gaussian", 1)
    assert not torch.equal(shuffled, table) and torch.equal(shuffled.sort(0).values, table)
    assert gaussian.shape == table.shape and not gaussian[0].any() and len(gaussian[1:].unique()) == 15
    assert torch.equal(gaussian, control_vectors(table, "gaussian", 1))
    assert not torch.equal(gaussian, control_vectors(table, "gaussian", 2))


def test_tfidf_by_hand():
    """Two texts share no word with the third, so the first direction separates them; equal texts get equal vectors."""
    texts = ["red nail polish", "polish nail red", "drum sticks", "red nail polish"]
    vectors = tfidf_vectors(texts, 2, 1, seed=0)
    assert vectors.shape == (4, 2) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[[1, 3]], vectors[[0, 0]], atol=1e-6)  # single words have no order
    assert abs(vectors[0] @ vectors[2]) < 1e-6 and np.linalg.norm(vectors[2]) == pytest.approx(1, abs=1e-5)
    pairs = tfidf_vectors(texts, 4, 2, seed=0)
    assert np.linalg.norm(pairs[0] - pairs[1]) > 0.1 and np.allclose(pairs[0], pairs[3], atol=1e-6)


def test_tfidf_without_a_word():
    with pytest.raises(InputError, match="no words"):
        tfidf_vectors(["!", "?"], 2, 2, seed=0)
