"""The E-LLMRec model and its inputs, as command-line arguments of the LLM stages."""

from __future__ import annotations

from dataclasses import dataclass, field

from slmrec.checks import one_of, share_below_one
from slmrec.errors import InputError


@dataclass
class EllmArguments:
    """The E-LLMRec model."""

    base_model: str = field(
        metadata={
            "help": "LLaMA-family checkpoint: a directory, a GGUF file, smollm2-135m, or a hub name such as meta-llama/Llama-2-7b-hf"
        }
    )
    num_layers: int = field(
        default=8, metadata={"help": "first decoder layers that are kept (paper: 8 for the teacher, 4 the student)"}
    )
    train_strategy: str = field(
        default="auto",
        metadata={"help": "lora, full, or auto: full for a random checkpoint made by this project, lora otherwise"},
    )
    targets: str = field(
        default="last",
        metadata={
            "help": "last: one target per user, read after the closing prompt (paper); all: every item of the training part"
        },
    )
    max_length: int = field(default=30, metadata={"help": "latest items of a history that are read (released code: 30)"})
    encoding: str = field(
        default="exact", metadata={"help": "exact, or reference: every row padded to the full length; same results, more work"}
    )
    item_dropout: float = field(
        default=0.0, metadata={"help": "dropout of the item vectors that enter the decoder (not in the paper, which has none)"}
    )
    train_items: bool = field(
        default=False, metadata={"help": "train the item embeddings along, which the paper keeps as they come (Section 3)"}
    )
    start: str = field(
        default="random",
        metadata={
            "help": "of the linear maps: passing (a decoder that adds nothing returns the last item's own vector), random, or, "
            "for distill.py, teacher (the trained teacher's)"
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
        one_of("train_strategy", self.train_strategy, ("auto", "lora", "full"))
        one_of("targets", self.targets, ("last", "all"))
        one_of("encoding", self.encoding, ("exact", "reference"))
        one_of("start", self.start, ("passing", "random", "teacher"))
        share_below_one("item_dropout", self.item_dropout)
        if not 0 < self.start_ratio < float("inf"):
            raise InputError(f"--start_ratio {self.start_ratio}: must be above 0")
        if self.user_length is not None and self.start != "passing":
            raise InputError("--user_length is only for --start passing")
        if self.user_length is not None and not 0 < self.user_length < float("inf"):
            raise InputError(f"--user_length {self.user_length}: must be above 0")
        if self.max_length < 1:
            raise InputError(f"--max_length {self.max_length}: must be at least 1")


@dataclass
class EllmInputs:
    """What the LLM stages read."""

    data: str = field(metadata={"help": "directory of the data stage"})
    embeddings: str = field(metadata={"help": "directory of item embeddings (extract_emb.py) of the same data"})
    text: str | None = field(
        default=None,
        metadata={"help": "directory of text vectors (embed_titles.py) that enter the decoder beside the item embeddings"},
    )
