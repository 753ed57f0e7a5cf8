"""What finetune.py and distill.py share: open inputs, train with an objective, save the best model as a stage directory."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from slmrec import processes
from slmrec.arguments import OutputArguments
from slmrec.artifacts import Stage, read_manifest, require_same_item_map, stage_input
from slmrec.catalogue import save_catalogue
from slmrec.checkpoints import checkpoint_input, copy_best, last_whole_checkpoint, require_same_training
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import load_dataset
from slmrec.embeddings import save_item_embeddings, save_text_vectors
from slmrec.errors import InputError
from slmrec.llm.arguments import EllmArguments, EllmInputs
from slmrec.llm.backbone import backbone_input, count_parameters
from slmrec.llm.base_model import local_base_model
from slmrec.llm.ellmrec import EllmModel
from slmrec.llm.four_bits import FLAG, require_four_bits
from slmrec.llm.model_directory import check_base_model, resolve_train_strategy, save_weights
from slmrec.llm.sharding import check_sharding
from slmrec.progress import say
from slmrec.runtime import pick_device
from slmrec.training.arguments import LlmTrainingArguments, UpdateArguments
from slmrec.training.trainer import Objective, RecommenderTrainer, hugging_face_arguments
from slmrec.training.update import update_rows

BF16_CPU_WIDTH = 256  # see resolve_precision
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # in which weights that are not trained are kept
# Training arguments that change how a run goes but not what it computes; they are no part of its identity.
BOOKKEEPING = {"device", "launch", "report_to", "resume_from_checkpoint", "logging_steps", "save_total_limit"}
BOOKKEEPING |= {"per_device_eval_batch_size", "gradient_checkpointing"}


def prepare_base_model(model: EllmArguments, device: str) -> None:
    """Let `model.base_model` be a checkpoint directory or hub name, made if need be.

    Raises InputError, before it is made, where its weights cannot be held as asked on `device`.
    """
    if model.load_in_4bit:
        require_four_bits(FLAG, device)
    model.base_model = local_base_model(model.base_model, model.models_dir)


def open_stage(
    name: str,
    output: OutputArguments,
    model: EllmArguments,
    inputs: EllmInputs,
    training: LlmTrainingArguments,
    precision: str,
    *,
    extra_config: dict | None = None,
    extra_inputs: dict | None = None,
) -> Stage:
    """Check that the inputs fit together and describe the run. Raises InputError before anything is loaded or written.

    `precision` is that of `resolve_precision`.
    """
    check_base_model(model)
    check_sharding(model)
    require_same_item_map(inputs.data, inputs.embeddings)
    described = {
        "data": stage_input(inputs.data, "data"),
        "embeddings": stage_input(inputs.embeddings, "embeddings"),
        "base_model": backbone_input(model.base_model, inputs.check_base_model),
    }
    if inputs.text:
        require_same_item_map(inputs.data, inputs.text)
        described["text"] = stage_input(inputs.text, "text")
    described |= extra_inputs or {}
    return describe_run(name, output, model, inputs.data, training, precision, described, extra_config or {})


def describe_run(
    name: str,
    output: OutputArguments,
    model: Any,
    data: str,
    training: LlmTrainingArguments,
    precision: str,
    described: dict,
    extra_config: dict,
) -> Stage:
    """The stage of a training run, for every stage that trains a decoder: `described` are its inputs, checked before.

    `model` is a dataclass with `base_model`, `models_dir` and a train strategy. Raises InputError when a checkpoint to go on from
    is of another run.
    """
    config = asdict(model) | {"train_strategy": resolve_train_strategy(model)}
    del config["base_model"], config["models_dir"]  # an input with a digest, not a name, and a place
    if not config.get("load_in_4bit"):  # runs from before it are the same runs
        config.pop("load_in_4bit", None)
    config |= {key: value for key, value in asdict(training).items() if key not in BOOKKEEPING} | {"precision": precision}
    config["per_device_train_batch_size"] *= processes.number()  # 2 processes x 128 rows are the run of 256 rows in one
    config |= extra_config
    if training.resume_from_checkpoint:
        checkpoint = checkpoint_input(training.resume_from_checkpoint)
        require_same_training(training.resume_from_checkpoint, name, config, described)
        described["checkpoint"] = checkpoint
    return Stage(
        name,
        output.output_dir,
        config,
        described,
        overwrite=output.overwrite_output_dir,
        resumable=True,
        item_map=read_manifest(data)["item_map"],
        seed=training.seed,
    )


def resolve_precision(training: LlmTrainingArguments, hidden_size: int) -> str:
    """`auto` is bf16 (mixed precision) where it was measured to pay, fp32 elsewhere.

    That is on a GPU that has it, and on a CPU that multiplies bf16 natively from a hidden size of 256 on: there a training step
    is 1.5 times as fast, at 128 only 1.1 times (results/efficiency/cpu_precision_*.json).
    """
    device = pick_device(training.device)
    if training.precision != "auto":
        return training.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if hidden_size >= BF16_CPU_WIDTH and multiplies_bf16_natively() else "fp32"


def multiplies_bf16_natively() -> bool:
    """Whether this CPU has instructions for bf16 products."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def train_and_save(
    stage: Stage,
    model: EllmModel,
    objective: Objective,
    arguments: EllmArguments,
    data: str,
    training: LlmTrainingArguments,
    precision: str,
    update: UpdateArguments | None = None,
) -> None:
    """Train, keep the checkpoint with the best validation MRR, and write it with its history into the stage directory."""
    dataset = load_dataset(data)
    users = update_rows(dataset, update or UpdateArguments(), training.seed)
    rows = SplitRows(dataset, "train", arguments.max_length, arguments.targets, users)
    if rows.left_out:
        say(f"{rows.left_out} users have no history in their training part and give no training row")
    if not len(rows):
        raise InputError(f"{data}: no user has a training row" + (" with something new" if users is not None else ""))
    if len(model.item_matrix()) != rows.dataset.num_items + 1:
        embeddings, found = stage.inputs["embeddings"]["directory"], len(model.item_matrix()) - 1
        raise InputError(f"{embeddings}: the embeddings of {found} items, {data} has {rows.dataset.num_items}")
    settings = hugging_face_arguments(training, stage.path, precision == "bf16")
    for part in model.parts().values() if training.gradient_checkpointing else ():
        part.recompute_activations()
    trainer = RecommenderTrainer(
        model, settings, objective=objective, rows=rows, settings=training, base_model=arguments.base_model, run=stage.identity()
    )
    trainer.train(resume_from_checkpoint=resume_point(stage, training))
    if processes.first():
        save_weights(model, arguments.base_model, stage.path)
        save_item_embeddings(model.item_matrix(), stage.path)
        _save_text(model, stage.path)
        save_catalogue(data, stage.path)
    note_training(stage, trainer, model, len(rows))


