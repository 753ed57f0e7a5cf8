"""The Transformer block and the initial weights that the self-attentive recommenders share.

Layer normalisation stands after each residual sum (Vaswani et al. 2017); the feed-forward network is 4d wide with GELU
(Devlin et al. 2019). What a slot may look at is the mask's matter: earlier slots in SASRec, the whole row in BERT4Rec.

Shapes: T items of all rows, packed into R rows of W slots; d = hidden_size, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from slmrec.packing import Packing

INITIAL_STD = 0.02


class Block(nn.Module):
    """Self-attention and feed-forward sub-layers, [T, d] -> [T, d]."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.attention_output = nn.Linear(hidden_size, hidden_size)
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.feed_forward = nn.Sequential(
            nn.Linear(hidden_size, 4 * hidden_size), nn.GELU(), nn.Linear(4 * hidden_size, hidden_size)
        )
        self.feed_forward_norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: torch.Tensor, packing: Packing, mask: torch.Tensor) -> torch.Tensor:
        states = self.attention_norm(states + self.dropout(self.attend(states, packing, mask)))
        return self.feed_forward_norm(states + self.dropout(self.feed_forward(states)))

    def attend(self, states: torch.Tensor, packing: Packing, mask: torch.Tensor) -> torch.Tensor:
        packed = packing.pack(self.query_key_value(states))  # [R, W, 3d]
        heads = packed.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [3, R, H, W, d/H]
        probability = self.dropout.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(*heads, attn_mask=mask, dropout_p=probability)  # [R, H, W, d/H]
        return self.attention_output(packing.unpack(attended.transpose(1, 2).flatten(2)))


def _initialise(module: nn.Module) -> None:
    """Small normal weights, zero biases and a zero PAD row."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx] = 0.0
