"""Where the scalars of a training run go: TensorBoard files, Weights & Biases, or nowhere.

The names are the same whatever is trained, by optimiser step: train/loss, train/loss_TERM for each term of an objective that has
several, train/learning_rate, train/epoch, and at each validation eval/MRR, eval/HR@10 ....
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from slmrec.errors import quiet_threads
from slmrec.progress import speaks


class RunLog:
    """Use it in a `with` block.

    Args:
        report_to: "none", "tensorboard" (files in `directory`/runs) or "wandb" (WANDB_PROJECT and the other variables count).
        step: the last optimiser step that was trained before; what an interrupted run wrote after it is hidden.
        config: of the run, for Weights & Biases.
    """

    def __init__(self, report_to: str, directory: Path, *, step: int = 0, config: Mapping[str, Any] | None = None):
        self._tensorboard = self._wandb = None
        if not speaks():
            return
        if report_to == "tensorboard":  # each is imported where it is asked for: neither is needed to train
            from torch.utils.tensorboard import SummaryWriter

            quiet_threads()
            self._tensorboard = SummaryWriter(str(directory / "runs"), purge_step=step + 1)
        elif report_to == "wandb":
            import wandb

            project, name = os.environ.get("WANDB_PROJECT", "slmrec"), directory.name.removesuffix(".partial")
            self._wandb = wandb.init(project=project, name=name, config=dict(config or {}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error) -> None:
        """Also after an error: TensorBoard's thread would complain once the directory is gone."""
        if self._tensorboard:
            self._tensorboard.close()
        if self._wandb:
            self._wandb.finish(exit_code=int(error[0] is not None))

    def add(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Write `values` as scalars `group`/NAME; `group` is "train" or "eval"."""
        if self._tensorboard:
            for name, value in values.items():
                self._tensorboard.add_scalar(f"{group}/{name}", value, step)
        if self._wandb:
            named = {f"{group}/{name}": value for name, value in values.items()}
            self._wandb.log(named | {"train/global_step": step})
