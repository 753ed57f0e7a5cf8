"""HGN: Ma, Kang and Liu, "Hierarchical Gating Networks for Sequential Recommendation", KDD 2019.

In the paper's words, for a user u (embedding u, [d]) and the last L items (input embeddings e_1 .. e_L, [d] each):
  - feature gate: which features of an item pass, f_i = e_i * sigmoid(W1 e_i + W2 u + b), elementwise;
  - instance gate: how much of an item passes, a_i = sigmoid(w3 . f_i + (u W4)_i), W4 being [d, L]: one column per place;
  - average pooling of what passes: s = sum_i a_i f_i / sum_i a_i;
  - score of item j with an output embedding q_j: u . q_j + s . q_j + sum_i e_i . q_j (long-term, short-term, item to item).
All three terms are products with q_j, so the user vector is u + s + sum_i e_i. Input and output embeddings are separate tables,
as in the paper; the output table is what scores and what is handed on as the item embedding.
Different from the paper:
  - max pooling, its other choice, is left out; the average is divided by the sum of the gates, as in the authors' code;
  - a target has all the items before it as its window, at most max_length (30 by default; paper: 5) and padding nowhere; the
    paper predicts the 3 items after the window, here the next one;
  - the loss is the training loop's (cross-entropy over all items by default); the paper's is --loss bpr;
  - dropout on the embeddings that are looked up stands for the L2 penalty (paper: none, and 0.001);
  - a user without a training row (three actions) gets the mean of the trained users' embeddings, not a random vector;
  - embeddings start from a normal distribution with deviation 0.02, not 1 / d; there is no bias per item.

Shapes: B rows with T history items in all, packed into R rows of W = max_length slots; d = hidden_size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from slmrec.encoders.transformer import initialise
from slmrec.encoders.user_embedding import UserEncoder
from slmrec.packing import pack_rows


class HGN(UserEncoder):
    """See the head of this file.

    Args:
        num_items: N.
        num_users: U; users are 0..U - 1.
        hidden_size: d.
        dropout: on the item and user embeddings that are looked up.
        max_length: L, how many of the latest items are read.
    """

    training_defaults = {
        "targets": "all",  # Ma et al. slide their window over the whole training part
        "learning_rate": 1e-3,  # Ma et al.
        "batch_size": 256,  # as SASRec, in users; Ma et al.: 4096 windows
        "num_epochs": 100,  # as SASRec
        "patience": 5,  # as SASRec
        "weight_decay": 0.0,  # our choice; Ma et al.: 0.001, for bpr
        "loss": "ce",  # as SASRec, for like terms; Ma et al.: bpr
        "num_negatives": 1,  # counts for the other losses only
        "precision": "fp32",  # as SASRec
    }

    def __init__(
        self,
        num_items: int,
        num_users: int,
        hidden_size: int = 128,  # as SASRec; Ma et al.: 50
        dropout: float = 0.5,  # our choice, in place of their L2 penalty, as these data sets are sparse
        max_length: int = 30,  # as SASRec; Ma et al.: 5, with the 3 items after it as targets
    ):
        super().__init__(num_users)
        self.max_length = max_length
        self.item_embedding = nn.Embedding(num_items + 1, hidden_size, padding_idx=0)
        self.output_embedding = nn.Embedding(num_items + 1, hidden_size, padding_idx=0)
        self.user_embedding = nn.Embedding(num_users, hidden_size)
        self.feature_gate_item = nn.Linear(hidden_size, hidden_size)  # W1 and b
        self.feature_gate_user = nn.Linear(hidden_size, hidden_size, bias=False)  # W2
        self.instance_gate_item = nn.Linear(hidden_size, 1, bias=False)  # w3
        self.instance_gate_user = nn.Linear(hidden_size, max_length, bias=False)  # W4; column 0 is the last item's
        self.dropout = nn.Dropout(dropout)
        for table in (self.item_embedding, self.output_embedding, self.user_embedding):
            table.apply(initialise)

    def item_matrix(self) -> torch.Tensor:
        return self.output_embedding.weight

    def item_tables(self) -> list[nn.Embedding]:
        return [self.item_embedding, self.output_embedding]

    def encode_positions(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        lengths = batch["lengths"]
        packing = pack_rows(lengths.cpu(), self.max_length, lengths.device)
        mask = packing.causal_mask()  # [R, W, W]
        users = self.dropout(self.user_vectors(batch["users"]))  # [B, d]
        items = self.dropout(self.item_embedding(batch["history"]))  # [T, d]
        gate = self.feature_gate_item(items) + self.feature_gate_user(users).repeat_interleave(lengths, dim=0)
        gated = items * gate.sigmoid()  # [T, d]
        item_part = packing.pack(self.instance_gate_item(gated).squeeze(1)).unsqueeze(1)  # [R, 1, W]
        user_part = packing.pack(self.instance_gate_user(users).repeat_interleave(lengths, dim=0))  # [R, W, W]
        weights = gate_weights(item_part + by_distance(user_part), mask)  # [R, W, W]
        short_term = weights @ packing.pack(gated)  # [R, W, d]
        item_to_item = mask.to(items.dtype) @ packing.pack(items)  # [R, W, d]
        return packing.unpack(short_term + item_to_item) + users.repeat_interleave(lengths, dim=0)


def by_distance(parts: torch.Tensor) -> torch.Tensor:
    """From [R, W, L = W], where entry (t, k) is for the item k places before slot t, to [R, W, W], where (t, j) is for slot j.

    Entries for slots after t are meaningless.
    """
    places = torch.arange(parts.shape[1], device=parts.device)
    distance = (places.unsqueeze(1) - places).clamp(min=0)  # [W, W]
    return parts.gather(2, distance.expand_as(parts))


def gate_weights(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """sigmoid(logits) / its sum over the last dimension, where the mask is true, and 0 elsewhere.

    Written as a softmax of log sigmoid, which is the same and cannot divide by a sum of vanished gates.
    """
    return F.logsigmoid(logits).masked_fill(~mask, float("-inf")).softmax(-1)
