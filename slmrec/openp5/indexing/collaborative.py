"""Collaborative indexing: items that occur together in training parts share the first tokens of their ids.

The graph of co-occurrences is cut into clusters by spectral clustering, each cluster again, until none has more than `largest`
items. An id is the way down: `a7 b0 c12` is item 12 of cluster 0 in cluster 7. The letter is the level, so that a token means one
choice, and each cluster's choices begin at 0.
"""

from __future__ import annotations

import string
import warnings

import numpy as np
from scipy.sparse import csr_array, diags_array
from sklearn.cluster import SpectralClustering

from slmrec.ragged import row_numbers

EIGEN_TOL = 1e-3  # of the eigenvectors: they only have to tell clusters apart


def co_occurrences(items: np.ndarray, lengths: np.ndarray, num_items: int) -> csr_array:
    """In how many users' training parts two items occur both, float64 [N, N] with a zero diagonal; item n is row n - 1.

    Args:
        items: int [T], the training parts back to back.
        lengths: int64 [U], items of each.
    """
    ones = np.ones(len(items))
    bought = csr_array((ones, (row_numbers(lengths), items - 1)), shape=(len(lengths), num_items))
    bought.data[:] = 1  # one who bought an item twice has bought it
    together = (bought.T @ bought).tocsr()
    return csr_array(together - diags_array(together.diagonal()))


def collaborative_ids(
    items: np.ndarray, lengths: np.ndarray, num_items: int, clusters: int, largest: int, seed: int
) -> list[tuple[str, ...]]:
    """The way down to every item.

    Args:
        clusters: that a cluster is cut into.
        largest: cluster that is not cut any more.
        seed: of the clustering's random starts.
    """
    graph = co_occurrences(items, lengths, num_items)
    ids: list[tuple[str, ...]] = [()] * num_items

    def descend(members: np.ndarray, way: tuple[str, ...]) -> None:
        if len(members) <= largest:
            for place, member in enumerate(members.tolist()):
                ids[member] = (*way, _symbol(len(way), place))
            return
        for place, part in enumerate(cut(graph, members, clusters, seed)):
            descend(part, (*way, _symbol(len(way), place)))

    descend(np.arange(num_items), ())
    return ids


def cut(graph: csr_array, members: np.ndarray, clusters: int, seed: int) -> list[np.ndarray]:
    """The rows `members` of a graph in at most `clusters` parts, none empty, the one with the lowest row first.

    Items without any edge among the members say nothing to the clustering; they make parts of their own, in order. So does what
    the clustering cannot tell apart.
    """
    among = graph[members][:, members]
    tied = np.flatnonzero(among.sum(axis=1) > 0)
    alone = np.setdiff1d(np.arange(len(members)), tied)
    parts = [alone] * bool(len(alone))
    number = min(clusters - len(parts), len(tied) - 1)
    if number > 1:
        labels = _labels(among[tied][:, tied], number, seed)
        parts += [tied[labels == label] for label in range(number)]
    elif len(tied):
        parts.append(tied)
    parts = [part for part in parts if len(part)]
    if len(parts) == 1:
        parts = np.array_split(np.arange(len(members)), clusters)
    return sorted((members[part] for part in parts if len(part)), key=lambda part: part[0])


def _labels(graph: csr_array, clusters: int, seed: int) -> np.ndarray:
    """int [M], which cluster each row belongs to."""
    model = SpectralClustering(clusters, affinity="precomputed", random_state=seed, n_init=3, eigen_tol=EIGEN_TOL)
    with warnings.catch_warnings():  # a graph in several pieces is nothing unusual here: a piece is a cluster
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        graph.indices, graph.indptr = (
            graph.indices.astype(np.int32),
            graph.indptr.astype(np.int32),
        )  # scikit-learn takes no others
        return model.fit_predict(graph)


def _symbol(level: int, place: int) -> str:
    return f"{string.ascii_lowercase[min(level, 25)]}{place}"
