"""Stage 4: distil a teacher into a student with fewer layers, block by block (paper, Section 4).

    python distill.py --teacher runs/demo/teacher --num_layers 4 --num_blocks 4 --lambda_cos 1 --lambda_norm 0.1 --lambda_ms 1 \
        --data runs/demo/data --embeddings runs/demo/embeddings --base_model runs/demo/backbone --output_dir runs/demo/student

With --online instead of --teacher an untrained teacher learns beside the student (Section 5.3, RQ4); the student lies in the
output directory as always, its teacher in the sub-directory `teacher`.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from transformers import HfArgumentParser

from slmrec.arguments import OutputArguments
from slmrec.artifacts import stage_input
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import load_dataset
from slmrec.distillation.arguments import DistillationArguments
from slmrec.distillation.cache import CachedTeacher, CacheKey, cached_teacher
from slmrec.distillation.compatibility import Opposition, oppose_new_teacher, oppose_trained_teacher
from slmrec.distillation.joint import JointRecommender
from slmrec.distillation.objective import DistillationObjective
from slmrec.distillation.teacher import FrozenTeacher, LearningTeacher
from slmrec.embeddings import load_item_embeddings
from slmrec.llm.arguments import EllmArguments, EllmInputs
from slmrec.llm.checkpoint import load_ellmrec, load_user_projection, model_input, new_recommender
from slmrec.runtime import pick_device, run_main, seed_everything
from slmrec.training.arguments import LlmTrainingArguments
from slmrec.training.llm_stage import frozen_dtype, open_stage, train_and_save


def open_teacher(
    distillation: DistillationArguments,
    model_arguments: EllmArguments,
    inputs: EllmInputs,
    training: LlmTrainingArguments,
    opposition: Opposition,
    digest: str,
) -> FrozenTeacher | CachedTeacher:
    """The trained teacher, or its states from --teacher_cache, for which it is loaded only if some are missing."""
    dtype = frozen_dtype(training)

    def load_teacher() -> FrozenTeacher:
        model = load_ellmrec(distillation.teacher, encoding=model_arguments.encoding, dtype=dtype)
        return FrozenTeacher(model, opposition.teacher).to(pick_device(training.device))

    if not distillation.teacher_cache:
        return load_teacher()
    rows = SplitRows(load_dataset(inputs.data), "train", model_arguments.max_length, model_arguments.targets)
    key = CacheKey(
        teacher=digest,
        data=stage_input(inputs.data, "data")["digest"],
        layers=list(opposition.teacher),
        targets=model_arguments.targets,
        max_length=model_arguments.max_length,
        hidden_size=opposition.teacher_width,
        dtype=str(dtype).removeprefix("torch."),
    )
    projection = load_user_projection(Path(distillation.teacher))
    batch_size = training.per_device_eval_batch_size
    return cached_teacher(distillation.teacher_cache, key, rows, projection, load_teacher, batch_size)


def main(argv: list[str] | None = None) -> None:
    parser = HfArgumentParser((EllmInputs, EllmArguments, DistillationArguments, LlmTrainingArguments, OutputArguments))
    parser.set_defaults(num_layers=4)
    inputs, model_arguments, distillation, training, output = parser.parse_args_into_dataclasses(argv)
    if distillation.online:
        opposition, teacher_input = oppose_new_teacher(distillation, model_arguments), {}
    else:
        opposition = oppose_trained_teacher(distillation, model_arguments, inputs)
        teacher_input = {"teacher": model_input(distillation.teacher, "finetune")}
    config = asdict(distillation)
    del config["teacher"], config["teacher_cache"]  # an input with a digest, and a place: neither changes the result
    stage = open_stage("distill", output, model_arguments, inputs, training, extra_config=config, extra_inputs=teacher_input)
    if stage.up_to_date:
        return
    with stage:
        seed_everything(training.seed)
        supervised = opposition.student[:-1] if distillation.lambda_ms > 0 else ()
        embeddings, dtype = load_item_embeddings(inputs.embeddings), frozen_dtype(training)
        model = new_recommender(model_arguments, embeddings, dtype, supervised, opposition.projected_layers(distillation))
        if distillation.online:
            deeper = replace(model_arguments, num_layers=distillation.teacher_layers)
            teacher = LearningTeacher(new_recommender(deeper, embeddings, dtype), opposition.teacher)
            model = JointRecommender(model, teacher.model)
        else:
            digest = teacher_input["teacher"]["digest"]
            teacher = open_teacher(distillation, model_arguments, inputs, training, opposition, digest)
        objective = DistillationObjective(teacher, opposition.student, distillation)
        train_and_save(stage, model, objective, model_arguments, inputs.data, training)


if __name__ == "__main__":
    run_main(main)
