"""S3-Rec: Zhou et al., "S3-Rec: Self-Supervised Learning for Sequential Recommendation with Mutual Information Maximization",
CIKM 2020.

Two stages on the same weights. Pretraining reads a history in both directions, with some of its items replaced by a MASK vector:
  - masked item prediction: each item is masked with probability mask_probability, the last one always (as in the authors' code);
    from the state F_t at a masked place its item i_t is told from the other items by i_t' W F_t (their Eq. 13);
  - segment prediction: a contiguous segment, up to half of the history, is drawn. The context (the history with the segment
    masked) and the segment (everything else masked) are read at the last place, giving s and s~; the row's own segment is told
    from other rows' by s~' W s (Eq. 17).
Both are InfoNCE, a lower bound on mutual information. Where the data set has attributes of its items (categories, brands), there
are two more objectives, see attribute_prediction.py:
  - associated attribute prediction: the attributes of each item that is not masked are told from its embedding e_i (Eq. 11);
  - masked attribute prediction: the attributes of a masked item are told from the state F_t at its place (Eq. 15).
The sum of all, masked item prediction with weight 1, is minimised. Then the model is fine-tuned as SASRec: causal attention, next
item; neither that nor prediction reads attributes.
Different from the paper:
  - masked items are told from the whole catalogue (a full softmax), not from drawn negatives, and segments from those of all
    other rows of the batch (the authors' code draws one negative item and one negative segment);
  - attributes are told by binary cross-entropy over all of them, as in the authors' code; Eq. 10 and 14 are InfoNCE with the
    attributes that the item does not have. Otherwise this is the paper where the code differs from it: there is no bias beside
    W (Eq. 11, 15), and associated attribute prediction reads e_i (Eq. 11; the code: the state at the item's place). Items without
    a known attribute take no part (in the code all attributes are wrong for them);
  - each objective is a mean over what it tells (masked items, segments, items; of an item's attributes the cross-entropies are
    summed). The authors' code takes the sum over a batch of each, so that the same weights weigh differently;
  - without attributes (data/meta.py says which sources have them) two of the four objectives are missing, and the paper's
    results, which are with all of them, are no reference;
  - pretraining reads training histories, as fine-tuning does: of a user's training part all but the last item, which is only a
    target. Validation and test items are in neither. It lasts 2 epochs by default (paper: 100; more was worse,
    see below);
  - Transformer block, initial weights and positions (counted from the end, in both stages) are those of sasrec.py.

Shapes: B rows with T history items in all; d = hidden_size.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

import torch
import torch.nn.functional as F
from torch import nn

from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.checks import at_least, share_below_one
from slmrec.encoders.attribute_prediction import AttributePrediction
from slmrec.encoders.encoder import OwnFlag
from slmrec.encoders.sasrec import SASRec
from slmrec.encoders.transformer import INITIAL_STD
from slmrec.ragged import places, row_ends

if TYPE_CHECKING:
    from slmrec.data.batches import SplitRows

ATTRIBUTE_TABLE = "attribute_prediction.attribute_embedding.weight"

logger = logging.getLogger(__name__)


class S3Rec(SASRec):
    """See the head of this file.

    Args:
        num_items, hidden_size, num_layers, num_heads, dropout, max_length: see `SASRec`.
        others: see their flags.

    How many attributes there are is known from the data alone, so `prepare` makes the weights that tell them, and loading takes
    their number from the file.
    """

    training_defaults = {
        "targets": "all",  # as SASRec
        "learning_rate": 1e-3,  # Zhou et al.
        "batch_size": 256,  # Zhou et al. for fine-tuning (200 for pretraining)
        # Our choice; Zhou et al.: up to 100. The best MRR on Scientific's validation part was 0.143 after 1, 0.145 after 2 and
        # 0.135 after 10 epochs (one seed).
        "pretrain_epochs": 2,
        "num_epochs": 100,  # as SASRec
        "patience": 5,  # as SASRec
        "weight_decay": 0.0,  # as SASRec
        "loss": "ce",  # as SASRec; Zhou et al.: pairwise with one negative. Pretraining has its own, see above
        "num_negatives": 1,  # counts for the other losses only
        "precision": "fp32",  # as SASRec
    }

    def __init__(
        self,
        num_items: int,
        hidden_size: int = 128,  # as SASRec; Zhou et al.: 64
        num_layers: int = 2,  # Zhou et al.
        num_heads: int = 2,  # Zhou et al.
        dropout: float = 0.5,  # as SASRec, and the authors' code
        max_length: int = 30,  # as SASRec; Zhou et al.: 50
        # Zhou et al.
        mask_probability: Annotated[float, OwnFlag("share of items masked in pretraining", share_below_one)] = 0.2,
        # Zhou et al., Section 5.1.4, beside 1.0 for masked items; those of attributes count where there are any
        segment_weight: Annotated[float, OwnFlag("weight of segment prediction in pretraining", at_least, 0)] = 0.5,
        associated_attribute_weight: Annotated[float, OwnFlag("weight of items' attributes, if any", at_least, 0)] = 0.2,
        masked_attribute_weight: Annotated[float, OwnFlag("weight of masked items' attributes, if any", at_least, 0)] = 1.0,
    ):
        super().__init__(num_items, hidden_size, num_layers, num_heads, dropout, max_length)
        self.mask_probability, self.segment_weight = mask_probability, segment_weight
        self.associated_attribute_weight, self.masked_attribute_weight = associated_attribute_weight, masked_attribute_weight
        self.mask_embedding = nn.Parameter(INITIAL_STD * torch.randn(hidden_size))
        self.item_projection = nn.Linear(hidden_size, hidden_size, bias=False)
        self.segment_projection = nn.Linear(hidden_size, hidden_size, bias=False)
        nn.init.eye_(self.item_projection.weight)  # pretraining starts with the product that fine-tuning scores with
        nn.init.normal_(self.segment_projection.weight, std=INITIAL_STD)
        self.attribute_prediction: AttributePrediction | None = None

    def prepare(self, rows: SplitRows) -> None:
        attributes = rows.dataset.attributes
        if attributes is None:
            logger.info("the data set has no attributes of items: s3rec is pretrained without the two attribute objectives")
            return
        ids, offsets = torch.from_numpy(attributes.ids).long(), torch.from_numpy(attributes.offsets)
        self.attribute_prediction = AttributePrediction(len(attributes.names), len(self.mask_embedding), ids, offsets)

    def pretraining_loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """`masked_item`, `segment` (0 where no row has two items), their weighted sum `total`; targets are not read.

        With attributes `associated_attribute` (0 where every item is masked) and `masked_attribute` too, which `total` includes.
        """
        history, lengths = batch["history"], batch["lengths"]
        masked, inside = self.draw_mask(lengths), draw_segments(lengths)
        hidden = torch.cat([masked, inside, ~inside])  # [3T] one pass for all three readings of the batch
        states = self.read_masked(history.repeat(3), lengths.repeat(3), hidden)
        cloze, context, segment = states.chunk(3)
        ends = row_ends(lengths)[lengths > 1]  # one item cannot be divided into a segment and a context
        item_loss = catalogue_cross_entropy(self.item_projection(cloze[masked]), self.item_matrix(), history[masked])
        segment_loss = contrast(self.segment_projection(context[ends]), segment[ends])
        terms = {"total": item_loss + self.segment_weight * segment_loss, "masked_item": item_loss, "segment": segment_loss}
        return self.with_attributes(terms, history, masked, cloze)

    def with_attributes(
        self, terms: dict[str, torch.Tensor], history: torch.Tensor, masked: torch.Tensor, cloze: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The terms and, where the data set has them, those of the attributes of items int64 [T].

        They are masked where bool [T]; `cloze` [T, d] are the states.
        """
        if self.attribute_prediction is None:
            return terms
        shown = history[~masked]
        associated = self.attribute_prediction.associated(self.item_embedding(shown), shown)
        of_masked = self.attribute_prediction.masked(cloze[masked], history[masked])
        weighted = self.associated_attribute_weight * associated + self.masked_attribute_weight * of_masked
        return terms | {"total": terms["total"] + weighted, "associated_attribute": associated, "masked_attribute": of_masked}

    def draw_mask(self, lengths: torch.Tensor) -> torch.Tensor:
        """Which items are masked for masked item prediction, bool [T]; the last of each row always is."""
        masked = torch.rand(int(lengths.sum()), device=lengths.device) < self.mask_probability
        masked[row_ends(lengths)] = True
        return masked

    def _load_from_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str, *rest) -> None:
        """Makes room for as many attributes as the file has."""
        table = state_dict.get(prefix + ATTRIBUTE_TABLE)
        if table is not None and self.attribute_prediction is None:
            self.attribute_prediction = AttributePrediction(*table.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


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
