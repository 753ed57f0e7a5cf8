"""Stage 4: distil a teacher into a student with fewer layers, block by block (paper, Section 4).

    python distill.py --teacher runs/demo/teacher --num_layers 4 --num_blocks 4 --lambda_cos 1 --lambda_norm 0.1 --lambda_ms 1 \
        --data runs/demo/data --embeddings runs/demo/embeddings --base_model runs/demo/backbone --output_dir runs/demo/student

With --online instead of --teacher an untrained teacher learns beside the student (Section 5.3, RQ4); the student lies in the
output directory as always, its teacher in the sub-directory `teacher`. With --update_from DIR it goes on from a trained student,
whose other flags it is given again, on data with new actions; --teacher is one that was updated likewise.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch

from slmrec.arguments import OutputArguments
from slmrec.artifacts import stage_input
from slmrec.catalogue_loss import ItemLoss
from slmrec.command_line import parse_arguments
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import load_dataset
from slmrec.distillation.alignment import Alignment, align
from slmrec.distillation.arguments import DistillationArguments
from slmrec.distillation.cache import CachedTeacher, CacheKey, cached_teacher
from slmrec.distillation.joint import trained_model
from slmrec.distillation.objective import DistillationObjective
from slmrec.distillation.teacher import FrozenTeacher, LearningTeacher, Teacher
from slmrec.embeddings import load_item_embeddings, load_text_vectors
from slmrec.errors import InputError
from slmrec.llm.arguments import EllmArguments, EllmInputs
from slmrec.llm.backbone import load_backbone_config
from slmrec.llm.map_start import resolve_start, start_from_teacher
from slmrec.llm.model_directory import go_on_from, load_ellmrec, load_heads, new_recommender
from slmrec.llm.sharding import place
from slmrec.processes import launched
from slmrec.runtime import pick_device, run_main, seed_everything
from slmrec.training.arguments import GuideArguments, LlmTrainingArguments, LossArguments, UpdateArguments
from slmrec.training.guide import check_guide, describe_guide, guided
from slmrec.training.llm_stage import DTYPES, open_stage, prepare_base_model, resolve_precision, train_and_save
from slmrec.training.sampled_softmax import choose_loss
from slmrec.training.update import describe_update


def open_teacher(
    distillation: DistillationArguments,
    alignment: Alignment,
    student: EllmArguments,
    inputs: EllmInputs,
    training: LlmTrainingArguments,
    dtype: torch.dtype,
    item_loss: ItemLoss,
) -> Teacher:
    """With --online a new teacher, else the trained one, or its states from --teacher_cache (loading it if some are missing)."""
    if distillation.online:
        deeper = replace(student, num_layers=distillation.teacher_layers)
        tables = load_item_embeddings(inputs.embeddings), load_text_vectors(inputs.text)
        teacher = new_recommender(deeper, tables[0], dtype, text_vectors=tables[1], seed=training.seed)
        return LearningTeacher(teacher, alignment.teacher, item_loss, dtype)

    def load_teacher() -> FrozenTeacher:
        return FrozenTeacher(load_ellmrec(distillation.teacher, student.encoding, dtype), alignment.teacher)

    if not distillation.teacher_cache:
        return load_teacher()
    rows = SplitRows(load_dataset(inputs.data), "train", student.max_length, student.targets)
    key = CacheKey(
        teacher=alignment.inputs["teacher"]["digest"],
        data=stage_input(inputs.data, "data")["digest"],
        layers=list(alignment.teacher),
        targets=student.targets,
        max_length=student.max_length,
        hidden_size=alignment.teacher_width,
        dtype=str(dtype).removeprefix("torch."),
    )
    projection = load_heads(Path(distillation.teacher))["user_projection.weight"]
    on_device = lambda: load_teacher().to(pick_device(training.device))
    batch_size = training.per_device_eval_batch_size
    return cached_teacher(distillation.teacher_cache, key, rows, projection, on_device, batch_size)


def main(argv: list[str] | None = None) -> None:
    llm = (EllmInputs, EllmArguments, DistillationArguments, LossArguments, GuideArguments, LlmTrainingArguments)
    kinds = (*llm, UpdateArguments, OutputArguments)
    parsed = parse_arguments(kinds, argv, description=__doc__, num_layers=4)
    inputs, student, distillation, loss, guide, training, update, output = parsed
    if update.update_from and (distillation.online or distillation.teacher_cache):
        raise InputError("--update_from goes with --teacher alone: an updated one (finetune.py), without --teacher_cache")
    if launched(__file__, training.launch, argv, shards=True):
        return
    prepare_base_model(student, training.device)
    check_guide(guide, student, inputs)
    alignment = align(distillation, student, inputs)
    student.start = resolve_start(student, None if distillation.online else alignment.teacher_width)
    precision = resolve_precision(training, load_backbone_config(student.base_model).hidden_size)
    guide_config, guide_input = describe_guide(guide)
    config = asdict(distillation) | guide_config
    del config["teacher"], config["teacher_cache"]  # an input with a digest, and a place: neither changes the result
    update_config, update_input = describe_update(update, "distill", inputs.data)
    extra = {
        "extra_config": config | update_config | loss.settings(),
        "extra_inputs": alignment.inputs | guide_input | update_input,
    }
    stage = open_stage("distill", output, student, inputs, training, precision, **extra)
    if stage.up_to_date:
        return
    with stage:
        seed_everything(training.seed)
        dtype, embeddings, text = DTYPES[precision], load_item_embeddings(inputs.embeddings), load_text_vectors(inputs.text)
        own_layers = alignment.supervised_layers(distillation), alignment.projected_layers(distillation)
        model = new_recommender(student, embeddings, dtype, *own_layers, text_vectors=text, seed=training.seed)
        if student.start == "teacher":
            start_from_teacher(model, load_heads(Path(distillation.teacher)))
        if update.update_from:
            go_on_from(model, Path(update.update_from))
        item_loss = choose_loss(loss, inputs.data)
        teacher = open_teacher(distillation, alignment, student, inputs, training, dtype, item_loss)
        place([model] if isinstance(teacher, CachedTeacher) else [model, teacher.model], pick_device(training.device))
        objective = DistillationObjective(teacher, alignment.student, distillation, item_loss)
        objective = guided(objective, guide, student, training.device)
        train_and_save(stage, trained_model(model, teacher), objective, student, inputs.data, training, precision, update)


if __name__ == "__main__":
    run_main(main)
