"""All items' answers as one tree: what they begin with alike is one way down, and is computed once.

Shapes: N items, M nodes, of which I are inner ones (with children), the root among them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch


@dataclass
class Trie:
    """A tree of tokens; node 0 is the root, where nothing is answered yet. Nodes are numbered depth first.

    Attributes:
        token: int64 [M], place in the alphabet; the root's counts for nothing.
        parent: int64 [M]; the root is its own.
        depth: int64 [M], the root's is 0.
        inner: int64 [I], nodes with children, depth first; the root is the first.
        place: int64 [M], of an inner node among the inner ones; 0 elsewhere.
        leaf: int64 [N + 1], the node at which an item's answer ends; 0 for PAD.
    """

    token: torch.Tensor
    parent: torch.Tensor
    depth: torch.Tensor
    inner: torch.Tensor
    place: torch.Tensor
    leaf: torch.Tensor

    def children(self, node: int) -> list[int]:
        """Tokens that may follow at a node."""
        return self.token[1:][self.parent[1:] == node].tolist()

    def total(self, steps: torch.Tensor) -> torch.Tensor:
        """The sum over each item's way down, float [B, N + 1], 0 for PAD.

        Args:
            steps: float [B, I, K], what token k counts at an inner node.
        """
        taken = steps[:, self.place[self.parent], self.token]  # [B, M]
        taken[:, 0] = 0.0
        sums = taken.clone()
        for level in range(2, int(self.depth.max()) + 1):
            nodes = (self.depth == level).nonzero().squeeze(1)
            sums[:, nodes] = taken[:, nodes] + sums[:, self.parent[nodes]]
        return sums[:, self.leaf]

    def pieces(self, most: int) -> list[Piece]:
        """The inner nodes below the root in pieces of at most `most`, each after those of its ancestors that are in none of its
        nodes. Nodes are numbered depth first, so these are ancestors of a piece's first node, few and all alike."""
        below = self.inner[1:].tolist()
        return [self._piece(below[start : start + most]) for start in range(0, len(below), most)]

    def _piece(self, nodes: list[int]) -> Piece:
        before, node = [], int(self.parent[nodes[0]])
        while node:
            before.append(node)
            node = int(self.parent[node])
        nodes = [*before[::-1], *nodes]
        column = {node: place for place, node in enumerate(nodes)}
        sees = torch.zeros(len(nodes), len(nodes), dtype=torch.bool)
        for place, node in enumerate(nodes):
            above = column.get(int(self.parent[node]))
            if above is not None:
                sees[place] = sees[above]
            sees[place, place] = True
        return Piece(torch.tensor(nodes), sees, len(before))


@dataclass
class Piece:
    """Inner nodes that go through the model together.

    Attributes:
        nodes: int64 [T].
        sees: bool [T, T], true where a node attends to another one: its ancestors and itself.
        repeated: how many at the start belong to an earlier piece.
    """

    nodes: torch.Tensor
    sees: torch.Tensor
    repeated: int


def build_trie(responses: list[list[int]]) -> Trie:
    """The tree of the answers of items 1, 2 ... N; that of PAD, at 0, is empty.

    Raises ValueError when one answer begins another, or is it.
    """
    tokens, parents, depths, leaf = [0], [0], [0], [0] * len(responses)
    way: list[int] = []  # the nodes of the answer before this one
    before: list[int] = []
    for item in sorted(range(1, len(responses)), key=responses.__getitem__):
        answer = responses[item]
        shared = len(os.path.commonprefix([before, answer]))
        if shared == len(answer) or (before and shared == len(before)):
            raise ValueError(f"the answer {answer} of item {item} begins another one, or another one begins it")
        way = way[:shared]
        for token in answer[shared:]:
            parents.append(way[-1] if way else 0)
            depths.append(len(way) + 1)
            way.append(len(tokens))
            tokens.append(token)
        leaf[item], before = way[-1], answer
    parent = torch.tensor(parents)
    inner = parent[1:].unique()  # sorted, and so depth first
    place = torch.zeros(len(tokens), dtype=torch.int64)
    place[inner] = torch.arange(len(inner))
    return Trie(torch.tensor(tokens), parent, torch.tensor(depths), inner, place, torch.tensor(leaf))
