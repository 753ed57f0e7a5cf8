"""Where the student's objective gets the teacher's signals from: a frozen teacher, or one that is trained along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from slmrec.catalogue_loss import ItemLoss, catalogue_cross_entropy
from slmrec.llm.backbone import plain_backbone
from slmrec.llm.ellmrec import EllmRecommender, Encoded


@dataclass
class TeacherSignals:
    """What a teacher says about a batch of n read positions.

    Attributes:
        blocks: its states at the end of each block, one [n, d1] per block.
        users: float32 [n, d0], its user vectors; None where only states are kept.
        attention: float32 [n, H, A], its last layer's attention weights; None unless asked for.
        loss: its own next-item loss, where it is trained along with the student.
    """

    blocks: list[torch.Tensor]
    users: torch.Tensor | None = None
    attention: torch.Tensor | None = None
    loss: torch.Tensor | None = None


class Teacher(Protocol):
    """What the objective needs of a teacher, however it gets its signals.

    Attributes:
        learns: whether it is trained along, and so asked even where no term compares anything with it.
    """

    learns: bool

    def signals(self, batch: dict[str, torch.Tensor], attention: bool = False) -> TeacherSignals:
        """Its signals for one batch of training rows."""


class FrozenTeacher:
    """Offline distillation (Section 3): a trained teacher in eval mode that never gets a gradient.

    It is not a module of the student, so it is neither trained nor saved with it. With exact encoding its prompt is computed once
    for all batches.
    """

    learns = False

    def __init__(self, model: EllmRecommender, layers: tuple[int, ...]):
        self.model = model.eval().requires_grad_(False)
        self.model.final = True
        self.layers = layers

    def to(self, device: torch.device) -> FrozenTeacher:
        self.model.to(device)
        return self

    @torch.no_grad()
    def signals(self, batch: dict[str, torch.Tensor], attention: bool = False) -> TeacherSignals:
        with _computing_in(plain_backbone(self.model.backbone).dtype, batch):
            return _signals(self.model(batch, layers=self.layers, attention=attention), self.layers)


class LearningTeacher:
    """Online distillation (Section 5.3, RQ4): an untrained teacher that learns beside its student.

    As in the released code it minimises its own next-item loss, and the terms that compare it with the student move it too.
    `dtype` is what both are computed in: float32, or bfloat16, mixed.
    """

    learns = True

    def __init__(
        self,
        model: EllmRecommender,
        layers: tuple[int, ...],
        item_loss: ItemLoss = catalogue_cross_entropy,
        dtype: torch.dtype = torch.float32,
    ):
        self.model, self.layers, self.item_loss, self.dtype = model, layers, item_loss, dtype

    def signals(self, batch: dict[str, torch.Tensor], attention: bool = False) -> TeacherSignals:
        with _computing_in(self.dtype, batch):
            encoded = self.model(batch, layers=self.layers, attention=attention)
        signals = _signals(encoded, self.layers)
        signals.loss = self.item_loss(encoded.users, encoded.items, batch["targets"])
        return signals


def _computing_in(dtype: torch.dtype, batch: dict[str, torch.Tensor]) -> torch.autocast:
    """For a teacher's forward pass: the Trainer's autocast covers the student only."""
    return torch.autocast(batch["history"].device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def _signals(encoded: Encoded, layers: tuple[int, ...]) -> TeacherSignals:
    return TeacherSignals([encoded.states[layer] for layer in layers], encoded.users, encoded.attention)
