"""The graph of items that stand near each other in training sequences, and averages over an item's neighbours.

Shapes: N items, E directed edges (each edge of the graph in both directions), d the width of the vectors.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch

from slmrec.ragged import row_numbers


def transitions(items: np.ndarray, lengths: np.ndarray, hops: int, num_items: int) -> torch.Tensor:
    """Pairs of different items at most `hops` places apart in a sequence, both ways, each once, sorted; int64 [2, E].

    Args:
        items: int [T], the sequences back to back; `lengths` int64 says how many items each has.
    """
    owner = row_numbers(lengths)
    items = items.astype(np.int64)
    keys = []
    for gap in range(1, hops + 1):
        left, right = items[:-gap], items[gap:]
        near = (owner[:-gap] == owner[gap:]) & (left != right)
        left, right = left[near], right[near]
        keys += [left * (num_items + 1) + right, right * (num_items + 1) + left]
    return torch.from_numpy(np.stack(np.divmod(np.unique(np.concatenate(keys)), num_items + 1)))


class ItemGraph:
    """An undirected graph over items 1..N without weights or loops; row 0 (PAD) stays alone.

    Attributes:
        edges: int64 [2, E] as `transitions` gives them.
        degree: float32 [N + 1], number of neighbours.
    """

    def __init__(self, edges: torch.Tensor, num_items: int):
        self.edges = edges
        self.degree = torch.bincount(edges[0], minlength=num_items + 1).float()
        offsets = torch.cat([edges.new_zeros(1), self.degree.long().cumsum(0)])
        ones = torch.ones(edges.shape[1], device=edges.device)
        self.adjacency = _csr_matrix(offsets, edges[1], ones, num_items + 1)

    def to(self, device: torch.device) -> ItemGraph:
        return self if self.edges.device == device else ItemGraph(self.edges.to(device), len(self.degree) - 1)

    def propagate(self, vectors: torch.Tensor) -> torch.Tensor:
        """D^-1/2 A D^-1/2 times vectors [N + 1, d]; zero at an item without neighbours."""
        scale = self.degree.clamp(min=1).rsqrt().unsqueeze(1)
        return scale * _NeighbourSum.apply(scale * vectors, self.adjacency)

    def neighbour_mean(self, vectors: torch.Tensor) -> torch.Tensor:
        """D^-1 A times vectors [N + 1, d]; zero at an item without neighbours."""
        return _NeighbourSum.apply(vectors, self.adjacency) / self.degree.clamp(min=1).unsqueeze(1)

    def neighbours(self, chosen: torch.Tensor) -> torch.Tensor:
        """The items with an edge to one of the chosen, bool [N + 1] -> bool [N + 1]."""
        return torch.zeros_like(chosen).index_fill(0, self.edges[1][chosen[self.edges[0]]], True)

    def without(self, items: torch.Tensor) -> ItemGraph:
        """The graph without the edges at the items bool [N + 1]."""
        kept = ~(items[self.edges[0]] | items[self.edges[1]])
        return ItemGraph(self.edges[:, kept], len(self.degree) - 1)


class _NeighbourSum(torch.autograd.Function):
    """A @ vectors in float32; A is symmetric, so that the backward pass is the same product, without a transposed copy of A."""

    @staticmethod
    def forward(context, vectors: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        context.adjacency = adjacency
        with torch.autocast(vectors.device.type, enabled=False):  # a CPU has sparse products in float32 alone
            return adjacency @ vectors.float()

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return context.adjacency @ gradient.contiguous(), None


def _csr_matrix(offsets: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, size: int) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")  # torch's own words, once per process
        return torch.sparse_csr_tensor(offsets, columns, values, (size, size), check_invariants=False)
