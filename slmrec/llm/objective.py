"""The teacher's objective: next-item cross-entropy over all items (paper, Eq. 1)."""

from __future__ import annotations

import torch

from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.llm.ellmrec import EllmRecommender


def next_item_objective(model: EllmRecommender, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Scalars `ce` and `loss` (the same here), averaged over the batch's targets."""
    encoded = model(batch)
    cross_entropy = catalogue_cross_entropy(encoded.users, encoded.items, batch["targets"])
    return {"ce": cross_entropy, "loss": cross_entropy}
