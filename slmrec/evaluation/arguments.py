"""What `evaluate.py` ranks, and against what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from slmrec.checks import at_least, check_choices, each, seed_in_range


@dataclass
class EvaluationArguments:
    """What `evaluate.py` ranks, and against what."""

    model: str = field(metadata={"help": "directory of a finished encoder, teacher or student, or a checkpoint-N inside one"})
    split: Literal["valid", "test"] = field(default="test", metadata={"help": "which held-out item is ranked"})
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
    score_mib: int = field(
        default=64, metadata={"help": "memory of scores, in MiB; a large catalogue is scored in blocks of items"}
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})
    launch: int | None = field(
        default=None, metadata={"help": "processes of this machine that share the work; default: $LAUNCH, or else one"}
    )

    def __post_init__(self):
        check_choices(self)
        each(at_least, self, "num_candidates eval_batch_size score_mib launch", 1)
        seed_in_range("candidates_seed", self.candidates_seed, 64)
