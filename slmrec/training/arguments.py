"""Optimisation of the LLM stages, as command-line arguments."""

from __future__ import annotations

from dataclasses import dataclass, field

from slmrec.checks import one_of, report_target
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
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "learning-rate schedule (Table 6: cosine)"})
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
    precision: str = field(default="auto", metadata={"help": "fp32, bf16 (mixed), or auto: bf16 where it was measured to pay"})
    device: str = field(default="auto", metadata={"help": "auto, cpu or cuda"})
    report_to: str = field(default="tensorboard", metadata={"help": "where the curves go: none, tensorboard or wandb"})
    resume_from_checkpoint: str | None = field(
        default=None, metadata={"help": "start from this checkpoint-N; by default a killed run goes on from its last one"}
    )

    def __post_init__(self):
        one_of("precision", self.precision, ("auto", "fp32", "bf16"))
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        report_target(self.report_to)
        if self.max_steps == 0 or self.num_train_epochs <= 0:
            raise InputError("--max_steps and --num_train_epochs: nothing to train")
