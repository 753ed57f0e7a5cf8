"""Next-item losses of the encoders: cross-entropy over the whole catalogue, or against drawn negatives.

Shapes: T predictions, d the width of the item space, N items, K negatives per prediction. A negative is any item but the target,
uniform; that a user may have bought it is not looked at, which at these catalogue sizes changes one negative in a thousand.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from slmrec.catalogue_loss import ItemLoss, catalogue_cross_entropy


def choose_item_loss(name: str, num_negatives: int, precision: str = "fp32") -> ItemLoss:
    """The loss `(vectors [T, d], item matrix [N + 1, d], targets int64 [T]) -> float32 scalar` of one value of --loss.

    ce: cross-entropy over all items. bce: binary cross-entropy of the target and its negatives (Kang and McAuley 2018, Eq. 7).
    bpr: -log sigmoid(target - negative) (Rendle et al. 2009). sampled: cross-entropy among the target and its negatives.
    With the precision bf16 the matrix products of ce have bfloat16 factors; the others, which have none, do not change.
    """
    if name == "ce":
        return partial(catalogue_cross_entropy, dtype=torch.bfloat16) if precision == "bf16" else catalogue_cross_entropy
    criterion = {"bce": binary_loss, "bpr": pairwise_loss, "sampled": sampled_loss}[name]

    def item_loss(vectors: torch.Tensor, item_matrix: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        negatives = draw_negatives(targets, len(item_matrix) - 1, num_negatives)  # [T, K]
        items = item_matrix[torch.cat([targets.unsqueeze(1), negatives], dim=1)]  # [T, 1 + K, d]
        return criterion((items * vectors.unsqueeze(1)).sum(-1))

    return item_loss


def draw_negatives(targets: torch.Tensor, num_items: int, number: int) -> torch.Tensor:
    """Uniform items but each row's target, int64 [T, number], from torch's global generator."""
    drawn = torch.randint(1, num_items, (len(targets), number), device=targets.device)
    return drawn + (drawn >= targets.unsqueeze(1))


def binary_loss(scores: torch.Tensor) -> torch.Tensor:
    """From scores [T, 1 + K], the target's first: -log sigmoid(target), and of each negative -log(1 - sigmoid), summed over K."""
    return -(F.logsigmoid(scores[:, 0]) + F.logsigmoid(-scores[:, 1:]).sum(1)).mean()


def pairwise_loss(scores: torch.Tensor) -> torch.Tensor:
    """From scores [T, 1 + K], the target's first: -log sigmoid(target - negative), averaged over K."""
    return -F.logsigmoid(scores[:, :1] - scores[:, 1:]).mean()


def sampled_loss(scores: torch.Tensor) -> torch.Tensor:
    """From scores [T, 1 + K], the target's first: -log of its softmax."""
    return -F.log_softmax(scores, 1)[:, 0].mean()
