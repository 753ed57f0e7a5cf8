"""S3-Rec: Zhou et al., "S3-Rec: Self-Supervised Learning for Sequential Recommendation with Mutual Information Maximization",
CIKM 2020.

Two stages on the same weights. Pretraining reads a history in both directions, with some of its items replaced by a MASK vector:
  - masked item prediction: each item is masked with probability mask_probability, the last one always (as in the authors' code);
    from the state F_t at a masked place its item i_t is told from the other items by i_t' W F_t;
  - segment prediction: a contiguous segment, up to half of the history, is drawn. The context (the history with the segment
    masked) and the segment (everything else masked) are read at the last place, giving s and s~; the row's own segment is told
    from other rows' by s~' W s.
Both are InfoNCE, a lower bound on mutual information; their sum, segment prediction with segment_weight, is minimised. Then the
model is fine-tuned as SASRec: causal attention, next item.
Different from the paper:
  - the two attribute objectives (associated and masked attribute prediction) are left out: the data stage keeps titles, no
    categories. The paper's results are with them;
  - masked items are told from the whole catalogue (a full softmax), not from drawn negatives, and segments from those of all
    other rows of the batch (the authors' code draws one negative item and one negative segment);
  - pretraining reads training histories, as fine-tuning does: of a user's training part all but the last item, which is only a
    target. Validation and test items are in neither. It lasts 10 epochs by default (paper: 100);
  - Transformer block, initial weights and positions (counted from the end, in both stages) are those of sasrec.py.

Shapes: B rows with T history items in all; d = hidden_size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.encoders.row_layout import places, row_ends
from slmrec.encoders.sasrec import SASRec
from slmrec.encoders.transformer import INITIAL_STD


class S3Rec(SASRec):
    """See the head of this file.

    Args:
        num_items, hidden_size, num_layers, num_heads, dropout, max_length: see `SASRec`.
        mask_probability: of an item but the last to be masked for masked item prediction.
        segment_weight: of segment prediction beside masked item prediction.
    """

    def __init__(
        self,
        num_items: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        max_length: int,
        mask_probability: float,
        segment_weight: float,
    ):
        super().__init__(num_items, hidden_size, num_layers, num_heads, dropout, max_length)
        self.mask_probability, self.segment_weight = mask_probability, segment_weight
        self.mask_embedding = nn.Parameter(INITIAL_STD * torch.randn(hidden_size))
        self.item_projection = nn.Linear(hidden_size, hidden_size, bias=False)
        self.segment_projection = nn.Linear(hidden_size, hidden_size, bias=False)
        nn.init.eye_(self.item_projection.weight)  # pretraining starts with the product that fine-tuning scores with
        nn.init.normal_(self.segment_projection.weight, std=INITIAL_STD)

    def pretraining_loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """`masked_item`, `segment` (0 where no row has two items) and their weighted sum `total`; targets are not read."""
        history, lengths = batch["history"], batch["lengths"]
        masked, inside = self.draw_mask(lengths), draw_segments(lengths)
        hidden = torch.cat([masked, inside, ~inside])  # [3T] one pass for all three readings of the batch
        states = self.read_masked(history.repeat(3), lengths.repeat(3), hidden)
        cloze, context, segment = states.chunk(3)
        ends = row_ends(lengths)[lengths > 1]  # one item cannot be divided into a segment and a context
        item_loss = catalogue_cross_entropy(self.item_projection(cloze[masked]), self.item_matrix(), history[masked])
        segment_loss = contrast(self.segment_projection(context[ends]), segment[ends])
        return {
            "total": item_loss + self.segment_weight * segment_loss,
            "masked_item": item_loss,
            "segment": segment_loss,
        }

    def draw_mask(self, lengths: torch.Tensor) -> torch.Tensor:
        """Which items are masked for masked item prediction, bool [T]; the last of each row always is."""
        masked = torch.rand(int(lengths.sum()), device=lengths.device) < self.mask_probability
        masked[row_ends(lengths)] = True
        return masked


def draw_segments(lengths: torch.Tensor) -> torch.Tensor:
    """One segment of each row, 1 to half of its items (rounded down) and anywhere in it, as bool [T]; rows of 1 item give it."""
    size = 1 + (torch.rand(len(lengths), device=lengths.device) * (lengths // 2)).long()  # [B]
    first = (torch.rand(len(lengths), device=lengths.device) * (lengths - size + 1)).long()  # [B]
    place = places(lengths)
    return (place >= first.repeat_interleave(lengths)) & (place < (first + size).repeat_interleave(lengths))


def contrast(contexts: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """InfoNCE: mean over rows [E, d] of -log softmax over all segments of context . segment, at the row's own; 0 without rows."""
    scores = contexts @ segments.T
    return F.cross_entropy(scores, torch.arange(len(scores), device=scores.device), reduction="sum") / max(len(scores), 1)
