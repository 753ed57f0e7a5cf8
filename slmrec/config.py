"""Command-line arguments: one dataclass per concern, read by transformers.HfArgumentParser, checked when built."""

from __future__ import annotations

from dataclasses import dataclass, field

from slmrec.artifacts import InputError


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"--{name} {value}: choose one of {', '.join(choices)}")


@dataclass
class OutputArguments:
    """Where a stage writes."""

    output_dir: str = field(metadata={"help": "directory of this stage; it exists under this name once it is whole"})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "replace a directory that holds another run"})


@dataclass
class EvaluationArguments:
    """What `evaluate.py` ranks, and against what."""

    model: str = field(metadata={"help": "directory of a finished encoder, teacher or student, or a checkpoint-N inside one"})
    split: str = field(default="test", metadata={"help": "valid or test"})
    full_ranking: bool = field(
        default=False, metadata={"help": "also rank each target among all items, with the user's other items masked"}
    )
    data: str | None = field(
        default=None, metadata={"help": "directory of the data stage; default: the one that the model was trained on"}
    )
    output_dir: str | None = field(default=None, metadata={"help": "default: evaluation-<split> in the model's directory"})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "replace a directory that holds another run"})
    candidates_seed: int = field(default=0, metadata={"help": "seed of the candidates that a target is ranked against"})
    num_candidates: int = field(default=999, metadata={"help": "candidates per target, all of them items the user never touched"})
    eval_batch_size: int = field(default=512, metadata={"help": "users per batch; it has no influence on the result"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})

    def __post_init__(self):
        one_of("split", self.split, ("valid", "test"))
        if self.num_candidates < 1 or self.eval_batch_size < 1:
            raise InputError("--num_candidates and --eval_batch_size must be at least 1")
        if not 0 <= self.candidates_seed < 2**64:
            raise InputError(f"--candidates_seed {self.candidates_seed}: must be in 0..2**64 - 1")


@dataclass
class BackboneArguments:
    """Size of a randomly initialised LLaMA."""

    hidden_size: int = field(default=128, metadata={"help": "width of the decoder (paper: 4096)"})
    intermediate_size: int | None = field(default=None, metadata={"help": "width of its MLP; default: 2.6875 times, as LLaMA-7B"})
    num_layers: int = field(default=8, metadata={"help": "decoder layers (paper: 32)"})
    num_heads: int = field(default=4, metadata={"help": "attention heads (paper: 32)"})
    seed: int = field(default=0, metadata={"help": "of the random weights"})

    def __post_init__(self):
        if self.hidden_size % (2 * self.num_heads):
            raise InputError(f"--hidden_size {self.hidden_size}: rotary heads need an even share for each of {self.num_heads} heads")
        if self.intermediate_size is None:
            self.intermediate_size = self.hidden_size * 43 // 16
