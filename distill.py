"""Stage 4: distil a trained teacher into a student with fewer layers, block by block (paper, Section 4).

    python distill.py --teacher runs/demo/teacher --num_layers 4 --num_blocks 4 --lambda_cos 1 --lambda_norm 0.1 --lambda_ms 1 \
        --data runs/demo/data --embeddings runs/demo/embeddings --base_model runs/demo/backbone --output_dir runs/demo/student
"""

from __future__ import annotations

from dataclasses import asdict

from transformers import HfArgumentParser

from slmrec.artifacts import stage_input
from slmrec.config import DistillationArguments, EllmArguments, EllmInputs, LlmTrainingArguments, OutputArguments
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import load_dataset
from slmrec.distillation.cache import CachedTeacher, CacheKey, cached_teacher
from slmrec.distillation.compatibility import require_fitting_teacher
from slmrec.distillation.objective import DistillationObjective
from slmrec.distillation.teacher import FrozenTeacher
from slmrec.embeddings import load_item_embeddings
from slmrec.llm.backbone import shallow_config
from slmrec.llm.checkpoint import load_ellmrec, model_input, new_recommender
from slmrec.runtime import pick_device, run_main, seed_everything
from slmrec.training.llm_stage import frozen_dtype, open_stage, train_and_save


def open_teacher(
    distillation: DistillationArguments,
    model_arguments: EllmArguments,
    inputs: EllmInputs,
    training: LlmTrainingArguments,
    layers: tuple[int, ...],
    digest: str,
) -> FrozenTeacher | CachedTeacher:
    """The trained teacher, or its states from --teacher_cache, for which it is loaded only if some are missing."""
    dtype = frozen_dtype(training)

    def load_teacher() -> FrozenTeacher:
        model = load_ellmrec(distillation.teacher, encoding=model_arguments.encoding, dtype=dtype)
        return FrozenTeacher(model, layers).to(pick_device(training.device))

    if not distillation.teacher_cache:
        return load_teacher()
    rows = SplitRows(load_dataset(inputs.data), "train", model_arguments.max_length, model_arguments.targets)
    key = CacheKey(
        teacher=digest,
        data=stage_input(inputs.data, "data")["digest"],
        layers=list(layers),
        targets=model_arguments.targets,
        max_length=model_arguments.max_length,
        hidden_size=shallow_config(model_arguments.base_model, model_arguments.num_layers).hidden_size,
        dtype=str(dtype).removeprefix("torch."),
    )
    return cached_teacher(distillation.teacher_cache, key, rows, load_teacher, training.per_device_eval_batch_size)


def main(argv: list[str] | None = None) -> None:
    parser = HfArgumentParser((EllmInputs, EllmArguments, DistillationArguments, LlmTrainingArguments, OutputArguments))
    parser.set_defaults(num_layers=4)
    inputs, model_arguments, distillation, training, output = parser.parse_args_into_dataclasses(argv)
    teacher_layers, student_layers = require_fitting_teacher(distillation, model_arguments, inputs)
    config = asdict(distillation)
    del config["teacher"], config["teacher_cache"]  # an input with a digest, and a place: neither changes the result
    teacher_input = {"teacher": model_input(distillation.teacher, "finetune")}
    stage = open_stage("distill", output, model_arguments, inputs, training, extra_config=config, extra_inputs=teacher_input)
    if stage.up_to_date:
        return
    with stage:
        seed_everything(training.seed)
        supervised = student_layers[:-1] if distillation.lambda_ms > 0 else ()
        embeddings = load_item_embeddings(inputs.embeddings)
        student = new_recommender(model_arguments, embeddings, frozen_dtype(training), supervised)

        digest = teacher_input["teacher"]["digest"]
        teacher = open_teacher(distillation, model_arguments, inputs, training, teacher_layers, digest)
        objective = DistillationObjective(teacher, student_layers, distillation)
        train_and_save(stage, student, objective, model_arguments, inputs.data, training)


if __name__ == "__main__":
    run_main(main)
