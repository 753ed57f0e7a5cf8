"""Noticing at the very step that training diverged: the loss is not finite, or far above where it started."""

from __future__ import annotations

import math

from slmrec.errors import InputError

FAR = 10.0  # times the loss of the first step, or of a model that knows nothing, whichever is more


class LossWatch:
    """Raises InputError at the first step whose loss shows that the run has diverged.

    Args:
        num_items: of the catalogue; a model that finds all of them alike has the cross-entropy log(num_items).
        learning_rate: for the message.
    """

    def __init__(self, num_items: int, learning_rate: float):
        self.learning_rate = learning_rate
        self.start, self._begun = math.log(num_items + 1), False

    def see(self, step: int, loss: float) -> None:
        """Look at the loss of a step; the first one is where the run starts."""
        self.see_finite(step, loss)
        if not self._begun:
            self.start, self._begun = max(self.start, loss), True
        if loss > FAR * self.start:
            raise self.diverged(step, f"the loss is {loss:.4g} and started at {self.start:.4g}")

    def see_finite(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise self.diverged(step, f"the loss is {loss}")

    def diverged(self, step: int, what: str) -> InputError:
        return InputError(
            f"training diverged at step {step} (learning rate {self.learning_rate:g}): {what}; lower --learning_rate"
        )
