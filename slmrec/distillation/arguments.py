"""What is distilled, from whom, with which weights: the command-line arguments of distill.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from slmrec.checks import above, at_least, check_choices, each
from slmrec.errors import InputError

# The terms of Eq. 6, then those of other methods; each has a weight --lambda_<name>
DISTILLATION_TERMS = ("cos", "norm", "ms", "logits", "attention", "contrastive")


@dataclass
class DistillationArguments:
    """Teacher, blocks, weights of Eq. 6, and the terms that others use instead of the paper's (off by default)."""

    teacher: str | None = field(
        default=None, metadata={"help": "directory of a finished finetune.py run, or a checkpoint-N inside"}
    )
    online: bool = field(
        default=False, metadata={"help": "instead of --teacher: train an untrained teacher and the student together (RQ4)"}
    )
    teacher_layers: int | None = field(default=None, metadata={"help": "with --online: layers of that teacher; default 8"})
    num_blocks: int = field(default=4, metadata={"help": "B: teacher and student are compared at the end of each of B blocks"})
    teacher_cache: str | None = field(
        default=None,
        metadata={
            "help": "directory that keeps the teacher's states of every training row, for several epochs or a sweep over lambdas"
        },
    )
    lambda_cos: float = field(default=1.0, metadata={"help": "lambda 1, of the cosine term (Eq. 3; Table 6: 1.0)"})
    lambda_norm: float = field(default=0.1, metadata={"help": "lambda 2, of the squared distance (Eq. 4; Table 6: 0.1)"})
    lambda_ms: float = field(default=1.0, metadata={"help": "lambda 3, of multiple supervision (Eq. 5; Table 6: 0.01 to 1.0)"})
    distill_last_block: bool = field(
        default=True, metadata={"help": "compare the last block too, as Eq. 3 and 4 do (the text of Section 5.2 says otherwise)"}
    )
    protocol: Literal["paper", "released"] = field(
        default="paper", metadata={"help": "paper: Eq. 3 to 5; released: sums over blocks and the unsquared distance"}
    )
    project_states: bool = field(
        default=False,
        metadata={"help": "compare the student's states after a learned linear map, for a teacher of another width"},
    )
    lambda_logits: float = field(
        default=0.0,
        metadata={"help": "of the divergence between teacher's and student's scores of all items (Hinton et al. 2015)"},
    )
    temperature: float = field(default=2.0, metadata={"help": "that both scores are divided by in --lambda_logits"})
    lambda_attention: float = field(
        default=0.0, metadata={"help": "of the divergence between the last layers' attention weights (MiniLM, Wang et al. 2020)"}
    )
    lambda_contrastive: float = field(
        default=0.0,
        metadata={"help": "of InfoNCE between teacher's and student's block states in a batch (van den Oord et al. 2018)"},
    )
    contrastive_temperature: float = field(default=0.1, metadata={"help": "of the cosines in --lambda_contrastive"})

    def __post_init__(self):
        check_choices(self)
        for name in DISTILLATION_TERMS:
            at_least(f"lambda_{name}", getattr(self, f"lambda_{name}"), 0)
        each(above, self, "temperature contrastive_temperature", 0)
        each(at_least, self, "num_blocks teacher_layers", 1)
        self._check_teacher()
        self._check_blocks()

    def _check_teacher(self) -> None:
        if (self.teacher is not None) == self.online:
            raise InputError("give either --teacher (a trained one) or --online (trained along with the student)")
        if self.teacher_layers is not None and not self.online:
            raise InputError("--teacher_layers is only for --online; a trained teacher has its own")
        if self.online and self.teacher_cache:
            raise InputError("--teacher_cache is for a trained teacher: with --online its states change at every step")
        if self.teacher_cache and self.lambda_attention:
            raise InputError("--teacher_cache holds states, not the attention weights that --lambda_attention compares")
        if self.online and self.teacher_layers is None:
            self.teacher_layers = 8

    def _check_blocks(self) -> None:
        features = self.lambda_cos or self.lambda_norm or self.lambda_contrastive
        if self.num_blocks == 1 and not self.distill_last_block and features:
            raise InputError("--num_blocks 1 --no_distill_last_block leaves no block whose states could be compared")
        if self.num_blocks == 1 and self.lambda_ms:
            raise InputError("--num_blocks 1 has no intermediate block to supervise (Eq. 5): give --lambda_ms 0")
