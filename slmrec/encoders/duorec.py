"""DuoRec: Qiu, Huang, Yin and Wang, "Contrastive Learning for Representation Degeneration Problem in Sequential
Recommendation", WSDM 2022.

As in the paper:
  - the encoder and its next-item loss are SASRec's;
  - unsupervised view h': the same sequence encoded a second time, under another dropout mask;
  - supervised view h'_s: another training sequence with the same target item, drawn uniformly;
  - with z the 2B views of a batch, each row i has its other view as positive p(i) in
        InfoNCE = mean over i of -log(exp(z_i . z_p(i) / tau) / sum over j in C(i) of exp(z_i . z_j / tau)),
    where C(i) holds p(i) and the views of rows with another target: a row with the same target is no negative;
  - total = next-item loss + contrast_weight * InfoNCE.
Different from the paper:
  - tau is 51.2 by default, not 1: states are layer-normalised and have norm sqrt(d) or so, so that at d = 128 the products are
    cosines at a temperature of 0.4 (see below what 1 does); another hidden_size wants another tau in proportion;
  - a sequence whose target no other sequence has is its own supervised view, under a third dropout mask;
  - with targets="all" the next-item loss reads every position of a row in one pass, where the paper makes each prefix a row of
    its own; the supervised view is drawn from all those prefixes, but only whole rows are contrasted (last positions);
  - the encoder's own differences stand in sasrec.py.

Shapes: B rows of a batch, d = hidden_size, C training sequences (prefixes), N items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import torch.nn.functional as F

from slmrec.checks import above, at_least
from slmrec.encoders.encoder import ItemLoss, OwnFlag
from slmrec.encoders.sasrec import SASRec
from slmrec.ragged import indices, row_ends

if TYPE_CHECKING:
    from slmrec.data.batches import SplitRows


class DuoRec(SASRec):
    """See the head of this file.

    Args:
        contrast_temperature: tau.
        others: as SASRec's, and see their flags.
    """

    training_defaults = {
        "targets": "all",  # our choice: one pass for what Qiu et al. make a row per prefix of
        "learning_rate": 1e-3,  # logs of Qiu et al.
        "batch_size": 256,  # released code of Qiu et al.
        "num_epochs": 100,  # as SASRec
        "patience": 5,  # as SASRec
        "weight_decay": 0.0,  # as SASRec
        "loss": "ce",  # Qiu et al.: softmax over all items
        "num_negatives": 1,  # counts for the other losses only
        "precision": "fp32",  # as SASRec
    }

    def __init__(
        self,
        num_items: int,
        hidden_size: int = 128,  # as SASRec
        num_layers: int = 2,  # as SASRec
        num_heads: int = 2,  # as SASRec
        dropout: float = 0.5,  # logs of Qiu et al. (hidden states and attention)
        max_length: int = 30,  # as SASRec
        contrast_weight: Annotated[float, OwnFlag("weight of the contrast", at_least, 0)] = 0.1,  # released code (lmd_sem)
        # A cosine at a temperature of 0.4, as states have norm sqrt(128). Released code of Qiu et al.: 1, for dot products; the
        # contrast then outweighs the next-item loss so far that nothing was learnt on Scientific in 9 epochs. Best validation
        # MRR on Beauty and Scientific: 0.181 and 0.147; with 12.8 it was 0.179 and 0.148 (one seed).
        contrast_temperature: Annotated[float, OwnFlag("of the similarities that are contrasted", above, 0)] = 51.2,
    ):
        super().__init__(num_items, hidden_size, num_layers, num_heads, dropout, max_length)
        self.contrast_weight = contrast_weight
        self.contrast_temperature = contrast_temperature

    def prepare(self, rows: SplitRows) -> None:
        self.same_target = SameTargetSequences(rows)

    def training_loss(self, batch: dict[str, torch.Tensor], targets: str, item_loss: ItemLoss) -> dict[str, torch.Tensor]:
        next_item = super().training_loss(batch, targets, item_loss)["total"]
        last_targets = batch["targets"][row_ends(batch["lengths"])] if targets == "all" else batch["targets"]
        contrast = info_nce(self.encode_views(batch), last_targets, self.contrast_temperature)
        return {"total": next_item + self.contrast_weight * contrast, "next_item": next_item, "contrast": contrast}

    def encode_views(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The unsupervised views of a batch, then its supervised ones, float32 [2B, d]."""
        history, lengths = self.same_target.draw(batch["users"])
        return self.encode(
            {
                "history": torch.cat([batch["history"], history.to(batch["history"].device)]),
                "lengths": torch.cat([batch["lengths"], lengths.to(batch["lengths"].device)]),
            }
        )


class SameTargetSequences:
    """The training sequences in the order of their targets, so that those of one target stand together.

    Args:
        rows: the training rows; with targets="all" each prefix of a row's training part that ends before one of the row's
            targets is a sequence, with targets="last" each row is one.
    """

    def __init__(self, rows: SplitRows):
        per_row = rows.lengths if rows.targets == "all" else np.ones(len(rows), dtype=np.int64)
        last = row_ends(per_row)  # [rows] the sequence that is the whole row
        users = rows.users.repeat(per_row)
        ends = rows.ends(users) - (last.repeat(per_row) - np.arange(len(users)))  # [C] where the targets stand
        targets = rows.dataset.items[ends]
        order = np.argsort(targets, kind="stable")
        self.items = rows.dataset.items
        self.end = ends[order]
        self.start = np.maximum(self.end - rows.max_length, rows.dataset.offsets[users[order]])
        self.first = np.searchsorted(targets[order], np.arange(rows.dataset.num_items + 2))  # [N + 2] target -> its first place
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        self.place = np.full(rows.dataset.num_users, -1)
        self.place[rows.users] = place[last]

    def draw(self, users: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For each training row, given by its user in int64 [B]: another sequence with its target, or itself if there is none.

        Returns the drawn histories back to back and their lengths, int64 on the CPU. Draws from torch's global CPU generator.
        """
        own = self.place[users.cpu().numpy()]
        target = self.items[self.end[own]]
        first = self.first[target]
        others = self.first[target + 1] - first - 1  # [B] how many sequences share the target
        step = (torch.rand(len(own), dtype=torch.float64).numpy() * others).astype(np.int64)
        drawn = first + step
        drawn += (drawn >= own) & (others > 0)  # steps over the row itself
        lengths = self.end[drawn] - self.start[drawn]
        items = self.items[indices(self.start[drawn], lengths)]
        return torch.from_numpy(items.astype(np.int64)), torch.from_numpy(lengths)


def info_nce(views: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE of the head of this file, a scalar.

    Args:
        views: [2B, d]; row i and row B + i are the two views of row i.
        targets: int64 [B]; rows with equal targets are no negatives of each other.
    """
    rows = len(targets)
    positive = torch.arange(2 * rows, device=views.device).roll(rows)
    excluded = (targets.unsqueeze(1) == targets).repeat(2, 2)
    excluded = excluded.scatter(1, positive.unsqueeze(1), False)  # the other view counts, though its target is the same
    similarity = (views @ views.T / temperature).masked_fill(excluded, -torch.inf)
    return F.cross_entropy(similarity, positive)
