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

    def __init__(self, num_items: int, hidden_size: int, num_layers: int, num_heads: int, dropout: float, max_length: int):
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
