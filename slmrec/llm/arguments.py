"""The E-LLMRec model and its inputs, as command-line arguments of the LLM stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from slmrec.checks import above, at_least, check_choices, each, seed_in_range, share_below_one
from slmrec.command_line import flags_of
from slmrec.errors import InputError


@dataclass
class EllmArguments:
    """The E-LLMRec model."""

    base_model: str = field(
        metadata={
            "help": "LLaMA-family checkpoint: directory, GGUF file, smollm2-135m, or hub name such as meta-llama/Llama-2-7b-hf"
        }
    )
    num_layers: int = field(
        default=8, metadata={"help": "first decoder layers that are kept (paper: 8 for the teacher, 4 the student)"}
    )
    train_strategy: Literal["auto", "lora", "full"] = field(
        default="auto", metadata={"help": "auto: full for a random checkpoint made by this project, lora otherwise"}
    )
    targets: Literal["last", "all"] = field(
        default="last",
        metadata={
            "help": "last: one target per user, read after the closing prompt (paper); all: every item of the training part"
        },
    )
    max_length: int = field(default=30, metadata={"help": "latest items of a history that are read (released code: 30)"})
    encoding: Literal["exact", "reference"] = field(
        default="exact", metadata={"help": "reference: every row padded to the full length; same results, more work"}
    )
    item_dropout: float = field(
        default=0.0, metadata={"help": "dropout of the item vectors that enter the decoder (not in the paper, which has none)"}
    )
    train_items: bool = field(
        default=False, metadata={"help": "train the item embeddings along, which the paper keeps as they come (Section 3)"}
    )
    start: Literal["auto", "random", "passing", "teacher"] = field(
        default="auto",
        metadata={
            "help": "of the linear maps; auto: a student takes those of its trained teacher, other models random ones; "
            "passing: a decoder that adds nothing returns the last item's own vector; teacher: for distill.py"
        },
    )
    start_ratio: float = field(
        default=30.0, metadata={"help": "with --start passing: length of a mean item vector, in mean token vectors"}
    )
    user_length: float | None = field(
        default=None,
        metadata={
            "help": "with --start passing: length of the user vectors (a SASRec's are near 11); default: a mean item vector's"
        },
    )
    load_in_4bit: bool = field(
        default=False, metadata={"help": "keep the frozen base weights in 4 bits (nf4 of bitsandbytes): with LoRA, on CUDA"}
    )
    lora_r: int = field(default=16, metadata={"help": "rank of the LoRA adapters (Table 5, released code)"})
    lora_alpha: int = field(default=16, metadata={"help": "scale of the LoRA adapters (released code)"})
    lora_dropout: float = field(default=0.05, metadata={"help": "dropout before the LoRA adapters (released code)"})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["gate_proj", "up_proj", "down_proj"], metadata={"help": "layers that get adapters (Table 5)"}
    )
    models_dir: str = field(
        default="models", metadata={"help": "where checkpoints made from GGUF files and known names are kept"}
    )

    def __post_init__(self):
        check_choices(self)
        each(share_below_one, self, "item_dropout lora_dropout")
        each(at_least, self, "num_layers max_length lora_r lora_alpha", 1)
        above("start_ratio", self.start_ratio, 0)
        above("user_length", self.user_length, 0)
        if self.user_length is not None and self.start != "passing":
            raise InputError("--user_length is only for --start passing")
        if self.load_in_4bit and self.train_strategy == "full":
            raise InputError("--load_in_4bit: weights in 4 bits are not trained; --train_strategy lora trains adapters on them")

    def refuse_adapters(self) -> None:
        """Raises InputError where anything is said about adapters: for a backbone that is trained whole."""
        if self.load_in_4bit:
            raise InputError(f"--load_in_4bit: {self.base_model} is trained whole; --train_strategy lora trains adapters on it")
        refuse_lora_flags(self)


def refuse_lora_flags(arguments: Any) -> None:
    """Raises InputError where a flag of the LoRA adapters is given: for a backbone that is trained whole."""
    kind: type = type(arguments)
    for flag in flags_of(kind).values():
        if flag.name.startswith("lora_") and getattr(arguments, flag.name) != flag.default:
            raise InputError(f"--{flag.name}: {arguments.base_model} is trained whole, without adapters (--train_strategy)")


@dataclass
class EllmInputs:
    """What the LLM stages read."""

    data: str = field(metadata={"help": "directory of the data stage"})
    embeddings: str = field(metadata={"help": "directory of item embeddings (extract_emb.py) of the same data"})
    text: str | None = field(
        default=None,
        metadata={"help": "directory of text vectors (embed_titles.py) that enter the decoder beside the item embeddings"},
    )
    check_base_model: bool = field(
        default=False, metadata={"help": "read all of the base model's weights for their sha256, compare it where it is known"}
    )


@dataclass
class BackboneArguments:
    """Size of a randomly initialised LLaMA."""

    like: str | None = field(
        default=None,
        metadata={"help": "instead of sizes: the base model whose shape and tokenizer it takes, for comparison with its weights"},
    )
    models_dir: str = field(default="models", metadata={"help": "with --like: where known base models are kept"})
    hidden_size: int = field(default=128, metadata={"help": "width of the decoder (paper: 4096)"})
    intermediate_size: int | None = field(default=None, metadata={"help": "width of its MLP; default: 2.6875 times, as LLaMA-7B"})
    num_layers: int = field(default=8, metadata={"help": "decoder layers (paper: 32)"})
    num_heads: int = field(default=4, metadata={"help": "attention heads (paper: 32)"})
    initializer_range: float = field(default=0.02, metadata={"help": "standard deviation of the weights (LLaMA: 0.02)"})
    attention_dropout: float = field(default=0.0, metadata={"help": "of attention weights when it is trained (LLaMA: 0)"})
    seed: int = field(default=0, metadata={"help": "of the random weights"})

    def __post_init__(self):
        if self.like and (self.hidden_size, self.intermediate_size, self.num_heads) != (128, None, 4):
            raise InputError(
                "--like takes width and heads of its base model: leave out --hidden_size, --intermediate_size, --num_heads"
            )
        each(at_least, self, "hidden_size num_layers num_heads", 1)
        at_least("intermediate_size", self.intermediate_size, 1)
        if self.hidden_size % (2 * self.num_heads):
            raise InputError(
                f"--hidden_size {self.hidden_size}: rotary heads need an even share for each of {self.num_heads} heads"
            )
        share_below_one("attention_dropout", self.attention_dropout)
        above("initializer_range", self.initializer_range, 0)
        if self.initializer_range > 1:  # transformers allows no more
            raise InputError(f"--initializer_range {self.initializer_range}: must be at most 1")
        seed_in_range("seed", self.seed)
        if self.intermediate_size is None:
            self.intermediate_size = self.hidden_size * 43 // 16