def note_training(stage: Stage, trainer: RecommenderTrainer, model: Any, num_rows: int) -> None:
    """Put what a training run came to into its stage: metrics, device, and what its line says."""
    stage.device = str(trainer.args.device)
    stage.metrics = training_metrics(trainer, model, trainer.seconds(), num_rows)
    best = stage.metrics["valid"]["sampled"]["MRR"]
    stage.result = f"best validation MRR {best:.3f} at step {stage.metrics['best_step']}"
    stage.count = f"{trainer.state.global_step}/{trainer.state.max_steps} steps"


def _save_text(model: EllmModel, directory: Path) -> None:
    recommends = model.parts()[""]
    if recommends.text_projection is not None:
        save_text_vectors(recommends.text_vectors, directory)


def resume_point(stage: Stage, training: LlmTrainingArguments) -> str | None:
    """The last checkpoint of this very run if it was killed, else the one that the user names, else none.

    The first process looks, and tells the others.
    """
    return processes.same(_resume_point(stage, training) if processes.first() else None)


def _resume_point(stage: Stage, training: LlmTrainingArguments) -> str | None:
    own = last_whole_checkpoint(stage.path, stage.identity())
    if own:
        say(f"Going on from {own}")
        return str(own)
    if training.resume_from_checkpoint:
        copy_best(Path(training.resume_from_checkpoint), stage.path)
    return training.resume_from_checkpoint


def training_metrics(trainer: RecommenderTrainer, model: Any, seconds: float, rows: int) -> dict:
    """What a finished training says of itself: the best validation, counts, seconds, and the history. `model` has `parts()`."""
    history = validation_history(trainer.state.log_history)
    best = max(history, key=lambda entry: entry["valid"]["MRR"])
    counts = {place: count_parameters(part) for place, part in model.parts().items()}
    own = counts.pop("")  # the model that is validated and exported; trained along: a teacher
    return {
        "valid": {"sampled": best["valid"]},
        "best_step": best["step"],
        "steps": trainer.state.global_step,
        "training_rows": rows,
        "train_seconds": round(seconds, 2),
        **own,
        **({"trained_along": counts} if counts else {}),
        "history": history,
    }


def validation_history(log_history: list[dict]) -> list[dict]:
    """One entry per validation: its metrics, and the mean of every loss term over the steps since the one before."""
    history: list[dict] = []
    terms: dict[str, list[float]] = defaultdict(list)
    for entry in log_history:
        if "eval_MRR" in entry:
            valid = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
            losses = {name: sum(values) / len(values) for name, values in terms.items()}
            history.append({"step": entry["step"], "valid": valid, "train": losses})
            terms.clear()
        else:
            for name, value in entry.items():
                if name.startswith("loss"):
                    terms[name].append(value)
    return history
