"""Which blocks of teacher and student stand opposite each other, and refusing a pair that does not fit before training it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slmrec.artifacts import read_json, read_manifest, require_same_item_map, stage_directory, stage_input
from slmrec.distillation.arguments import DistillationArguments
from slmrec.distillation.blocks import block_ends
from slmrec.errors import InputError
from slmrec.llm.arguments import EllmArguments, EllmInputs
from slmrec.llm.backbone import load_backbone_config, shallow_config
from slmrec.llm.checkpoint import BACKBONE, RECOMMENDER, model_input


@dataclass
class Opposition:
    """Two models, block by block.

    Attributes:
        teacher, student: the last layer of each block, 1-based.
        teacher_width, student_width: their hidden sizes.
    """

    teacher: tuple[int, ...]
    student: tuple[int, ...]
    teacher_width: int
    student_width: int

    def projected_layers(self, distillation: DistillationArguments) -> dict[int, int]:
        """The student's layers that learn a map to the teacher's width (--project_states), layer -> width."""
        return {layer: self.teacher_width for layer in self.student} if distillation.project_states else {}


def oppose_new_teacher(distillation: DistillationArguments, student: EllmArguments) -> Opposition:
    """For --online: the teacher is built from the student's base model. Raises InputError when that has too few layers."""
    width = shallow_config(student.base_model, distillation.teacher_layers).hidden_size
    shallow_config(student.base_model, student.num_layers)
    return _oppose(distillation, distillation.teacher_layers, student.num_layers, width, width)


def oppose_trained_teacher(distillation: DistillationArguments, student: EllmArguments, inputs: EllmInputs) -> Opposition:
    """For --teacher.

    Raises InputError when the block count does not divide the layers, or the teacher has another width (unless
    --project_states), way of reading, length, number of heads (with --lambda_attention), data set or item embeddings than the
    student.
    """
    model_input(distillation.teacher, "finetune")  # says what is wrong with a directory that holds no teacher
    teacher = read_json(Path(distillation.teacher) / RECOMMENDER)
    config = shallow_config(student.base_model, student.num_layers)
    pairs = {"targets": (teacher["targets"], student.targets), "max_length": (teacher["max_length"], student.max_length)}
    if not distillation.project_states:
        pairs["hidden_size"] = (teacher["hidden_size"], config.hidden_size)
    if distillation.lambda_attention:
        pairs["num_attention_heads"] = (_teacher_heads(Path(distillation.teacher), teacher), config.num_attention_heads)
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            way_out = " (--project_states compares them all the same)" if name == "hidden_size" else ""
            raise InputError(
                f"{distillation.teacher}: the teacher has {name} {theirs}, the student {ours}; they must agree{way_out}"
            )
    _require_same_inputs(distillation.teacher, inputs)
    return _oppose(distillation, teacher["num_layers"], student.num_layers, teacher["hidden_size"], config.hidden_size)


def _oppose(
    distillation: DistillationArguments, teacher_layers: int, student_layers: int, teacher_width: int, student_width: int
) -> Opposition:
    blocks = distillation.num_blocks
    ends = block_ends(teacher_layers, blocks, "teacher"), block_ends(student_layers, blocks, "student")
    return Opposition(*ends, teacher_width, student_width)


def _teacher_heads(directory: Path, saved: dict) -> int:
    backbone = directory / BACKBONE if saved["train_strategy"] == "full" else saved["base_model"]
    return load_backbone_config(str(backbone)).num_attention_heads


def _require_same_inputs(teacher: str, inputs: EllmInputs) -> None:
    stage = stage_directory(teacher)
    require_same_item_map(stage, inputs.data)
    for name, directory in (("data", inputs.data), ("embeddings", inputs.embeddings)):
        theirs = read_manifest(stage)["inputs"][name]["digest"]
        ours = stage_input(directory, name)["digest"]
        if theirs != ours:
            raise InputError(f"{teacher}: the teacher was trained on other {name} than {directory} (digests {theirs} and {ours})")
