"""Where the student's objective gets the teacher's states from."""

from __future__ import annotations

import torch

from slmrec.llm.backbone import plain_backbone
from slmrec.llm.recommender import EllmRecommender


class FrozenTeacher:
    """Offline distillation (Section 3): a trained teacher in eval mode that never gets a gradient.

    It is not a module of the student, so it is neither trained nor saved with it.
    """

    def __init__(self, model: EllmRecommender, layers: tuple[int, ...]):
        self.model = model.eval().requires_grad_(False)
        self.layers = layers

    def to(self, device: torch.device) -> FrozenTeacher:
        self.model.to(device)
        return self

    @torch.no_grad()
    def block_states(self, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """The states at the end of each block, one [n, d1] per block."""
        dtype = plain_backbone(self.model.backbone).dtype
        with torch.autocast(batch["history"].device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            states = self.model(batch, layers=self.layers).states  # the Trainer's autocast covers the student's forward pass only
        return [states[layer] for layer in self.layers]
