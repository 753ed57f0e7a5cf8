"""The student's objective (paper, Eq. 6): next-item loss plus the distillation terms, each under its own name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.config import DistillationArguments
from slmrec.distillation import losses
from slmrec.llm.recommender import EllmRecommender, Encoded


class Teacher(Protocol):
    """What the objective needs of a teacher, however it gets its states."""

    def block_states(self, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Its states at the end of each block, one [n, d1] per block."""


@dataclass
class DistillationObjective:
    """Eq. 6 as `objective(model, batch) -> named terms`.

    Attributes:
        teacher: gives the teacher's block states of a batch.
        layers: the student's layers that stand opposite them (`blocks.block_ends`).
        arguments: the weights lambda 1 to 3 and the protocol.
    """

    teacher: Teacher
    layers: tuple[int, ...]
    arguments: DistillationArguments

    def __call__(self, model: EllmRecommender, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Scalars: `ce`, unweighted those of `cos`, `norm` and `ms` whose weight is above zero, and `loss`, the weighted sum."""
        encoded = model(batch, layers=self.layers)
        terms = {"ce": catalogue_cross_entropy(encoded.users, encoded.items, batch["targets"])}
        terms |= self._feature_terms(encoded, batch)
        if self.arguments.lambda_ms > 0:
            terms["ms"] = self._supervision_term(encoded, batch)
        weights = {"ce": 1.0} | {name: getattr(self.arguments, f"lambda_{name}") for name in ("cos", "norm", "ms")}
        return terms | {"loss": sum(weights[name] * term for name, term in terms.items())}

    def _feature_terms(self, encoded: Encoded, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The terms of Eq. 3 and 4; the teacher is not asked when both weights are zero."""
        released = self.arguments.protocol == "released"
        if not (self.arguments.lambda_cos or self.arguments.lambda_norm):
            return {}
        compared = len(self.layers) if self.arguments.distill_last_block else len(self.layers) - 1
        teacher = self.teacher.block_states(batch)[:compared]
        student = [encoded.states[layer] for layer in self.layers[:compared]]
        terms = {}
        if self.arguments.lambda_cos:
            gap = losses.summed_cosine_gap if released else lambda ours, theirs: 1 - losses.mean_cosine(ours, theirs)
            terms["cos"] = gap(teacher, student)
        if self.arguments.lambda_norm:
            distance = losses.summed_distance if released else losses.mean_squared_distance
            terms["norm"] = distance(teacher, student)
        return terms

    def _supervision_term(self, encoded: Encoded, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The term of Eq. 5 over blocks 1..B-1; a missing adapter is a KeyError, never a missing term."""
        block_losses = [
            catalogue_cross_entropy(encoded.block_users[layer], encoded.items, batch["targets"]) for layer in self.layers[:-1]
        ]
        return (losses.summed_loss if self.arguments.protocol == "released" else losses.mean_loss)(block_losses)
