"""What the benchmark measures, and at which size."""

from __future__ import annotations

from dataclasses import dataclass, field

from slmrec.checks import at_least, one_of
from slmrec.errors import InputError

BENCHMARK_PARTS = ("encoding", "models", "shares", "memory", "precision")


@dataclass
class BenchmarkArguments:
    """What `python -m reproduce.efficiency` measures, and at which size."""

    data: str | None = field(
        default=None, metadata={"help": "directory of the data stage whose users are read; default: invented ones"}
    )
    mean_length: float = field(default=9.0, metadata={"help": "without --data: mean actions per user (Table 1: 9.3 to 12.8)"})
    num_items: int = field(default=12_000, metadata={"help": "without --data: items of the catalogue"})
    parts: list[str] = field(
        default_factory=lambda: ["encoding", "models", "shares", "memory"],
        metadata={
            "help": "encoding (reference against exact), models (E4SRec against SLMRec), shares of time, memory, precision"
        },
    )
    base_model: str | None = field(
        default=None,
        metadata={
            "help": "measure its shape, weights and prompt (a directory, GGUF file or known name) instead of an invented one's"
        },
    )
    models_dir: str = field(
        default="models", metadata={"help": "where checkpoints made from GGUF files and known names are kept"}
    )
    hidden_size: int = field(default=256, metadata={"help": "width of the decoder (LLaMA-7B: 4096)"})
    intermediate_size: int | None = field(default=None, metadata={"help": "of its MLP; default: 2.6875 times (LLaMA-7B: 11008)"})
    num_heads: int = field(default=4, metadata={"help": "attention heads (LLaMA-7B: 32)"})
    num_key_value_heads: int | None = field(default=None, metadata={"help": "of keys and values; default: as many as heads"})
    vocab_size: int = field(default=170, metadata={"help": "token embeddings (LLaMA-7B: 32000)"})
    num_layers: int = field(default=8, metadata={"help": "decoder layers where reference and exact encoding are compared"})
    e4srec_layers: int = field(default=8, metadata={"help": "l of E4SRec_l (paper: 32)"})
    teacher_layers: int = field(default=8, metadata={"help": "of SLMRec's teacher (paper: 8)"})
    student_layers: int = field(default=4, metadata={"help": "of SLMRec (paper: 4)"})
    num_blocks: int = field(default=4, metadata={"help": "B of the distillation"})
    max_length: int = field(default=30, metadata={"help": "item slots per row (released code: 30)"})
    train_strategy: str = field(default="full", metadata={"help": "full, or lora: frozen backbone with adapters"})
    lora_r: int = field(default=16, metadata={"help": "rank of the adapters"})
    batch_size: int | None = field(default=None, metadata={"help": "sets both of the next two"})
    train_batch_size: int = field(default=256, metadata={"help": "rows per training step (paper: 256)"})
    infer_batch_size: int = field(default=512, metadata={"help": "rows per forward pass of inference (paper: 512)"})
    micro_batch_size: int | None = field(
        default=None, metadata={"help": "rows that a training step with reference encoding holds at once; default: all of them"}
    )
    precision: str = field(
        default="fp32", metadata={"help": "fp32, or bf16 (mixed precision); the part `precision` compares both"}
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})
    repeats: int = field(default=5, metadata={"help": "timed turns of each side; medians are reported"})
    openp5: str | None = field(
        default=None,
        metadata={
            "help": "Open-P5 that reproduce.analysis.generation has looked into on such a device: its rows of Tables 5 and 7"
        },
    )
    seed: int = field(default=0, metadata={"help": "of weights and users"})
    json: str | None = field(default=None, metadata={"help": "file of the result"})
    plot: str | None = field(default=None, metadata={"help": "PNG file: tokens per row, reference against exact"})

    def __post_init__(self):
        for part in self.parts:
            one_of("parts", part, BENCHMARK_PARTS)
        one_of("train_strategy", self.train_strategy, ("full", "lora"))
        one_of("precision", self.precision, ("fp32", "bf16"))
        if self.openp5 and not {"models", "shares"} <= set(self.parts):
            raise InputError("--openp5: Tables 5 and 7 need the parts models and shares")
        if self.batch_size is not None:
            self.train_batch_size = self.infer_batch_size = self.batch_size
        if self.intermediate_size is None:
            self.intermediate_size = self.hidden_size * 43 // 16
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_heads
        if self.hidden_size % (2 * self.num_heads):
            raise InputError(
                f"--hidden_size {self.hidden_size}: rotary heads need an even share for each of {self.num_heads} heads"
            )
        for name in (
            "train_batch_size",
            "infer_batch_size",
            "micro_batch_size",
            "repeats",
            "num_layers",
            "e4srec_layers",
            "max_length",
        ):
            at_least(name, getattr(self, name), 1)
        for name in ("teacher_layers", "student_layers"):
            if getattr(self, name) % self.num_blocks:
                raise InputError(f"--num_blocks {self.num_blocks} does not divide --{name} {getattr(self, name)}")
        if not self.mean_length > 5:
            raise InputError(f"--mean_length {self.mean_length:g}: must be above 5, the fewest actions of a user")
