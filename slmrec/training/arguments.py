"""Optimisation of the LLM stages, as command-line arguments."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from slmrec.checks import above, at_least, check_choices, each, report_target, seed_in_range, share_below_one
from slmrec.errors import InputError


@dataclass
class LlmTrainingArguments:
    """Optimisation of the LLM stages; the names are those of transformers.TrainingArguments, which receives them."""

    learning_rate: float = field(default=1e-3, metadata={"help": "peak learning rate of AdamW (Table 6: 0.001 to 0.003)"})
    num_train_epochs: float = field(default=3.0, metadata={"help": "passes over the training rows, unless --max_steps is given"})
    max_steps: int = field(default=-1, metadata={"help": "optimiser steps; -1 trains --num_train_epochs (Table 6)"})
    per_device_train_batch_size: int = field(default=256, metadata={"help": "rows per step and device (paper: 256)"})
    per_device_eval_batch_size: int = field(default=512, metadata={"help": "users per batch in validation (paper: 512)"})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "batches per optimiser step"})
    warmup_steps: int = field(default=50, metadata={"help": "steps of linear warm-up (Table 6: 50 or 100)"})
    lr_scheduler_type: Literal[
        "cosine", "linear", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial", "inverse_sqrt"
    ] = field(
        default="cosine", metadata={"help": "learning rate after the warm-up, which constant has none of (Table 6: cosine)"}
    )
    weight_decay: float = field(default=0.0, metadata={"help": "AdamW's weight decay (not in the paper; transformers' default)"})
    adam_beta1: float = field(default=0.9, metadata={"help": "Table 6"})
    adam_beta2: float = field(default=0.999, metadata={"help": "Table 6 (its 9.999 for Sport is a typo)"})
    adam_epsilon: float = field(default=1e-8, metadata={"help": "Table 6"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "gradient clipping (Table 6)"})
    logging_steps: int = field(default=1, metadata={"help": "steps between log lines (Table 6: 1)"})
    save_steps: int = field(default=100, metadata={"help": "steps between validations and checkpoints (Table 6: 50 or 100)"})
    save_total_limit: int = field(default=2, metadata={"help": "checkpoints that are kept; the best one always is"})
    seed: int = field(default=0, metadata={"help": "of new weights, row order and dropout"})
    candidates_seed: int = field(default=0, metadata={"help": "seed of the validation candidates"})
    num_candidates: int = field(default=999, metadata={"help": "validation candidates per user"})
    precision: Literal["auto", "fp32", "bf16"] = field(
        default="auto", metadata={"help": "bf16 is mixed; auto: bf16 where it was measured to pay"}
    )
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata={"help": "auto: cuda where there is one"})
    report_to: Literal["none", "tensorboard", "wandb"] = field(default="tensorboard", metadata={"help": "where the curves go"})
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "keep no activations inside layers and compute them twice: less memory, a third slower"}
    )
    launch: int | None = field(
        default=None, metadata={"help": "processes of this machine that share the work; default: $LAUNCH, or else one"}
    )
    resume_from_checkpoint: str | None = field(
        default=None, metadata={"help": "start from this checkpoint-N; by default a killed run goes on from its last one"}
    )

    def __post_init__(self):
        check_choices(self)
        report_target(self.report_to)
        each(above, self, "learning_rate num_train_epochs adam_epsilon", 0)
        if self.max_steps != -1 and not 1 <= self.max_steps < math.inf:
            raise InputError(f"--max_steps {self.max_steps}: must be at least 1, or -1 to train --num_train_epochs")
        each(at_least, self, "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps", 1)
        each(at_least, self, "logging_steps save_steps save_total_limit num_candidates launch", 1)
        each(at_least, self, "warmup_steps weight_decay max_grad_norm", 0)
        each(share_below_one, self, "adam_beta1 adam_beta2")
        seed_in_range("seed", self.seed)
        seed_in_range("candidates_seed", self.candidates_seed, 64)


@dataclass
class UpdateArguments:
    """Going on from a trained model on data with new actions (not in the paper; its Section 7 leaves it to the future)."""

    update_from: str | None = field(
        default=None,
        metadata={"help": "directory of a trained model to go on from; --data is what python -m slmrec.data --update_from made"},
    )
    replay: float | None = field(
        default=None,
        metadata={"help": "with --update_from: share of the users without new actions who are trained on again; 0.2"},
    )

    def __post_init__(self):
        if self.update_from is None and self.replay is not None:
            raise InputError("--replay is only for --update_from")
        if self.update_from is not None and self.replay is None:
            self.replay = 0.2
        at_least("replay", self.replay, 0)
        if self.replay is not None and not self.replay <= 1:
            raise InputError(f"--replay {self.replay:g}: must be a share from 0 to 1")


@dataclass
class LossArguments:
    """Which items a target is compared with."""

    loss: Literal["ce", "sampled"] = field(
        default="ce", metadata={"help": "ce: all items (Eq. 1); sampled: an estimate of it from drawn items, for huge catalogues"}
    )
    num_negatives: int | None = field(default=None, metadata={"help": "with --loss sampled: items drawn a step; default 8192"})

    def __post_init__(self):
        check_choices(self)
        at_least("num_negatives", self.num_negatives, 1)
        if self.num_negatives is not None and self.loss == "ce":
            raise InputError(f"--num_negatives {self.num_negatives}: --loss ce is over all items; --loss sampled draws some")
        if self.loss == "sampled" and self.num_negatives is None:
            self.num_negatives = 8192

    def settings(self) -> dict:
        """What the loss adds to a stage's configuration: nothing where it is the paper's."""
        return {} if self.loss == "ce" else {"loss": self.loss, "num_negatives": self.num_negatives}


@dataclass
class GuideArguments:
    """Pulling user vectors to those of the recommender that the item embeddings come from (not in the paper)."""

    guide: str | None = field(default=None, metadata={"help": "directory of the trained encoder that --embeddings come from"})
    lambda_guide: float | None = field(
        default=None, metadata={"help": "of the squared distance between its user vectors and the model's; default 20"}
    )
    lambda_ce: float | None = field(
        default=None, metadata={"help": "of the next-item cross-entropy beside it; default 0.3, and 1 without --guide"}
    )

    def __post_init__(self):
        for name, default in (("lambda_guide", 20.0), ("lambda_ce", 0.3)):
            if self.guide is None and getattr(self, name) is not None:
                raise InputError(f"--{name} is only for --guide")
            if self.guide is not None and getattr(self, name) is None:
                setattr(self, name, default)
            at_least(name, getattr(self, name), 0)
