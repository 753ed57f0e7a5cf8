"""What the recommenders that learn an embedding of each user share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from slmrec.encoders.encoder import Encoder

if TYPE_CHECKING:
    from slmrec.data.batches import SplitRows


class UserEncoder(Encoder):
    """A recommender with a `user_embedding`, which a subclass makes. A batch needs its `users` as well as its history.

    Attributes:
        trained_users: bool [U], part of the state; true for users with a training row, and for all before `prepare`.
    """

    knows_users = True
    user_embedding: nn.Embedding
    trained_users: torch.Tensor

    def __init__(self, num_users: int):
        super().__init__()
        self.register_buffer("trained_users", torch.ones(num_users, dtype=torch.bool))

    def prepare(self, rows: SplitRows) -> None:
        """Note who has a training row; the embeddings of the others stay as they were drawn and are not used."""
        self.trained_users.zero_()
        self.trained_users[torch.from_numpy(rows.users)] = True

    def user_vectors(self, users: torch.Tensor) -> torch.Tensor:
        """Embeddings [B, d] of users int64 [B], the mean of the trained ones for those without a training row, and for -1, which
        stands for a user whom the training data do not have."""
        known = users.clamp(min=0)
        vectors, trained = self.user_embedding(known), self.trained_users[known] & (users >= 0)
        if trained.all():
            return vectors
        mean = self.user_embedding.weight[self.trained_users].mean(0)
        return torch.where(trained.unsqueeze(1), vectors, mean)
