"""MAERec: Ye, Xia and Huang, "Graph Masked Autoencoder for Sequential Recommendation", SIGIR 2023.

As in the paper:
  - graph: items within HOPS places of each other in a training sequence are joined by an edge without direction or weight;
  - learning to mask: the semantic relatedness gamma(v) is the mean cosine of e_v and the items within k hops; Gumbel noise is
    added, the items with the highest gamma' are the anchors, and L_mask = -mean gamma' is minimised;
  - transition path masking: from the anchors P^1 on, P^k adds the neighbours of P^(k-1), each kept with probability p^k; every
    edge at an item of P is masked;
  - encoder: e^(l+1) = D^-1/2 A D^-1/2 e^l over the visible edges, without weights; an item's vector is the sum of all e^l;
  - decoder: an MLP over the products e_v^l * e_w^m of all pairs of layers scores an edge (v, w); L_con is the cross-entropy of a
    masked edge among edges with one end exchanged for a drawn item;
  - a Transformer reads the item vectors, a position predicts with the sum of its input and all its layers' outputs, and the score
    is the dot product with an item vector;
  - total = next-item loss + reconstruction_weight * L_con + contrast_weight * L_mask.
Different from the paper:
  - the task-adaptive reward on L_mask (1 where the main loss falls fast, else a small constant) is left out: the weight is fixed;
  - a relatedness averages over the walks of 1..k steps, where an item counts as often as walks reach it (and the item itself
    where they come back), in place of the set within k hops;
  - the decoder pairs the layers below the last, as the released code does (masked items have no visible edge, so that their
    deeper layers are zero), its scores go through no sigmoid, and L_con is a mean over NUM_POSITIVES edges drawn with
    replacement; an exchanged end may by chance form an edge that exists;
  - the next-item loss is the training loop's, and there is no L2 term but --weight_decay;
  - Transformer blocks are those of sasrec.py, with its initial weights and positions counted from the end.
As in the released code, a mask is drawn at every MASK_STEPS-th step and kept in between; L_mask acts at the steps that draw one.

Training reads the visible graph. For evaluation the item vectors over the whole graph are kept in `table`, which is part of the
state and brought up to date when the model goes into eval mode, so that a saved model needs no graph.

Shapes: B rows with T history items in all, N items, d = hidden_size, L graph layers, E directed edges (both directions).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated

import torch
import torch.nn.functional as F
from torch import nn

from slmrec.checks import at_least, share_below_one
from slmrec.encoders.encoder import ItemLoss, OwnFlag
from slmrec.encoders.item_graph import ItemGraph, transitions
from slmrec.encoders.sasrec import SASRec
from slmrec.errors import InputError
from slmrec.ragged import row_ends

if TYPE_CHECKING:
    from slmrec.data.batches import SplitRows

HOPS = 3  # h, places between two joined items; our choice, the released construction takes it as an argument
MASK_DEPTH = 3  # k of P^k and of gamma; released code
KEPT = 0.5  # p; released code
MASK_STEPS = 10  # released code
NUM_POSITIVES, NUM_NEGATIVES = 512, 10  # of L_con in a step; released code: 2048 and 40, which would cost more than all the rest


class MAERec(SASRec):
    """See the head of this file.

    Args:
        num_graph_layers: L.
        others: as SASRec's, and see their flags.
    """

    training_defaults = {
        "targets": "all",  # Ye et al. (every position of a sequence)
        "learning_rate": 1e-3,  # released code of Ye et al.
        "batch_size": 256,  # released code of Ye et al.
        "num_epochs": 100,  # as SASRec
        "patience": 5,  # as SASRec
        "weight_decay": 0.0,  # as SASRec; released code of Ye et al.: 1e-6 times the squared weights
        "loss": "ce",  # as SASRec; released code of Ye et al.: bce with one negative
        "num_negatives": 1,  # counts for the other losses only
        "precision": "fp32",  # as SASRec
    }

    table: torch.Tensor
    masked: torch.Tensor
    step: torch.Tensor

    def __init__(
        self,
        num_items: int,
        hidden_size: int = 128,  # as SASRec; released code of Ye et al.: 32
        num_layers: int = 2,  # released code of Ye et al.
        num_heads: int = 2,  # as SASRec; released code of Ye et al.: 4
        dropout: float = 0.5,  # as SASRec; released code of Ye et al.: 0.3
        max_length: int = 30,  # as SASRec; released code of Ye et al.: 50
        num_graph_layers: Annotated[int, OwnFlag("layers of the graph encoder", at_least, 1)] = 2,  # released code of Ye et al.
        # Released code of Ye et al.: 50 anchors, among 54,756 items of its books data
        mask_probability: Annotated[float, OwnFlag("share of items that are anchors", share_below_one)] = 0.001,
        # Our choice, for a mean; released code of Ye et al.: 1, for a sum over edges
        reconstruction_weight: Annotated[float, OwnFlag("weight of reconstructing masked edges, L_con", at_least, 0)] = 0.1,
        # Released code of Ye et al., where the reward sets it to 0.2 at times
        contrast_weight: Annotated[float, OwnFlag("weight of learning to mask, L_mask", at_least, 0)] = 1.0,
    ):
        super().__init__(num_items, hidden_size, num_layers, num_heads, dropout, max_length)
        self.num_graph_layers = num_graph_layers
        self.num_anchors = max(1, round(mask_probability * num_items))
        self.reconstruction_weight, self.contrast_weight = reconstruction_weight, contrast_weight
        self.decoder = nn.Sequential(
            nn.Linear(num_graph_layers**2 * hidden_size, num_graph_layers * hidden_size),
            nn.ReLU(),
            nn.Linear(num_graph_layers * hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, 1),
        )
        self.register_buffer("table", self.item_embedding.weight.detach().clone())  # [N + 1, d]
        self.register_buffer("masked", torch.zeros(num_items + 1, dtype=torch.bool))  # the items of P, for exact resuming
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.graph: ItemGraph | None = None  # the whole graph, while training
        self.visible: ItemGraph | None = None

    def prepare(self, rows: SplitRows) -> None:
        """Raises InputError when no two different items stand near each other in any training sequence."""
        parts = rows.dataset.sequences_until(rows.users, rows.ends(rows.users) + 1)
        edges = transitions(*parts, HOPS, rows.dataset.num_items)
        if not edges.shape[1]:
            raise InputError("maerec needs transitions between different items, and the training data has none")
        self.graph, self.visible = ItemGraph(edges, rows.dataset.num_items), None

    def item_matrix(self) -> torch.Tensor:
        """Vectors over the whole graph as of the last change to eval mode, [N + 1, d]."""
        return self.table

    def train(self, mode: bool = True) -> MAERec:
        if not mode and self.graph is not None:
            with torch.no_grad():
                self.table.copy_(added(self.graph_layers(self.graph.to(self.table.device))))
        return super().train(mode)

    def encode_positions(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.read(batch, self.item_matrix())

    def read(self, batch: dict[str, torch.Tensor], items: torch.Tensor) -> torch.Tensor:
        """The Transformer over histories whose items have the vectors [N + 1, d]; float32 [T, d]."""
        return added(self.run_blocks(F.embedding(batch["history"], items), batch["lengths"]))

    def graph_layers(self, graph: ItemGraph) -> list[torch.Tensor]:
        """e^0 to e^L, each [N + 1, d]."""
        layers = [self.item_embedding.weight]
        for _ in range(self.num_graph_layers):
            layers.append(graph.propagate(layers[-1]))
        return layers

    def training_loss(self, batch: dict[str, torch.Tensor], targets: str, item_loss: ItemLoss) -> dict[str, torch.Tensor]:
        mask_loss = self.next_mask()
        assert self.visible is not None
        layers = self.graph_layers(self.visible)
        items = added(layers)
        vectors = self.read(batch, items)
        if targets == "last":
            vectors = vectors[row_ends(batch["lengths"])]
        next_item, reconstruction = item_loss(vectors, items, batch["targets"]), self.reconstruction_loss(layers)
        total = next_item + self.reconstruction_weight * reconstruction + self.contrast_weight * mask_loss
        return {"total": total, "next_item": next_item, "reconstruction": reconstruction, "mask": mask_loss}

    def next_mask(self) -> torch.Tensor:
        """Make `visible` that of the present step; returns L_mask, zero at a step that keeps its mask."""
        assert self.graph is not None  # `prepare` makes it
        self.graph = self.graph.to(self.table.device)
        loss = self.table.new_zeros(())
        if self.step % MASK_STEPS == 0:
            scores = self.relatedness() + gumbel_noise(self.table[:, 0])  # gamma' [N + 1]
            loss = -scores[self.graph.degree > 0].mean()
            self.masked, self.visible = self.draw_mask(scores.detach()), None
        if self.visible is None:  # a new mask, or that of the state which a resumed run has loaded
            self.visible = self.graph.without(self.masked)
        self.step += 1
        return loss

    def relatedness(self) -> torch.Tensor:
        """gamma, [N + 1]: mean over the walks of 1 to MASK_DEPTH steps from an item of the cosine with where they end."""
        assert self.graph is not None
        directions = F.normalize(self.item_embedding.weight, dim=1)
        reached, related = directions, torch.zeros_like(directions[:, 0])
        for _ in range(MASK_DEPTH):
            reached = self.graph.neighbour_mean(reached)
            related = related + (directions * reached).sum(1)
        return related / MASK_DEPTH

    def draw_mask(self, scores: torch.Tensor) -> torch.Tensor:
        """P from gamma' [N + 1] as bool [N + 1]."""
        assert self.graph is not None
        anchors = scores.masked_fill(self.graph.degree == 0, -torch.inf).topk(self.num_anchors).indices
        masked = torch.zeros_like(self.masked).index_fill(0, anchors, True)
        for k in range(1, MASK_DEPTH):
            masked = masked | (self.graph.neighbours(masked) & (torch.rand_like(self.table[:, 0]) < KEPT**k))
        return masked

    def reconstruction_loss(self, layers: list[torch.Tensor]) -> torch.Tensor:
        """L_con from e^0 to e^L."""
        assert self.graph is not None
        hidden = (self.masked[self.graph.edges[0]] | self.masked[self.graph.edges[1]]).nonzero().squeeze(1)
        edges = self.graph.edges[:, hidden[torch.randint(len(hidden), (NUM_POSITIVES,), device=hidden.device)]]
        ends = edges.unsqueeze(2).repeat(1, 1, 1 + NUM_NEGATIVES)  # [2, positives, 1 + negatives]
        half = 1 + NUM_NEGATIVES // 2  # the first half of the negatives has another head, the second another tail
        drawn = torch.randint(1, len(self.table), ends.shape[1:], device=ends.device)
        ends[0, :, 1:half], ends[1, :, half:] = drawn[:, 1:half], drawn[:, half:]
        scores = self.edge_scores(layers, ends)
        return F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.int64, device=scores.device))

    def edge_scores(self, layers: list[torch.Tensor], ends: torch.Tensor) -> torch.Tensor:
        """The decoder's scores [...] of edges given by the items at both ends, int64 [2, ...]."""
        heads, tails = ([F.embedding(end, layer) for layer in layers[:-1]] for end in ends)
        return self.decoder(torch.cat([head * tail for head in heads for tail in tails], dim=-1)).squeeze(-1)


def added(layers: list[torch.Tensor]) -> torch.Tensor:
    """The sum of tensors of one shape."""
    return functools.reduce(torch.add, layers)


def gumbel_noise(like: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel numbers of the shape of `like`: -log of exponential ones."""
    return -torch.empty_like(like).exponential_().log()
