"""Which layers of teacher and student are compared (paper, Section 4), and refusing a pair that does not fit before training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slmrec.artifacts import read_json, read_manifest, require_same_item_map, stage_directory, stage_input
from slmrec.distillation.arguments import DistillationArguments
from slmrec.errors import InputError
from slmrec.llm.adapter_folder import find_base
from slmrec.llm.arguments import EllmArguments, EllmInputs
from slmrec.llm.backbone import load_backbone_config, shallow_config
from slmrec.llm.four_bits import dtype_read
from slmrec.llm.model_directory import BACKBONE, FOUR_BITS, RECOMMENDER, model_input


@dataclass(frozen=True)
class Alignment:
    """Two models, block by block.

    Attributes:
        teacher, student: the last layer of each block, 1-based.
        teacher_width: the teacher's hidden size.
        inputs: the trained teacher as a stage input under "teacher"; empty for one that is yet to be trained.
    """

    teacher: tuple[int, ...]
    student: tuple[int, ...]
    teacher_width: int
    inputs: dict[str, dict]

    def supervised_layers(self, distillation: DistillationArguments) -> tuple[int, ...]:
        """The student's layers that predict on their own: the ends of blocks 1..B-1 where the term of Eq. 5 has a weight."""
        return self.student[:-1] if distillation.lambda_ms > 0 else ()

    def projected_layers(self, distillation: DistillationArguments) -> dict[int, int]:
        """The student's layers that learn a map to the teacher's width (--project_states), layer -> width."""
        return dict.fromkeys(self.student, self.teacher_width) if distillation.project_states else {}


def align(distillation: DistillationArguments, student: EllmArguments, inputs: EllmInputs) -> Alignment:
    """Compare teacher and student at the end of each block.

    With --online the teacher is built from the student's base model. Raises InputError when the block count does not divide the
    layers, the base model has too few of them, or a trained teacher has another width (unless --project_states), way of reading,
    length, number of heads (with --lambda_attention), data set or item embeddings than the student.
    """
    if distillation.online:
        if student.start == "teacher":
            raise InputError(
                "--start teacher takes the maps of a trained teacher, which --online has not: choose passing or random"
            )
        assert distillation.teacher_layers is not None  # the arguments fill it in
        config = shallow_config(student.base_model, distillation.teacher_layers)
        shallow_config(student.base_model, student.num_layers)
        layers, width, described = distillation.teacher_layers, config.hidden_size, {}
    else:
        assert distillation.teacher is not None  # likewise
        described = {"teacher": model_input(distillation.teacher, "finetune")}
        saved = read_json(Path(distillation.teacher) / RECOMMENDER)
        layers, width = saved["num_layers"], saved["hidden_size"]
        if FOUR_BITS in saved and not distillation.teacher_cache:
            dtype_read(distillation.teacher, saved[FOUR_BITS])
        _require_same_shape(distillation, Path(distillation.teacher), saved, student)
        _require_same_inputs(distillation.teacher, inputs)
    teacher_ends = block_ends(layers, distillation.num_blocks, "teacher")
    return Alignment(teacher_ends, block_ends(student.num_layers, distillation.num_blocks, "student"), width, described)


def block_ends(num_layers: int, num_blocks: int, owner: str) -> tuple[int, ...]:
    """The last layer of each block, 1-based: k * (num_layers / B) for k = 1..B.

    `owner` ("teacher" or "student") is for the message of the InputError when the block count does not divide the layers.
    """
    if num_blocks < 1 or num_layers % num_blocks:
        raise InputError(f"--num_blocks {num_blocks} does not divide the {owner}'s {num_layers} layers")
    layers_per_block = num_layers // num_blocks
    return tuple(layers_per_block * k for k in range(1, num_blocks + 1))


def _require_same_shape(distillation: DistillationArguments, directory: Path, teacher: dict, student: EllmArguments) -> None:
    config = shallow_config(student.base_model, student.num_layers)
    pairs = {"targets": (teacher["targets"], student.targets), "max_length": (teacher["max_length"], student.max_length)}
    if not distillation.project_states or student.start == "teacher":
        pairs["hidden_size"] = (teacher["hidden_size"], config.hidden_size)
    if distillation.lambda_attention:
        pairs["num_attention_heads"] = (_teacher_heads(directory, teacher), config.num_attention_heads)
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            way_out = (
                " (--project_states with --start passing or random compares them all the same)" if name == "hidden_size" else ""
            )
            raise InputError(f"{directory}: the teacher has {name} {theirs}, the student {ours}; they must agree{way_out}")


def _teacher_heads(directory: Path, saved: dict) -> int:
    backbone = directory / BACKBONE if saved["train_strategy"] == "full" else find_base(saved["base_model"], directory)
    return load_backbone_config(str(backbone)).num_attention_heads


def _require_same_inputs(teacher: str, inputs: EllmInputs) -> None:
    stage = stage_directory(teacher)
    require_same_item_map(stage, inputs.data)
    for name, directory in (("data", inputs.data), ("embeddings", inputs.embeddings)):
        theirs = read_manifest(stage)["inputs"][name]["digest"]
        ours = stage_input(directory, name)["digest"]
        if theirs != ours:
            raise InputError(f"{teacher}: the teacher was trained on other {name} than {directory} (digests {theirs} and {ours})")
