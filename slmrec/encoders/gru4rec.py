"""GRU4Rec: Hidasi, Karatzoglou, Baltrunas and Tikk, "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016.

As in the paper (Section 3): the items of a history are read one after the other, x_t being the input for item t and h_0 = 0,
    update gate   z_t = sigmoid(W_z x_t + U_z h_{t-1})
    reset gate    r_t = sigmoid(W_r x_t + U_r h_{t-1})
    candidate     c_t = tanh(W x_t + U (r_t * h_{t-1}))
    state         h_t = (1 - z_t) h_{t-1} + z_t c_t
and the state after each item, through a feed-forward layer, scores every item as the next one.
Different from the paper:
  - x_t is a learnt embedding after layer normalisation, not a one-hot vector, and the same embedding scores: the feed-forward
    layer maps h_t, whose entries lie within -1 and 1, into the space of the items, and another layer normalisation follows;
  - the GRU is torch's: c_t = tanh(W x_t + r_t * (U h_{t-1})), biases, and 1 - z_t in the place of z_t;
  - W and the feed-forward layer start as identities, so that the first states are running means of what was read and the
    embeddings learn from the first step on. On Scientific's validation part the best MRR is 0.144 with all this, 0.137 without
    the second normalisation, 0.117 with the first one alone and 0.099 with none of it, everything else alike (one seed);
  - rows are whole histories cut to the latest `max_length` items, not sessions laid side by side across mini-batches; gradients
    flow through all of them;
  - the loss is the training loop's (cross-entropy over all items by default), not BPR or TOP1 against the items of the batch;
    the optimiser is Adam, not Adagrad.

Shapes: B rows with T history items in all; d = hidden_size.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from slmrec.encoders.encoder import Encoder
from slmrec.encoders.transformer import initialise
from slmrec.ragged import places, row_ends, row_numbers


class GRU4Rec(Encoder):
    """See the head of this file.

    Args:
        num_items: N.
        hidden_size: d, of the item embedding and of the GRU's state.
        num_layers: GRU layers, each reading the states of the one below.
        dropout: on the normalised embeddings, between GRU layers and on the last layer's states.
        max_length: how many of the latest items are read.
    """

    training_defaults = {
        "targets": "all",  # Hidasi et al., Section 3: the output after each item is the next one
        "learning_rate": 1e-3,  # our choice, for Adam
        "batch_size": 256,  # as SASRec
        "num_epochs": 100,  # as SASRec
        "patience": 5,  # as SASRec
        "weight_decay": 0.0,  # as SASRec
        "loss": "ce",  # as SASRec; Hidasi et al.: bpr and top1
        "num_negatives": 1,  # counts for the other losses only
        "precision": "fp32",  # as SASRec
    }

    def __init__(
        self,
        num_items: int,
        hidden_size: int = 128,  # as SASRec; Hidasi et al., Section 4.2: 100 units
        num_layers: int = 1,  # Hidasi et al., Section 4.2: more layers did not help
        dropout: float = 0.5,  # our choice, as SASRec; Hidasi et al., Table 2: 0 to 0.5 by loss and data set
        max_length: int = 30,  # as SASRec
    ):
        super().__init__()
        self.max_length = max_length
        self.item_embedding = nn.Embedding(num_items + 1, hidden_size, padding_idx=0)
        self.input_norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)
        between = dropout if num_layers > 1 else 0.0  # torch warns about dropout between the layers of one
        self.gru = nn.GRU(hidden_size, hidden_size, num_layers, dropout=between)
        self.output_layer = nn.Linear(hidden_size, hidden_size)
        self.output_norm = nn.LayerNorm(hidden_size)
        self.item_embedding.apply(initialise)
        self.pass_on()

    def pass_on(self) -> None:
        """Make the candidate's W of every GRU layer and the output layer identities."""
        with torch.no_grad():
            for layer in range(self.gru.num_layers):
                nn.init.eye_(getattr(self.gru, f"weight_ih_l{layer}").chunk(3)[2])  # of reset, update and candidate
            nn.init.eye_(self.output_layer.weight)
            nn.init.zeros_(self.output_layer.bias)

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.predict(self.read(batch)[row_ends(batch["lengths"])])

    def encode_positions(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.predict(self.read(batch))

    def predict(self, states: torch.Tensor) -> torch.Tensor:
        """From states to the space of the items, [*, d] -> [*, d]."""
        return self.output_norm(self.output_layer(states))

    def read(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The top layer's state after each history item, float32 [T, d]."""
        order, running = time_major(batch["lengths"])
        items = self.dropout(self.input_norm(self.item_embedding(batch["history"])))  # [T, d]
        states = self.gru(PackedSequence(items[order], running))[0].data  # [T, d], in the order of `order`
        return self.dropout(torch.empty_like(states).index_copy(0, order, states))


def time_major(lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How rows that lie back to back become a sequence of steps without padding, as `PackedSequence` wants it.

    Returns:
        int64 [T]: first the first items of all rows, the longest row ahead, then their second items, and so on.
        int64 [longest row], on the CPU: how many rows have an item at each step.
    """
    time = places(lengths)  # [T]
    rank = lengths.argsort(descending=True, stable=True).argsort()  # [B]
    return (time * len(lengths) + rank[row_numbers(lengths)]).argsort(), torch.bincount(time).cpu()
