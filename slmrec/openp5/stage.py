"""The stage that trains an Open-P5: check inputs, train on prefixes, keep the best checkpoint by validation MRR, save it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from slmrec import processes
from slmrec.arguments import OutputArguments
from slmrec.artifacts import Stage, stage_input
from slmrec.catalogue import save_catalogue
from slmrec.data.dataset import SequenceDataset, load_dataset
from slmrec.errors import InputError
from slmrec.llm.backbone import backbone_input
from slmrec.openp5.arguments import OpenP5Arguments, OpenP5Inputs, OpenP5TrainingArguments
from slmrec.openp5.directory import check_base_model, new_openp5, restore_openp5, save_openp5
from slmrec.openp5.item_index import ItemIndex, build_index, load_index
from slmrec.openp5.model import openp5_objective
from slmrec.openp5.rows import PrefixRows
from slmrec.progress import say
from slmrec.training.llm_stage import DTYPES, describe_run, note_training, resume_point
from slmrec.training.trainer import RecommenderTrainer, hugging_face_arguments

NAME = "openp5"


def open_stage(
    output: OutputArguments, model: OpenP5Arguments, inputs: OpenP5Inputs, training: OpenP5TrainingArguments, precision: str
) -> Stage:
    """Check the inputs and describe the run. Raises InputError before anything is loaded or written."""
    check_base_model(model)
    described = {
        "data": stage_input(inputs.data, "data"),
        "base_model": backbone_input(model.base_model, inputs.check_base_model),
    }
    return describe_run(NAME, output, model, inputs.data, training, precision, described, {})


def train_and_save(
    stage: Stage, arguments: OpenP5Arguments, data: str, training: OpenP5TrainingArguments, precision: str
) -> None:
    """Build, train, and write the best model with its item index and history into the stage directory."""
    dataset = load_dataset(data)
    resumed = resume_point(stage, training)
    index = load_index(resumed) if resumed else new_index(dataset, arguments)  # clustering a large catalogue takes minutes
    model = new_openp5(arguments, index, dataset.num_users, DTYPES[precision])
    rows = PrefixRows(
        dataset,
        index,
        model.prompter,
        max_length=arguments.max_length,
        tasks=arguments.tasks,
        share=training.sample_share,
        seed=training.seed,
    )
    if rows.left_out:
        say(f"{rows.left_out} users have no history in their training part and give no training row")
    if not len(rows):
        raise InputError(f"{data}: no user has a training row")
    settings = hugging_face_arguments(training, stage.path, precision == "bf16")
    trainer = OpenP5Trainer(
        model,
        settings,
        objective=openp5_objective,
        rows=rows,
        settings=training,
        base_model=arguments.base_model,
        run=stage.identity(),
    )
    trainer.train(resume_from_checkpoint=resumed)
    if processes.first():
        save_openp5(model, arguments.base_model, stage.path)
        save_catalogue(data, stage.path)
    note_training(stage, trainer, model, len(rows))


def new_index(dataset: SequenceDataset, arguments: OpenP5Arguments) -> ItemIndex:
    """How items are written, said where the way that is asked for has nothing to do."""
    if arguments.indexing == "collaborative" and dataset.num_items <= arguments.cluster_size:
        say(
            f"{dataset.num_items} items are one cluster (--cluster_size {arguments.cluster_size}), so an id is a token of its own"
        )
    return build_index(dataset, arguments.indexing, arguments.index_seed, arguments.clusters, arguments.cluster_size)


class OpenP5Trainer(RecommenderTrainer):
    """The Trainer of the LLM stages on prefixes: an epoch draws its own, and a checkpoint is an Open-P5's."""

    def __init__(self, model: Any, args, *, rows: Any, settings: OpenP5TrainingArguments, **rest):
        super().__init__(model, args, rows=rows, settings=settings, **rest)
        self.add_callback(DrawPrefixes(rows))
        self.validated = some_users(rows.dataset.num_users, settings.valid_users, settings.seed)

    def _save(self, output_dir=None, state_dict=None):
        save_openp5(self.model, self.base_model, Path(output_dir or self.args.output_dir))

    def _restore(self, model, directory: Path) -> None:
        restore_openp5(model, directory)


class DrawPrefixes(TrainerCallback):
    """Tells the rows which epoch begins."""

    def __init__(self, rows: PrefixRows):
        self.rows = rows

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.rows.begin_epoch(int(state.epoch + 1e-6))


def some_users(num_users: int, number: int | None, seed: int) -> np.ndarray | None:
    """So many of the users, drawn by the seed, int64 in their order; None, for all, where no number is given or as many."""
    if number is None or number >= num_users:
        return None
    return np.sort(np.random.default_rng(seed).choice(num_users, number, replace=False))
