"""Text inside a recommender's item table: as its start, or as a part that stays while it is trained.

What stays is a parametrisation of the table (torch.nn.utils.parametrize), so no recommender knows of it; after training the
result is written into the table and the recommender is an ordinary one again.

Shapes: N items and PAD, d_text the width of the text vectors, d that of the table.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from slmrec.text.arguments import TextUseArguments
from slmrec.text.table_start import principal_directions, scaled_to, start_table


def put_text_into(tables: list[nn.Embedding], vectors: torch.Tensor, arguments: TextUseArguments) -> None:
    """Make the item tables [N + 1, d] of an untrained recommender start from, or hold, text vectors float32 [N + 1, d_text]."""
    for table in tables:
        if arguments.text_use == "start":
            _start(table, vectors, arguments)
        else:
            parametrize.register_parametrization(table, "weight", _lasting_part(vectors, table.embedding_dim, arguments))


def write_out_text(tables: list[nn.Embedding]) -> None:
    """End the parametrisation of trained tables: they keep the values that they have."""
    for table in tables:
        if parametrize.is_parametrized(table, "weight"):
            parametrize.remove_parametrizations(table, "weight", leave_parametrized=True)


def _start(table: nn.Embedding, vectors: torch.Tensor, arguments: TextUseArguments) -> None:
    exponent, deviation, dimensions = arguments.text_exponent, arguments.text_std, arguments.text_dimensions
    assert exponent is not None and deviation is not None  # the arguments fill in what the use needs
    with torch.no_grad():
        table.weight[1:] = start_table(vectors[1:], table.weight[1:].clone(), exponent, deviation, dimensions)


def _lasting_part(vectors: torch.Tensor, width: int, arguments: TextUseArguments) -> nn.Module:
    if arguments.text_use == "sum":
        return AddedText(vectors, width)
    assert arguments.text_std is not None
    if arguments.text_use == "adapter":
        return AdaptedText(vectors, width, arguments.text_std)
    assert arguments.text_exponent is not None
    dimensions = min(arguments.text_dimensions or width // 2, width)
    directions = principal_directions(vectors[1:], arguments.text_exponent, dimensions)
    return FrozenText(F.pad(scaled_to(directions, arguments.text_std), (0, 0, 1, 0)))


class AddedText(nn.Module):
    """Table = ID embedding + text vectors through a learned linear map that starts at zero; [N + 1, d]."""

    vectors: torch.Tensor

    def __init__(self, vectors: torch.Tensor, width: int):
        super().__init__()
        self.register_buffer("vectors", vectors, persistent=False)
        self.map = nn.Parameter(torch.zeros(vectors.shape[1], width))

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        return embedding + self.vectors @ self.map


class AdaptedText(nn.Module):
    """Table = text vectors through a learned adapter, without ID embeddings, as in UniSRec without its experts (Hou et al., KDD
    2022) and the MLP of WhitenRec: linear, GELU, linear; [N + 1, d]. What the table was before has no part in it.
    """

    vectors: torch.Tensor

    def __init__(self, vectors: torch.Tensor, width: int, deviation: float):
        super().__init__()
        self.register_buffer("vectors", vectors, persistent=False)
        self.inner, self.outer = nn.Linear(vectors.shape[1], 2 * width), nn.Linear(2 * width, width)
        with torch.no_grad():
            self.outer.bias.zero_()
            self.outer.weight *= deviation / self.adapted()[1:].std()

    def adapted(self) -> torch.Tensor:
        return F.pad(self.outer(F.gelu(self.inner(self.vectors[1:]))), (0, 0, 1, 0))

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        return self.adapted()


class FrozenText(nn.Module):
    """Table = text directions that stay as they are, and ID embeddings in the remaining columns, their null space; [N + 1, d].

    AlphaFuse: Hu et al., "AlphaFuse: Learn ID Embeddings for Sequential Recommendation in Null Space of Language Embeddings",
    SIGIR 2025.
    """

    directions: torch.Tensor

    def __init__(self, directions: torch.Tensor):
        super().__init__()
        self.register_buffer("directions", directions, persistent=False)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.directions, embedding[:, self.directions.shape[1] :]], dim=1)
