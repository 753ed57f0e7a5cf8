"""A reference without any training: the items whose texts are nearest to that of the last item in the history.

score(j | last item i) = cosine of the vectors of j and i, which --text gives it (with --text_exponent 1, those of the texts less
their mean; smaller exponents give rarer directions more weight).
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from slmrec.encoders.encoder import Encoder


class Nearest(Encoder):
    """See the head of this file.

    Args:
        num_items: N.
        hidden_size: d, how many directions of the texts are kept; at most as many as they have count.
    """

    needs_text: ClassVar[bool] = True
    max_length = 1

    def __init__(self, num_items: int, hidden_size: int = 384):
        super().__init__()
        self.item_embedding = nn.Embedding.from_pretrained(torch.zeros(num_items + 1, hidden_size))  # frozen

    def item_matrix(self) -> torch.Tensor:
        return F.normalize(self.item_embedding.weight, dim=1)

    def encode_positions(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return F.normalize(self.item_embedding(batch["history"]), dim=1)
