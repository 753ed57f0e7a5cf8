"""Caser: Tang and Wang, "Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding", WSDM 2018.

As in the paper (Section 3), the embeddings of the last L items are an image E [L, d] that filters are slid over:
  - a horizontal filter of height h, for each h = 1..L, takes in h consecutive items with all their features: the value at i is
    ReLU(sum(E[i : i + h] * F) + b), and the largest over i is kept; all filters together give o [n_h L];
  - a vertical filter is a weighted sum of the L items, E^T f, [d]; all of them together give o~ [n_v d];
  - z = ReLU(W [o; o~] + b), [d], with dropout on its input, describes the short term, the user's embedding P_u [d] the long term;
  - a fully connected layer scores the items from [z; P_u].
Different from the paper:
  - the last layer's matrix W' [N, 2d] is the product of the item embedding [N, d] and a linear layer [d, 2d], so that one table
    is input, output and what is handed on as the item embedding; there is no bias per item;
  - a target is the next item alone (T = 1; the paper also learns up to three items after the window, its skip behaviours);
  - a history shorter than L is filled up with zero vectors in front, and its targets are learnt too;
  - a user without a training row (three actions) gets the mean of the trained users' embeddings, the paper has no such users;
  - the loss is the training loop's (cross-entropy over all items by default); the paper's is --loss bce --num_negatives 3;
  - no L2 penalty by default; dropout also acts on the embeddings that are looked up, as user embeddings learn their few targets
    by heart;
  - one vertical filter starts as a sum of the L items and goes through W and W' unchanged, next to P_u, so that the model first
    predicts what resembles the latest items. With torch's initial weights and no dropout on embeddings the best MRR on
    Scientific's validation part was below 0.07 where now it is 0.118 (one seed).

Shapes: B rows with T history items in all, of which P positions are predicted from; L = max_length, d = hidden_size,
n_h horizontal filters of each height, n_v vertical ones.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import nn

from slmrec.checks import at_least
from slmrec.encoders.encoder import OwnFlag
from slmrec.encoders.transformer import initialise
from slmrec.encoders.user_embedding import UserEncoder
from slmrec.ragged import places, row_ends

# Of each item in the filter that starts as a sum: brings embeddings that start with deviation 0.02 near the unit scale of a
# hidden state. Our choice; with 0.2 Caser learnt more slowly and less.
ITEM_WEIGHT = 4.0


class Caser(UserEncoder):
    """See the head of this file.

    Args:
        num_items: N.
        num_users: U; users are 0..U - 1.
        hidden_size: d.
        num_horizontal_filters: n_h, of each height 1..L.
        num_vertical_filters: n_v.
        dropout: on the filters' outputs and on the item and user embeddings that are looked up.
        max_length: L, how many of the latest items are read.
    """

    training_defaults = {
        "targets": "all",  # Tang and Wang, Section 3: a window at every position
        "learning_rate": 1e-3,  # released code of Tang and Wang
        "batch_size": 256,  # as SASRec, users with all their windows; released code of Tang and Wang: 512 windows
        "num_epochs": 100,  # as SASRec
        "patience": 5,  # as SASRec
        "weight_decay": 0.0,  # our choice; released code of Tang and Wang: 1e-6
        "loss": "ce",  # as SASRec; Tang and Wang, Section 3: bce with three negatives
        "num_negatives": 3,  # Tang and Wang; counts for the other losses only
        "precision": "fp32",  # as SASRec
    }

    def __init__(
        self,
        num_items: int,
        num_users: int,
        hidden_size: int = 128,  # as SASRec; released code of Tang and Wang: 50
        # Released code of Tang and Wang, both
        num_horizontal_filters: Annotated[int, OwnFlag("filters of each height", at_least, 1)] = 16,
        num_vertical_filters: Annotated[int, OwnFlag("filters over the last items", at_least, 1)] = 4,
        dropout: float = 0.5,  # Tang and Wang, Section 3, and their released code
        max_length: int = 5,  # released code of Tang and Wang (their L)
    ):
        super().__init__(num_users)
        self.max_length = max_length
        self.item_embedding = nn.Embedding(num_items + 1, hidden_size, padding_idx=0)
        self.user_embedding = nn.Embedding(num_users, hidden_size)
        self.horizontal = nn.ModuleList(
            nn.Conv1d(hidden_size, num_horizontal_filters, height) for height in range(1, max_length + 1)
        )
        self.vertical = nn.Linear(max_length, num_vertical_filters, bias=False)
        self.dropout = nn.Dropout(dropout)
        num_features = num_horizontal_filters * max_length + num_vertical_filters * hidden_size
        features_to_short_term = nn.Linear(num_features, hidden_size)
        self.short_term = nn.Sequential(features_to_short_term, nn.ReLU())
        self.output_layer = nn.Linear(2 * hidden_size, hidden_size)
        self.item_embedding.apply(initialise)
        self.user_embedding.apply(initialise)
        self.pass_on_items(features_to_short_term.weight)

    def pass_on_items(self, short_term: torch.Tensor) -> None:
        """Let the first vertical filter's features and the user's vector reach the output as they are."""
        identity, num_vertical_filters = torch.eye(self.user_embedding.embedding_dim), len(self.vertical.weight)
        with torch.no_grad():
            self.vertical.weight[0] = ITEM_WEIGHT
            first_filter = short_term[:, -num_vertical_filters * len(identity) :: num_vertical_filters]  # [d, d]
            first_filter.copy_(identity)
            self.output_layer.weight.copy_(identity.repeat(1, 2))

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        windows = latest_items(batch["history"], batch["lengths"], self.max_length)
        return self.predict(windows[row_ends(batch["lengths"])], self.user_vectors(batch["users"]))

    def encode_positions(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        windows = latest_items(batch["history"], batch["lengths"], self.max_length)
        return self.predict(windows, self.user_vectors(batch["users"]).repeat_interleave(batch["lengths"], dim=0))

    def predict(self, windows: torch.Tensor, users: torch.Tensor) -> torch.Tensor:
        """Vectors float32 [P, d] from the last items int64 [P, L] and user vectors [P, d]."""
        image = self.dropout(self.item_embedding(windows)).transpose(1, 2)  # [P, d, L]
        horizontal = [conv(image).relu().amax(2) for conv in self.horizontal]  # L times [P, n_h]
        vertical = self.vertical(image).flatten(1)  # [P, d * n_v]
        features = self.dropout(torch.cat([*horizontal, vertical], dim=1))
        return self.output_layer(torch.cat([self.short_term(features), self.dropout(users)], dim=1))


def latest_items(history: torch.Tensor, lengths: torch.Tensor, number: int) -> torch.Tensor:
    """For each position of rows that lie back to back [T], its row's last `number` items up to it, int64 [T, number].

    The latest item stands last; places before the row's first item hold PAD (0).
    """
    back = torch.arange(1 - number, 1, device=history.device)  # [number]
    index = torch.arange(len(history), device=history.device).unsqueeze(1) + back  # [T, number]
    return history[index.clamp(min=0)] * (places(lengths).unsqueeze(1) + back >= 0)
