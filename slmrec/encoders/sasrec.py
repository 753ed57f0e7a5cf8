"""SASRec: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018 (equation numbers below are theirs).

As in the paper: item embedding plus learned position (Eq. 1), causal self-attention (Eq. 2-3) and a position-wise feed-forward
network (Eq. 4) with residual connections and dropout (Eq. 5), and the same item embedding for input and score (Eq. 6).
Different from the paper:
  - layer normalisation stands after each residual sum, as in the original Transformer, and on the input, not before each
    sub-layer (Eq. 5); the feed-forward network is 4d wide with GELU, not d wide with ReLU. On Beauty's validation part this
    reaches MRR 0.158 after 6 epochs where the paper's form stands at 0.115, everything else alike (one seed);
  - weights start from a normal distribution with deviation 0.02, and the embedding is not multiplied by sqrt(d);
  - the loss is the training loop's (cross-entropy over all items by default), not binary with one negative;
  - positions count from the end of the history (the last item is position 0), which is what left padding does.

Shapes: B rows with T history items in all, packed into R rows of W slots; d = hidden_size, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from slmrec.artifacts import InputError
from slmrec.encoders.encoder import Encoder
from slmrec.packing import Packing, pack_rows

INITIAL_STD = 0.02


class SASRec(Encoder):
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
        if hidden_size % num_heads:
            raise InputError(f"--hidden_size {hidden_size} cannot be divided among --num_heads {num_heads}")
        self.max_length = max_length
        self.item_embedding = nn.Embedding(num_items + 1, hidden_size, padding_idx=0)
        self.position_embedding = nn.Embedding(max_length, hidden_size)
        self.input_norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads, dropout) for _ in range(num_layers))
        self.apply(_initialise)

    def item_matrix(self) -> torch.Tensor:
        return self.item_embedding.weight

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        ends = batch["lengths"].cumsum(0) - 1
        return self.encode_positions(batch)[ends]

    def encode_positions(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        lengths = batch["lengths"]
        packing = pack_rows(lengths.cpu(), self.max_length, lengths.device)
        mask = packing.causal_mask().unsqueeze(1)  # [R, 1, W, W]
        ends = lengths.cumsum(0).repeat_interleave(lengths)
        positions = ends - 1 - torch.arange(len(ends), device=ends.device)  # [T] 0 at the last item of each row
        states = self.item_embedding(batch["history"]) + self.position_embedding(positions)  # [T, d]
        states = self.dropout(self.input_norm(states))
        for block in self.blocks:
            states = block(states, packing, mask)
        return states


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
