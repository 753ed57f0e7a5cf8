"""What an encoder, a conventional sequential recommender, adds to the Recommender contract: its settings and its training."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, get_args, get_type_hints

import torch
from torch import nn

from slmrec.catalogue_loss import ItemLoss
from slmrec.ragged import row_ends
from slmrec.recommender import Recommender

if TYPE_CHECKING:  # rows come in ready made: encoders do not depend on the data stage
    from slmrec.data.batches import SplitRows


class OwnFlag:
    """Makes a constructor argument a flag of its own: `weight: Annotated[float, OwnFlag("of ..", at_least, 0)] = 0.1`.

    The sizes that several encoders have need none, they stand in slmrec/encoders/arguments.py.

    Args:
        help: what it is, for `-h`.
        check: one of slmrec.checks, called with the flag's name, its value and the bounds.
    """

    def __init__(self, help: str, check: Callable[..., None], *bounds: float):
        self.help = help
        self.check = lambda name, value: check(name, value, *bounds)


class Encoder(Recommender):
    """A conventional sequential recommender whose item embeddings the LLM stages can read.

    Its constructor takes `num_items`, where it knows users `num_users`, and its settings, each of which is a flag of
    train_sr_trad.py: the default and where that comes from stand there, and nowhere else.

    A subclass makes `item_embedding` and implements `encode_positions`; where it cannot predict at every position, it overrides
    `encode`, and where it scores with other item vectors, `item_matrix`. A model with an objective of its own (cloze, contrastive
    terms, reconstruction) overrides `training_loss`, one that is pretrained adds `pretraining_loss`, and one that needs more of
    the training data than batches (a graph, other users' rows) `prepare`.

    Randomness of a forward pass must come from torch's global generator, which is what the training loop saves and restores.
    """

    training_defaults: ClassVar[dict[str, int | float | str]] = {}  # of the training flags; none: it counts and is not trained
    knows_users: ClassVar[bool] = False
    needs_text: ClassVar[bool] = False  # it knows of the items what is said of them, and nothing else
    item_embedding: nn.Embedding

    @classmethod
    def architecture_defaults(cls) -> dict[str, int | float]:
        """Its settings: every constructor argument but the numbers of items and users, with its default."""
        parameters = inspect.signature(cls).parameters.values()
        return {given.name: given.default for given in parameters if given.name not in ("num_items", "num_users")}

    @classmethod
    def own_flags(cls) -> dict[str, tuple[type, OwnFlag]]:
        """Type and description of those of its settings that are flags of its own."""
        hints = {name: get_args(hint) for name, hint in get_type_hints(cls.__init__, include_extras=True).items()}
        return {name: tuple(parts) for name, parts in hints.items() if parts and isinstance(parts[-1], OwnFlag)}

    def item_matrix(self) -> torch.Tensor:
        return self.item_embedding.weight

    def item_tables(self) -> list[nn.Embedding]:
        """The tables [N + 1, d] of item embeddings that are trained; what is known of the items beforehand enters here."""
        return [self.item_embedding]

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.encode_positions(batch)[row_ends(batch["lengths"])]

    def encode_positions(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """What the model predicts with after each history item, float32 [T, d]; later items do not influence earlier rows."""
        raise NotImplementedError(f"{type(self).__name__} has one prediction per user, not one per position")

    def prepare(self, rows: SplitRows) -> None:
        """Called once with all training rows before the first epoch, also when a run goes on after a kill."""

    def pretraining_loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The objective of the pretraining epochs as named scalars, among them `total`."""
        raise NotImplementedError(f"{type(self).__name__} is not pretrained")

    def training_loss(self, batch: dict[str, torch.Tensor], targets: str, item_loss: ItemLoss) -> dict[str, torch.Tensor]:
        """The objective of one training batch as named scalars, among them `total`, which is minimised.

        Args:
            batch: a batch of `slmrec.data.batches.SplitRows(dataset, "train", max_length, targets)`.
            targets: "all" (batch["targets"] is [T]) or "last" ([B]).
        """
        vectors = self.encode_positions(batch) if targets == "all" else self.encode(batch)
        return {"total": item_loss(vectors, self.item_matrix(), batch["targets"])}
