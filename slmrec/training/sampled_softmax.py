"""The next-item loss of the LLM stages: over the whole catalogue (the paper's), or estimated from a sample of it.

Shapes: T predictions, d the width of the item space, N items, K negatives that all predictions of a batch share.
"""

from __future__ import annotations

import numpy as np
import torch

from slmrec.catalogue_loss import ItemLoss, catalogue_cross_entropy
from slmrec.data.dataset import SequenceDataset, load_dataset
from slmrec.training.arguments import LossArguments


def choose_loss(arguments: LossArguments, data: str) -> ItemLoss:
    """The next-item loss of a run on the output directory `data` of the data stage."""
    if arguments.loss == "ce":
        return catalogue_cross_entropy
    assert arguments.num_negatives is not None
    return SampledSoftmax(training_counts(load_dataset(data)), arguments.num_negatives)


def training_counts(dataset: SequenceDataset) -> np.ndarray:
    """How often each item occurs before the targets of validation and test, int64 [N + 1]."""
    users = np.arange(dataset.num_users)
    items, _ = dataset.sequences_until(users, np.maximum(dataset.target_positions("train") + 1, dataset.offsets[:-1]))
    return np.bincount(items, minlength=dataset.num_items + 1)


class SampledSoftmax:
    """Estimates `catalogue_cross_entropy` from K items, drawn anew at each call from torch's global generator.

    Items are drawn with probability q proportional to their actions in training plus one. In the softmax's sum the other items
    are replaced by the drawn ones, each divided by K q, its expected number of draws: the logQ correction (Bengio and Senecal
    2008; Yi et al. 2019). A drawn item that is the target is left out for that target. So the estimated sum is right on average,
    and the loss approaches the whole one as K grows; the target itself is not drawn, and not corrected.

    Args:
        counts: [N + 1], actions of each item; entry 0 belongs to PAD.
        number: K.
    """

    def __init__(self, counts: np.ndarray, number: int):
        shares = (counts[1:] + 1) / (counts[1:] + 1).sum()
        self.ends = torch.from_numpy(np.cumsum(shares))  # float64 [N]
        self.log_draws = torch.from_numpy(np.log(number * shares)).float()  # [N], log of K q
        self.number = number

    def __call__(self, vectors: torch.Tensor, item_matrix: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Float32 scalar for vectors [T, d], item_matrix [N + 1, d] and targets int64 [T]."""
        drawn = torch.searchsorted(self.ends, torch.rand(self.number, dtype=torch.float64)).clamp(max=len(self.ends) - 1)
        correction = self.log_draws[drawn].to(vectors.device)
        drawn = (drawn + 1).to(vectors.device)  # [K] item ids
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = vectors.float()
            positive = (vectors * item_matrix[targets].float()).sum(1)  # [T]
            logits = vectors @ item_matrix[drawn].float().T - correction  # [T, K]
            others = logits.masked_fill(drawn == targets.unsqueeze(1), -torch.inf).logsumexp(1)
            return (torch.logaddexp(positive, others) - positive).mean()
