"""Open-P5 and its training, as command-line arguments. "OpenP5" is the released code of Xu et al. (2023), its LLaMA variant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from slmrec.checks import at_least, check_choices, each, seed_in_range, share_below_one
from slmrec.errors import InputError
from slmrec.llm.arguments import refuse_lora_flags
from slmrec.training.arguments import LlmTrainingArguments


@dataclass
class OpenP5Inputs:
    """What Open-P5 is trained on."""

    data: str = field(metadata={"help": "directory of the data stage"})
    check_base_model: bool = field(
        default=False, metadata={"help": "read all of the base model's weights for their sha256, compare it where it is known"}
    )


@dataclass
class OpenP5Arguments:
    """The model: how items are written, what prompts say, and what of the base model is trained."""

    base_model: str = field(
        metadata={
            "help": "LLaMA-family checkpoint: directory, GGUF file, smollm2-135m, or hub name such as meta-llama/Llama-2-7b-hf"
        }
    )
    num_layers: int | None = field(default=None, metadata={"help": "first decoder layers that are kept; default: all (OpenP5)"})
    indexing: Literal["sequential", "random", "collaborative"] = field(
        default="sequential",
        metadata={"help": "item ids: numbers as items first appear, numbers by chance, or ways down a clustering"},
    )
    index_seed: int = field(
        default=0, metadata={"help": "with --indexing random or collaborative: of numbers and of the clustering"}
    )
    clusters: int = field(default=20, metadata={"help": "with --indexing collaborative: that a cluster is cut into"})
    cluster_size: int = field(
        default=500,
        metadata={"help": "with --indexing collaborative: largest that is not cut any more; more, and ids are shorter"},
    )
    max_length: int = field(default=10, metadata={"help": "latest items of a history that a prompt has (OpenP5: 10)"})
    user_ids: bool = field(
        default=False,
        metadata={
            "help": "name the user in the prompt, as OpenP5 does; off, as a model then learns users by heart and is of no use "
            "for new ones; the straightforward task, which knows nothing but the user, comes with it"
        },
    )
    softmax: Literal["vocabulary", "ids"] = field(
        default="vocabulary",
        metadata={
            "help": "an answer's next token is one of all tokens (OpenP5), or one of those that ids are made of (less work)"
        },
    )
    train_strategy: Literal["auto", "lora", "full"] = field(
        default="auto", metadata={"help": "auto: full for a random checkpoint made by this project, lora otherwise"}
    )
    lora_r: int = field(default=8, metadata={"help": "rank of the LoRA adapters (OpenP5)"})
    lora_alpha: int = field(default=16, metadata={"help": "scale of the LoRA adapters (OpenP5)"})
    lora_dropout: float = field(default=0.05, metadata={"help": "dropout before the LoRA adapters (OpenP5)"})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "v_proj"], metadata={"help": "layers that get adapters (OpenP5)"}
    )
    models_dir: str = field(
        default="models", metadata={"help": "where checkpoints made from GGUF files and known names are kept"}
    )

    def __post_init__(self):
        check_choices(self)
        share_below_one("lora_dropout", self.lora_dropout)
        each(at_least, self, "num_layers max_length lora_r lora_alpha cluster_size", 1)
        at_least("clusters", self.clusters, 2)
        seed_in_range("index_seed", self.index_seed)
        if self.indexing != "collaborative" and (self.clusters, self.cluster_size) != (20, 500):
            raise InputError("--clusters and --cluster_size are only for --indexing collaborative")
        if self.indexing == "sequential" and self.index_seed:
            raise InputError("--index_seed is for --indexing random and collaborative; a sequential one draws nothing")

    def refuse_adapters(self) -> None:
        """Raises InputError where anything is said about adapters: for a backbone that is trained whole."""
        refuse_lora_flags(self)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those of OpenP5 that a prefix may be asked for by."""
        return ("sequential", "straightforward") if self.user_ids else ("sequential",)


@dataclass
class OpenP5TrainingArguments(LlmTrainingArguments):
    """Its optimisation; the names are those of transformers.TrainingArguments, which receives them."""

    sample_share: float = field(
        default=1.0, metadata={"help": "of all prefixes that an epoch trains on, drawn anew (OpenP5: 0.2)"}
    )
    valid_users: int | None = field(
        default=None, metadata={"help": "validate on so many users, drawn once by --seed, instead of all"}
    )
    learning_rate: float = field(default=1e-3, metadata={"help": "peak learning rate of AdamW (OpenP5)"})
    num_train_epochs: float = field(default=2.0, metadata={"help": "passes over the rows, unless --max_steps is given (OpenP5)"})
    max_steps: int = field(default=-1, metadata={"help": "optimiser steps; -1 trains --num_train_epochs"})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "rows per batch and device (OpenP5)"})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "users per batch in validation"})
    gradient_accumulation_steps: int = field(default=8, metadata={"help": "batches per optimiser step (OpenP5)"})
    warmup_steps: int = field(default=100, metadata={"help": "steps of linear warm-up (OpenP5)"})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's weight decay (OpenP5)"})
    lr_scheduler_type: Literal[
        "cosine", "linear", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial", "inverse_sqrt"
    ] = field(default="linear", metadata={"help": "learning rate after the warm-up (transformers' default)"})
    adam_beta1: float = field(default=0.9, metadata={"help": "transformers' default"})
    adam_beta2: float = field(default=0.999, metadata={"help": "transformers' default"})
    adam_epsilon: float = field(default=1e-8, metadata={"help": "transformers' default"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "gradient clipping (transformers' default)"})
    logging_steps: int = field(default=10, metadata={"help": "steps between log lines"})
    save_steps: int = field(default=100, metadata={"help": "steps between validations and checkpoints"})

    gradient_checkpointing: bool = field(default=False, metadata={"help": "of finetune.py and distill.py alone"})

    def __post_init__(self):
        super().__post_init__()
        at_least("valid_users", self.valid_users, 1)
        if self.gradient_checkpointing:
            raise InputError("--gradient_checkpointing is for finetune.py and distill.py, not for an Open-P5")
        if not 0 < self.sample_share <= 1:
            raise InputError(f"--sample_share {self.sample_share}: must be above 0 and at most 1")
