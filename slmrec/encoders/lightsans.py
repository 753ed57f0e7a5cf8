"""LightSANs: Fan et al., "Lighter and Better: Low-Rank Decomposed Self-Attention Networks for Next-Item Recommendation",
SIGIR 2021.

SASRec's Transformer with another attention. With queries Q, keys K, values V (projections of the states H, [n, d] each):
  - item-to-interest aggregation: the items are summed up by k latent interests, f(X) = softmax(X Theta)' X, [k, d], the softmax
    running over the n items; Theta is [d, k], one for keys and one for values;
  - item-to-interest interaction: softmax(Q f(K)' / sqrt(d / H)) f(V), in H heads: each item attends to k interests, not n items;
  - decoupled positions: the position embedding P is not added to the items but attends on its own,
    softmax(P Wq (P Wk)' / sqrt(d / H)) V, and the two results are added.
Different from the paper:
  - everything is causal. The paper's aggregation mixes all items of a sequence, so that a model trained at every position would
    have read its targets; here position t has interests of its own, the softmax of f running over items 1..t. That equals the
    paper's model on items 1..t where there is one layer; with more, the lower layers too see at each item only what came before
    it, as in SASRec. In exchange one pass trains all positions (the authors' code makes each prefix a sequence of its own);
  - so the cost is n^2 k, not n k; at 30 items this is less than that of the projections;
  - attention is normalised over what is attended to, as the paper writes it; the authors' code normalises over the queries;
  - positions count from the end, and padding takes part nowhere; dropout acts on the weights of both attentions;
  - block, input normalisation and initial weights are SASRec's; Theta starts from deviation 1, as in the authors' code, so that
    the interests differ from the start.

Shapes: B rows with T history items in all, packed into R rows of W slots; d = hidden_size, H heads, k interests, L = max_length.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from slmrec.checks import at_least
from slmrec.encoders.encoder import Encoder, OwnFlag
from slmrec.encoders.transformer import Block, initialise
from slmrec.packing import Packing, pack_rows
from slmrec.ragged import places_from_end


class LightSANs(Encoder):
    """See the head of this file.

    Args:
        num_items: N.
        hidden_size: d.
        num_layers: self-attention blocks.
        num_heads: H; must divide d.
        num_interests: k.
        dropout: on the input, the attention weights and the output of both sub-layers.
        max_length: L, how many of the latest items are read.
    """

    training_defaults = {
        "targets": "all",  # Fan et al. train on every prefix
        "learning_rate": 1e-3,  # as SASRec; Fan et al.: 0.003 with batches of 1024
        "batch_size": 256,  # as SASRec
        "num_epochs": 100,  # as SASRec
        "patience": 5,  # as SASRec
        "weight_decay": 0.0,  # as SASRec
        "loss": "ce",  # Fan et al.
        "num_negatives": 1,  # counts for the other losses only
        "precision": "fp32",  # as SASRec
    }

    def __init__(
        self,
        num_items: int,
        hidden_size: int = 128,  # as SASRec; Fan et al.: 64
        num_layers: int = 2,  # Fan et al.
        num_heads: int = 2,  # Fan et al.
        # Default of the authors' code; Fan et al.: 10 to 20 for sequences of 100 to 200 items
        num_interests: Annotated[int, OwnFlag("rank of the decomposed attention", at_least, 1)] = 5,
        dropout: float = 0.5,  # Fan et al., for their sparse data sets
        max_length: int = 30,  # as SASRec
    ):
        super().__init__()
        self.max_length = max_length
        self.item_embedding = nn.Embedding(num_items + 1, hidden_size, padding_idx=0)
        self.position_embedding = nn.Embedding(max_length, hidden_size)
        self.input_norm = nn.LayerNorm(hidden_size)
        self.position_norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(LightBlock(hidden_size, num_heads, num_interests, dropout) for _ in range(num_layers))
        self.apply(initialise)

    def encode_positions(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        lengths = batch["lengths"]
        packing = pack_rows(lengths.cpu(), self.max_length, lengths.device)
        mask = packing.causal_mask().unsqueeze(1)  # [R, 1, W, W]
        positions = packing.pack(places_from_end(lengths))  # [R, W]
        table = self.position_norm(self.position_embedding.weight)  # [L, d]
        states = self.dropout(self.input_norm(self.item_embedding(batch["history"])))  # [T, d]
        for block in self.blocks:
            states = block(states, packing, mask, positions, table)
        return states


class LightBlock(Block):
    """SASRec's block with low-rank attention among items and a separate attention among positions."""

    def __init__(self, hidden_size: int, num_heads: int, num_interests: int, dropout: float):
        super().__init__(hidden_size, num_heads, dropout)
        self.key_interests = nn.Parameter(torch.randn(hidden_size, num_interests))  # Theta
        self.value_interests = nn.Parameter(torch.randn(hidden_size, num_interests))
        self.position_query_key = nn.Linear(hidden_size, 2 * hidden_size)

    def forward(  # type: ignore[override]  # only LightSANs runs it, and knows that it needs positions beside a block's arguments
        self, states: torch.Tensor, packing: Packing, mask: torch.Tensor, positions: torch.Tensor, table: torch.Tensor
    ) -> torch.Tensor:
        query, key, value = packing.pack(self.query_key_value(states)).chunk(3, dim=-1)  # [R, W, d] each
        position_query, position_key = self.position_query_key(table)[positions].chunk(2, dim=-1)  # [R, W, d] each
        attended = self.attend_items(query, key, value, mask) + self.attend_positions(position_query, position_key, value, mask)
        output = self.attention_output(packing.unpack(attended))
        states = self.attention_norm(states + self.dropout(output))
        return self.feed_forward_norm(states + self.dropout(self.feed_forward(states)))

    def attend_items(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Each slot attends to the interests of what stands before it and itself, [R, W, d]."""
        keys = self.by_head(aggregate(key, self.key_interests, mask)).permute(0, 2, 3, 1, 4)  # [R, W, H, k, d/H]
        values = self.by_head(aggregate(value, self.value_interests, mask)).permute(0, 2, 3, 1, 4)
        queries = self.by_head(query).unsqueeze(3)  # [R, W, H, 1, d/H]
        return F.scaled_dot_product_attention(queries, keys, values, dropout_p=self.attention_dropout()).flatten(2)

    def attend_positions(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Each slot attends to itself and the slots before it by where they stand alone, [R, W, d]."""
        query, key, value = (self.by_head(part).transpose(1, 2) for part in (query, key, value))  # [R, H, W, d/H] each
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=self.attention_dropout())
        return attended.transpose(1, 2).flatten(2)

    def by_head(self, states: torch.Tensor) -> torch.Tensor:
        """[..., d] -> [..., H, d/H]."""
        return states.unflatten(-1, (self.num_heads, -1))

    def attention_dropout(self) -> float:
        return self.dropout.p if self.training else 0.0


def aggregate(states: torch.Tensor, interests: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Item-to-interest aggregation at every slot over the slots that it may see.

    Args:
        states: [R, W, d].
        interests: Theta, [d, k].
        mask: bool [R, 1, W, W], true where a slot (third dimension) may see another (fourth).

    Returns:
        [R, k, W, d], for each slot the k weighted means of the states that it sees.
    """
    logits = (states @ interests).transpose(1, 2).unsqueeze(2)  # [R, k, 1, W]
    weights = logits.masked_fill(~mask, float("-inf")).softmax(-1)  # [R, k, W, W]
    return weights @ states.unsqueeze(1)
