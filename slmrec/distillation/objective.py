"""The student's objective (paper, Eq. 6): next-item loss plus the distillation terms, each under its own name."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from slmrec.catalogue_loss import ItemLoss, catalogue_cross_entropy, catalogue_divergence
from slmrec.distillation import losses
from slmrec.distillation.arguments import DISTILLATION_TERMS, DistillationArguments
from slmrec.distillation.teacher import Teacher, TeacherSignals
from slmrec.llm.ellmrec import Encoded, ForwardPass

Terms = dict[str, torch.Tensor]


@dataclass
class DistillationObjective:
    """Eq. 6 as `objective(model, batch) -> named terms`.

    Attributes:
        teacher: gives the teacher's signals of a batch.
        layers: the student's layers that are compared with the teacher's (`alignment.block_ends`).
        arguments: the weights of the terms and the protocol.
        item_loss: of `ce` and of the supervised blocks.
    """

    teacher: Teacher
    layers: tuple[int, ...]
    arguments: DistillationArguments
    item_loss: ItemLoss = catalogue_cross_entropy

    def __call__(self, model: ForwardPass, batch: dict[str, torch.Tensor]) -> Terms:
        """Scalars: `ce`, unweighted those terms whose weight is above zero, and `loss`, the weighted sum.

        With a teacher that learns, `teacher_ce` is its own next-item loss, part of the sum with weight 1.
        """
        encoded = model(batch, layers=self.layers, attention=self._weighted("attention"))
        terms = {"ce": self.item_loss(encoded.users, encoded.items, batch["targets"])}
        if self._weighted("ms"):
            terms["ms"] = self._supervision_term(encoded, batch)
        if self.teacher.learns or any(self._weighted(name) for name in DISTILLATION_TERMS if name != "ms"):
            terms |= self._teacher_terms(encoded, self.teacher.signals(batch, attention=self._weighted("attention")))
        weighted = [self._weight(name) * term for name, term in terms.items()]
        return terms | {"loss": sum(weighted[1:], start=weighted[0])}

    def _weight(self, name: str) -> float:
        return getattr(self.arguments, f"lambda_{name}") if name in DISTILLATION_TERMS else 1.0

    def _weighted(self, name: str) -> bool:
        return self._weight(name) > 0

    def _teacher_terms(self, encoded: Encoded, signals: TeacherSignals) -> Terms:
        """The terms that compare student and teacher; only those with a weight are computed."""
        teacher, student = self._compared_blocks(encoded, signals)
        released, arguments = self.arguments.protocol == "released", self.arguments
        cosine_gap = losses.summed_cosine_gap if released else lambda *blocks: 1 - losses.mean_cosine(*blocks)
        distance = losses.summed_distance if released else losses.mean_squared_distance
        computed = {
            "cos": lambda: cosine_gap(teacher, student),
            "norm": lambda: distance(teacher, student),
            "logits": lambda: catalogue_divergence(given(signals.users), encoded.users, encoded.items, arguments.temperature),
            "attention": lambda: losses.attention_divergence(given(signals.attention), given(encoded.attention)),
            "contrastive": lambda: losses.contrastive_loss(teacher, student, arguments.contrastive_temperature),
        }
        terms = {} if signals.loss is None else {"teacher_ce": signals.loss}
        return terms | {name: term() for name, term in computed.items() if self._weighted(name)}

    def _compared_blocks(self, encoded: Encoded, signals: TeacherSignals) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Teacher's and student's states at the end of every block that is compared."""
        compared = len(self.layers) if self.arguments.distill_last_block else len(self.layers) - 1
        ours = encoded.states | encoded.projected
        return signals.blocks[:compared], [ours[layer] for layer in self.layers[:compared]]

    def _supervision_term(self, encoded: Encoded, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The term of Eq. 5 over blocks 1..B-1; a missing adapter is a KeyError, never a missing term."""
        block_losses = [self.item_loss(encoded.block_users[layer], encoded.items, batch["targets"]) for layer in self.layers[:-1]]
        return (losses.summed_loss if self.arguments.protocol == "released" else losses.mean_loss)(block_losses)


def given(signal: torch.Tensor | None) -> torch.Tensor:
    """What a term compares must be there: an enabled term is never left out."""
    assert signal is not None
    return signal
