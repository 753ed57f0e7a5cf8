"""Refusing a teacher that does not fit its student, before anything is trained."""

from __future__ import annotations

from pathlib import Path

from slmrec.artifacts import InputError, read_json, read_manifest, require_same_item_map, stage_directory, stage_input
from slmrec.config import DistillationArguments, EllmArguments, EllmInputs
from slmrec.distillation.blocks import block_ends
from slmrec.llm.backbone import shallow_config
from slmrec.llm.checkpoint import RECOMMENDER, model_input


def require_fitting_teacher(
    distillation: DistillationArguments, student: EllmArguments, inputs: EllmInputs
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The last layers of the teacher's and of the student's blocks.

    Raises InputError when the block count does not divide the layers, or the teacher has another width, way of reading, length,
    data set or item embeddings than the student.
    """
    model_input(distillation.teacher, "finetune")  # says what is wrong with a directory that holds no teacher
    teacher = read_json(Path(distillation.teacher) / RECOMMENDER)
    student_width = shallow_config(student.base_model, student.num_layers).hidden_size
    pairs = {
        "hidden_size": (teacher["hidden_size"], student_width),
        "targets": (teacher["targets"], student.targets),
        "max_length": (teacher["max_length"], student.max_length),
    }
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise InputError(f"{distillation.teacher}: the teacher has {name} {theirs}, the student {ours}; they must agree")
    stage = stage_directory(distillation.teacher)
    require_same_item_map(stage, inputs.data)
    for name, directory in (("data", inputs.data), ("embeddings", inputs.embeddings)):
        theirs = read_manifest(stage)["inputs"][name]["digest"]
        ours = stage_input(directory, name)["digest"]
        if theirs != ours:
            raise InputError(
                f"{distillation.teacher}: the teacher was trained on other {name} than {directory} (digests {theirs} and {ours})"
            )
    return (
        block_ends(teacher["num_layers"], distillation.num_blocks, "teacher"),
        block_ends(student.num_layers, distillation.num_blocks, "student"),
    )
