import numpy as np
import pytest
import torch

from slmrec.encoders.item_graph import ItemGraph, transitions


def test_transitions_by_hand():
    """4 is not joined to 1 across the two sequences, nor 2 to itself."""
    edges = transitions(np.array([1, 2, 2, 4, 1, 3]), np.array([4, 2]), 2, 5)
    assert sorted(zip(*edges.tolist(), strict=True)) == [(1, 2), (1, 3), (2, 1), (2, 4), (3, 1), (4, 2)]


@pytest.mark.parametrize("hops", [1, 3, 20])
def test_transitions_equal_a_loop(hops):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(1, 16, rng.integers(1, 9)) for _ in range(12)]
    expected = {
        (int(left), int(right))
        for sequence in sequences
        for i, left in enumerate(sequence)
        for j, right in enumerate(sequence)
        if 0 < abs(i - j) <= hops and left != right
    }
    edges = transitions(np.concatenate(sequences), np.array([len(sequence) for sequence in sequences]), hops, 15)
    assert list(zip(*edges.tolist(), strict=True)) == sorted(expected)


@pytest.fixture
def graph():
    """Items 1 to 6; 5 and 6 have no edge."""
    pairs = [(1, 2), (2, 3), (3, 4), (2, 4)]
    return ItemGraph(torch.tensor(sorted(pairs + [pair[::-1] for pair in pairs])).T, 6)


def dense(graph):
    matrix = torch.zeros(7, 7)
    matrix[graph.edges[0], graph.edges[1]] = 1.0
    return matrix


def test_products_and_their_gradients_equal_dense_ones(graph):
    torch.manual_seed(0)
    vectors, weights = torch.randn(7, 3, requires_grad=True), torch.randn(7, 3)
    matrix, degree = dense(graph), torch.tensor([1.0, 1, 3, 2, 2, 1, 1])  # without neighbours the division does not matter
    cases = {
        graph.propagate: matrix / (degree.unsqueeze(0) * degree.unsqueeze(1)).sqrt(),
        graph.neighbour_mean: matrix / degree.unsqueeze(1),
    }
    for product, full in cases.items():
        for result in (product(vectors), full @ vectors):
            (gradient,) = torch.autograd.grad((result * weights).sum(), vectors)
            torch.testing.assert_close(result, full @ vectors)
            torch.testing.assert_close(gradient, full.T @ weights)


def test_neighbours_and_the_graph_without_some_items(graph):
    chosen = torch.zeros(7, dtype=torch.bool)
    chosen[[1, 5]] = True
    assert graph.neighbours(chosen).nonzero().squeeze(1).tolist() == [2]
    rest = graph.without(chosen)
    assert graph.degree.tolist() == [0, 1, 3, 2, 2, 0, 0] and rest.degree.tolist() == [0, 0, 2, 2, 2, 0, 0]
    assert set(zip(*rest.edges.tolist(), strict=True)) == {(2, 3), (3, 2), (3, 4), (4, 3), (2, 4), (4, 2)}


def test_a_graph_can_lose_all_edges(graph):
    empty = graph.without(torch.ones(7, dtype=torch.bool))
    assert empty.edges.shape == (2, 0)
    assert torch.equal(empty.propagate(torch.ones(7, 2)), torch.zeros(7, 2))
