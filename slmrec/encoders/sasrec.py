"""SASRec: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018 (equation numbers below are theirs).

As in the paper: item embedding plus learned position (Eq. 1), causal self-attention (Eq. 2-3) and a position-wise feed-forward
network (Eq. 4) with residual connections and dropout (Eq. 5), and the same item embedding for input and score (Eq. 6).
Different from the paper:
  - layer normalisation stands after each residual sum, as in the original Transformer, and on the input, not before each
    sub-layer (Eq. 5); the feed-forward network is 4d wide with GELU, not d wide with ReLU. On Beauty's validation part this
    reaches MRR 0.158 after 6 epochs where the paper's form stands at 0.115, everything else alike (one seed);
  - weights start from a normal distribution with deviation 0.02, some as identities (transformer.py), and the embedding is not
    multiplied by sqrt(d);
  - the loss is the training loop's (cross-entropy over all items by default), not binary with one negative;
  - positions count from the end of the history (the last item is position 0), which is what left padding does.

Shapes: d = hidden_size, H heads.
"""

from __future__ import annotations

import torch
from torch import nn

from slmrec.encoders.transformer import Block, SelfAttentive, initialise


class SASRec(SelfAttentive):
    """See the head of this file.

    Args:
        num_items: N.
        hidden_size: d.
        num_layers: self-attention blocks.
        num_heads: H; must divide d.
        dropout: on the input, the attention weights and the output of both sub-layers.
        max_length: how many of the latest items are read.
    """

    training_defaults = {
        "targets": "all",  # Kang and McAuley, Section 3.5 (their Eq. 7 sums over positions)
        "learning_rate": 1e-3,  # Kang and McAuley, Section 4.2; released code (2025)
        "batch_size": 256,  # paper, Table 5
        "num_epochs": 100,  # a bound that early stopping is not meant to reach: 15 epochs on Beauty, the best after 10
        "patience": 5,  # our choice
        "weight_decay": 0.0,  # none in Kang and McAuley
        "loss": "ce",  # paper, Section 2 (Klenitskiy and Vasilev 2023); Kang and McAuley: bce with one negative
        "num_negatives": 1,  # counts for the other losses only
        "precision": "fp32",  # our choice; bf16 is mixed precision
    }

    def __init__(
        self,
        num_items: int,
        hidden_size: int = 128,  # paper, Section 5.1
        num_layers: int = 2,  # paper, Section 5.1
        num_heads: int = 2,  # our choice, as is usual in re-implementations; not tuned
        dropout: float = 0.5,  # Kang and McAuley, Section 4.2, for their sparse Amazon data sets
        max_length: int = 30,  # released code, which feeds the LLM 30 items
    ):
        super().__init__()
        self.max_length = max_length
        self.item_embedding = nn.Embedding(num_items + 1, hidden_size, padding_idx=0)
        self.position_embedding = nn.Embedding(max_length, hidden_size)
        self.input_norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads, dropout) for _ in range(num_layers))
        self.apply(initialise)

    def encode_positions(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.run_blocks(self.item_embedding(batch["history"]), batch["lengths"])[-1]
