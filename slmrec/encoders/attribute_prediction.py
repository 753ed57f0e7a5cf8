"""Telling the attributes of items (categories, brands) from vectors: the two attribute objectives of S3-Rec (Zhou et al. 2020).

Associated attribute prediction reads an item's embedding e_i, masked attribute prediction the state F_t at a masked place: the
probability that the item has attribute a is sigmoid(e_i' W_AAP e_a) (their Eq. 11), and sigmoid(F_t' W_MAP e_a) (Eq. 15).

Shapes: T vectors, d = hidden_size, A attributes, P pairs of one of the vectors and an attribute that its item has.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from slmrec.encoders.transformer import INITIAL_STD
from slmrec.ragged import places, row_numbers

CHUNK_LOGITS = 2**22  # that exist at a time


class AttributePrediction(nn.Module):
    """Attribute embeddings and the two bilinear maps, which start as plain products.

    Args:
        num_attributes: A.
        hidden_size: d.
        ids, offsets: int64, item n has the attributes ids[offsets[n - 1]:offsets[n]]; they are not saved with the weights. None
            in a model that is loaded, which is not pretrained any more.
    """

    ids: torch.Tensor
    offsets: torch.Tensor

    def __init__(
        self, num_attributes: int, hidden_size: int, ids: torch.Tensor | None = None, offsets: torch.Tensor | None = None
    ):
        super().__init__()
        self.attribute_embedding = nn.Embedding(num_attributes, hidden_size)
        self.associated_projection = nn.Linear(hidden_size, hidden_size, bias=False)  # W_AAP
        self.masked_projection = nn.Linear(hidden_size, hidden_size, bias=False)  # W_MAP
        nn.init.normal_(self.attribute_embedding.weight, std=INITIAL_STD)
        nn.init.eye_(self.associated_projection.weight)
        nn.init.eye_(self.masked_projection.weight)
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)

    def associated(self, embeddings: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """L_AAP of items int64 [T] from their embeddings [T, d]."""
        return self.loss(self.associated_projection(embeddings), items)

    def masked(self, states: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """L_MAP of masked items int64 [T] from the states at their places [T, d]."""
        return self.loss(self.masked_projection(states), items)

    def loss(self, vectors: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return attribute_loss(vectors, self.attribute_embedding.weight, *attributes_of(items, self.ids, self.offsets))


def attributes_of(items: torch.Tensor, ids: torch.Tensor, offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The pairs of one of the items int64 [T] and an attribute that it has: which of the items [P], and the attribute [P]."""
    numbers = offsets[items] - offsets[items - 1]  # [T]
    row = row_numbers(numbers)
    return row, ids[offsets[items - 1][row] + places(numbers)]


def attribute_loss(vectors: torch.Tensor, attributes: torch.Tensor, row: torch.Tensor, attribute: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of sigmoid(vector . e_a), summed over all attributes a and averaged over the vectors; 0 without any.

    With logits z it is the sum of softplus(z) over all attributes, less the sum of z over those that the item has. A vector whose
    item has no known attribute is left out: what is not known is not absent (the mean over A_i in Eq. 10 and 14 is empty).

    Args:
        vectors: [T, d].
        attributes: e, [A, d].
        row, attribute: int64 [P], the pairs of a vector and an attribute that hold.

    Returns:
        float32 scalar. The [T, A] logits exist in chunks, and are computed once more in the backward pass.
    """
    known = vectors[row.unique()]
    rows = max(1, CHUNK_LOGITS // len(attributes))
    chunks = known.split(rows) if len(known) else ()
    total = sum((checkpoint(softplus_sum, chunk, attributes, use_reentrant=False) for chunk in chunks), vectors.new_zeros(()))
    return (total - (vectors[row] * attributes[attribute]).sum()) / max(len(known), 1)


def softplus_sum(vectors: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
    return F.softplus(vectors @ attributes.T).sum()
