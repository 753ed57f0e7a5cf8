"""BERT4Rec: Sun, Liu, Wu, Pei, Lin, Ou and Jiang, "BERT4Rec: Sequential Recommendation with Bidirectional Encoder
Representations from Transformer", CIKM 2019.

As in the paper: item embedding plus learned position (Section 3.4), Transformer blocks in which every slot looks at the whole
row (Section 3.3), and scores GELU(W_P h + b_P) . e_v from the state h of a masked slot and the same embedding e_v as the input's
(Section 3.5). Trained by the cloze task (Section 3.6): masked items are predicted from what stands on both sides of them; some
rows have their last item alone masked. To predict, a mask is put after the history.
The cloze sequence of a training row is its history and its last training target, at most max_length + 1 items: the same number
of slots, at the same positions, as a history and the mask after it.
Different from the paper:
  - each item is masked on its own with --mask_probability, anew in every epoch, and one at random where that leaves a row without
    any; the released code masks a fixed share of the items in ten copies of each row, drawn once, and adds a copy with the last
    item masked. Here a row takes part once an epoch, and --last_mask_share says how likely it is such a copy;
  - --targets last masks nothing but the last item of each row, which is one target per user;
  - a layer normalisation follows the GELU of the output, as in the released code; there is no bias per item (b_O);
  - positions count from the end: the mask after a history stands at position 0;
  - W_P starts as the identity, like what leads to it (transformer.py): all that a masked slot knows of the items goes through
    them;
  - Adam with a constant learning rate and no weight decay, in the place of warm-up, linear decay and 0.01;
  - the loss over the masked items is the training loop's, by default cross-entropy over all items as in the paper, averaged over
    the masked items of the batch, not first over those of each row.

Shapes: B rows with T history items in all, S = T + B slots with the masked or target item after each history; d = hidden_size.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import nn

from slmrec.checks import share_below_one
from slmrec.encoders.encoder import ItemLoss, OwnFlag
from slmrec.encoders.transformer import INITIAL_STD, Block, SelfAttentive, initialise
from slmrec.ragged import row_ends, row_numbers


class BERT4Rec(SelfAttentive):
    """See the head of this file. It has no `encode_positions`: a slot that sees its whole row predicts no next item.

    Args:
        num_items: N.
        hidden_size: d.
        num_layers: Transformer blocks.
        num_heads: must divide d.
        dropout: on the input, the attention weights and the output of both sub-layers.
        max_length: how many of the latest items are read.
        mask_probability, last_mask_share: see their flags.
    """

    training_defaults = {
        "targets": "all",  # Sun et al., Section 3.6: any item may be masked
        # Our choice; Sun et al.: 1e-4 for 400,000 steps. The best validation MRR was 0.162 on Beauty, 0.140 and 0.142 on
        # Scientific (two seeds); with 1e-3 it was 0.158, 0.133 and 0.135.
        "learning_rate": 5e-4,
        "batch_size": 256,  # Sun et al., implementation details
        "num_epochs": 100,  # as SASRec
        "patience": 5,  # as SASRec
        "weight_decay": 0.0,  # as SASRec; Sun et al.: 0.01, decoupled
        "loss": "ce",  # Sun et al., Section 3.6
        "num_negatives": 1,  # counts for the other losses only
        "precision": "fp32",  # as SASRec
    }

    def __init__(
        self,
        num_items: int,
        hidden_size: int = 128,  # as SASRec; released code of Sun et al. has 64, 128 and 256
        num_layers: int = 2,  # Sun et al., implementation details
        num_heads: int = 2,  # Sun et al., implementation details; their released code: 4 heads of 32
        dropout: float = 0.2,  # our choice; released code of Sun et al. for Beauty: 0.5 of hidden states, 0.2 of attention
        max_length: int = 30,  # as SASRec; released code of Sun et al. for Beauty: 50
        # Sun et al., mask proportion of Beauty, and their released code
        mask_probability: Annotated[float, OwnFlag("share of a row's items that are masked", share_below_one)] = 0.6,
        # Near 1 of 11 copies of a row in the released code; 0.8 was worse on Scientific
        last_mask_share: Annotated[float, OwnFlag("share of rows whose last item alone is masked", share_below_one)] = 0.1,
    ):
        super().__init__()
        self.max_length = max_length
        self.mask_probability, self.last_mask_share = mask_probability, last_mask_share
        self.item_embedding = nn.Embedding(num_items + 1, hidden_size, padding_idx=0)
        self.mask_embedding = nn.Parameter(INITIAL_STD * torch.randn(hidden_size))
        self.position_embedding = nn.Embedding(max_length + 1, hidden_size)
        self.input_norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads, dropout) for _ in range(num_layers))
        output_projection = nn.Linear(hidden_size, hidden_size)  # W_P
        self.output_layer = nn.Sequential(output_projection, nn.GELU(), nn.LayerNorm(hidden_size))
        self.apply(initialise)
        nn.init.eye_(output_projection.weight)

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        nothing_yet = torch.zeros_like(batch["lengths"])
        items, lengths = append(batch["history"], batch["lengths"], nothing_yet)
        masked = last_slots(lengths)
        return self.output_layer(self.read_masked(items, lengths, masked)[masked])

    def training_loss(self, batch: dict[str, torch.Tensor], targets: str, item_loss: ItemLoss) -> dict[str, torch.Tensor]:
        """The cloze task; with targets="last" each row's one target is its masked last item."""
        last = batch["targets"] if targets == "last" else batch["targets"][row_ends(batch["lengths"])]  # [B]
        items, lengths = append(batch["history"], batch["lengths"], last)
        last_share = 1.0 if targets == "last" else self.last_mask_share
        masked = draw_masked(lengths, self.mask_probability, last_share)
        vectors = self.output_layer(self.read_masked(items, lengths, masked)[masked])
        return {"total": item_loss(vectors, self.item_matrix(), items[masked])}


def append(history: torch.Tensor, lengths: torch.Tensor, last: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows back to back [T] with `last` [B] put after each: the items [S] and the new lengths [B]."""
    row = row_numbers(lengths)
    items = history.new_empty(len(history) + len(last))
    items[torch.arange(len(row), device=row.device) + row] = history
    items[row_ends(lengths + 1)] = last
    return items, lengths + 1


def last_slots(lengths: torch.Tensor) -> torch.Tensor:
    """True at the last of each row's slots, bool [S]."""
    slots = torch.zeros(int(lengths.sum()), dtype=torch.bool, device=lengths.device)
    slots[row_ends(lengths)] = True
    return slots


def draw_masked(lengths: torch.Tensor, probability: float, last_share: float) -> torch.Tensor:
    """Which slots are masked, bool [S], from torch's global generator.

    A share of the rows, `last_share`, has its last slot masked alone; in the others each slot is masked with `probability`, and
    where that leaves a row without any, one slot, each as likely as the others.
    """
    row = row_numbers(lengths)  # [S]
    drawn = torch.rand(len(row), device=row.device)
    smallest = torch.ones(len(lengths), device=row.device).scatter_reduce(0, row, drawn, "amin")  # [B]
    anywhere = drawn <= smallest.clamp(min=probability)[row]
    last_alone = (torch.rand(len(lengths), device=row.device) < last_share)[row]
    return torch.where(last_alone, last_slots(lengths), anywhere)
