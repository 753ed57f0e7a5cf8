"""The Hugging Face Trainer for both LLM stages: an objective instead of a model loss, our protocol instead of a loss on rows."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainingArguments

from slmrec import processes
from slmrec.artifacts import read_json
from slmrec.checkpoints import LIST, new_checkpoint, remove_old_checkpoints
from slmrec.command_line import flags_of
from slmrec.data.batches import ShuffledRows, SplitRows, collate_share
from slmrec.errors import InputError
from slmrec.evaluation.metrics import METRICS
from slmrec.evaluation.protocol import NotFiniteError, evaluate_recommender
from slmrec.llm.ellmrec import EllmModel, ForwardPass
from slmrec.llm.model_directory import restore_weights, save_weights
from slmrec.llm.sharding import data_parallel, shards_weights
from slmrec.progress import Counter, say
from slmrec.runtime import pick_device
from slmrec.training.arguments import LlmTrainingArguments
from slmrec.training.divergence import LossWatch
from slmrec.training.run_log import RunLog

Objective = Callable[[ForwardPass, dict[str, torch.Tensor]], dict[str, torch.Tensor]]
TRAINED = ("epoch", "learning_rate", "grad_norm")  # beside the loss and its terms: what of the Trainer's log lines is a curve


def hugging_face_arguments(arguments: LlmTrainingArguments, output_dir: Path, bf16: bool) -> TrainingArguments:
    """Our training arguments as transformers.TrainingArguments; best checkpoint by validation MRR (Section 5.1).

    Raises InputError for what transformers refuses.
    """
    own = {"precision", "device", "candidates_seed", "num_candidates", "resume_from_checkpoint", "report_to", "launch"}
    own |= {"gradient_checkpointing"}  # EllmRecommender.recompute_activations
    names = flags_of(LlmTrainingArguments).keys() - own  # a stage's arguments may be more than these
    passed = {name: getattr(arguments, name) for name in names}
    try:
        built = TrainingArguments(
            output_dir=str(output_dir),
            eval_strategy="steps",
            eval_steps=arguments.save_steps,
            load_best_model_at_end=True,
            metric_for_best_model="MRR",
            greater_is_better=True,
            bf16=bf16,
            use_cpu=pick_device(arguments.device).type == "cpu",
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            ddp_find_unused_parameters=False,
            ddp_broadcast_buffers=False,  # nothing changes them, and item embeddings are large
            report_to="none",  # ShowAndLog does it
            disable_tqdm=True,
            **passed,
        )
    except ValueError as error:
        raise InputError(f"training arguments: {str(error).splitlines()[0]}") from None
    if built.n_gpu > 1:  # batches are flat, DataParallel would cut them in the wrong places; torchrun uses several GPUs
        built._n_gpu = 1
    return built


class LogBeforeValidation(TrainerCallback):
    """Makes the Trainer log at each validation too, so that the history has the loss terms whatever --logging_steps is."""

    def on_step_end(self, args, state, control, **kwargs):
        if control.should_evaluate:
            control.should_log = True


class ShowAndLog(TrainerCallback):
    """Keeps the stage's line on the terminal and the run's log, from the first step until `close`."""

    def __init__(self, report_to: str):
        self.report_to, self.best, self.loss = report_to, (0.0, 0), None
        self._open = ExitStack()

    def on_train_begin(self, args, state, control, **kwargs):
        log = RunLog(self.report_to, Path(args.output_dir), step=state.global_step, config=args.to_dict())
        counter = Counter("training", state.max_steps, initial=state.global_step, unit="steps")
        self.log, self.counter = self._open.enter_context(log), self._open.enter_context(counter)
        self.best = (state.best_metric or 0.0, state.best_global_step)
        if state.max_steps < args.warmup_steps:
            reached = args.learning_rate * state.max_steps / args.warmup_steps
            say(
                f"all {state.max_steps} steps are warm-up (--warmup_steps {args.warmup_steps:g}): the learning rate never passes "
                f"{reached:.2g}; more epochs or smaller batches give more steps"
            )
        self.show()

    def on_step_end(self, args, state, control, **kwargs):
        self.counter.update()

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.loss = logs.get("loss", self.loss)
        validated = {name.removeprefix("eval_"): value for name, value in logs.items() if name.startswith("eval_")}
        trained = {name: value for name, value in logs.items() if name in TRAINED or name.startswith("loss")}
        self.log.add("eval", validated, state.global_step)
        self.log.add("train", trained, state.global_step)

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        if metrics["eval_MRR"] > self.best[0]:
            self.best = (metrics["eval_MRR"], state.global_step)
        self.show()

    def show(self) -> None:
        """The best validation so far and the latest loss."""
        mrr, step = self.best
        parts = [f"validation MRR {mrr:.3f} at step {step}"] if mrr else []
        self.counter.show(", ".join(parts + ([f"loss {self.loss:.3f}"] if self.loss is not None else [])))

    def close(self) -> None:
        self._open.close()


class RecommenderTrainer(Trainer):
    """Trains an E-LLMRec by an objective and validates it by ranking.

    Args:
        objective: `objective(model, batch)` gives named scalar terms, of which `loss` is minimised and all are logged.
        rows: the training rows; validation uses the same data set.
        settings: our training arguments (`hugging_face_arguments` made `args` of them).
        base_model: recorded in every checkpoint.
        run: what this is a run of (`Stage.identity()`), recorded likewise.
    """

    control: TrainerControl

    def __init__(
        self,
        model: EllmModel,
        args: TrainingArguments,
        *,
        objective: Objective,
        rows: SplitRows,
        settings: LlmTrainingArguments,
        base_model: str,
        run: dict | None = None,
    ):
        super().__init__(model, args, train_dataset=rows, eval_dataset=rows, data_collator=partial(collate_share, rows))
        self.remove_callback(PrinterCallback)
        self.add_callback(LogBeforeValidation())
        self.shown = ShowAndLog(settings.report_to)
        self.add_callback(self.shown)
        self.objective, self.settings, self.base_model = objective, settings, base_model
        self.run = run or {}
        self.dataset = rows.dataset
        self.validated: np.ndarray | None = None  # int64, the users that validation ranks; None: all
        self.watch = LossWatch(rows.dataset.num_items, settings.learning_rate)
        self._started, self._seconds_before = time.time(), 0.0
        self._growing: Path | None = None  # where a checkpoint is being written
        self._term_sums: dict[str, float] = defaultdict(float)
        self._term_steps = 0.0

    def get_train_dataloader(self):
        """The batches of one process, whose size is that of all processes together; `collate_share` takes this one's part."""
        loader = DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size * processes.number(),
            sampler=ShuffledRows(len(self.train_dataset), self.args.seed),
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        alone = {"num_processes": 1, "process_index": 0}  # accelerate's own sharing repeats rows, or leaves some without a batch
        return prepare_data_loader(loader, self.args.device, **alone)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The objective's loss, weighted by this batch's share of the targets of the optimiser step, those of all processes.

        So (batch 8), (2 batches of 4, accumulated) and (4 in each of 2 processes) give the same gradient also when they hold
        different numbers of targets. Afterwards the Trainer divides by the number of accumulated batches, and averages over the
        processes, hence these factors.
        """
        terms = self.objective(model, inputs)
        self._see_divergence(terms)
        share = int(inputs["own_targets"]) / int(num_items_in_batch)
        for name, term in terms.items():
            self._term_sums[name] += float(term.detach()) * share
        self._term_steps += 1 / self.current_gradient_accumulation_steps
        return terms["loss"] * share * self.current_gradient_accumulation_steps * processes.number()

    def _see_divergence(self, terms: dict[str, torch.Tensor]) -> None:
        """Distances from a teacher may grow from next to nothing; the next-item loss, where there is one, starts at its worst."""
        step = self.state.global_step + 1
        self.watch.see(step, float(terms.get("ce", terms["loss"]).detach()))
        self.watch.see_finite(step, float(terms["loss"].detach()))

    def _get_num_items_in_batch(self, batch_samples, device):
        return sum(int(batch["all_targets"]) for batch in batch_samples)

    def log(self, logs, *args, **kwargs):
        """Add the mean of every term of the objective over the optimiser steps since the last log line."""
        if "loss" in logs and self._term_steps:
            totals = processes.summed(np.array(list(self._term_sums.values())))
            means = {f"loss_{name}": float(total) / self._term_steps for name, total in zip(self._term_sums, totals, strict=True)}
            del means["loss_loss"]  # the Trainer's own
            logs = logs | means
            self._term_sums.clear()
            self._term_steps = 0.0
        super().log(logs, *args, **kwargs)

    def train(self, *args, **kwargs):
        self._started = time.time()
        if not processes.first():
            torch.manual_seed(self.args.seed + processes.rank())  # dropout of its own; rows and weights are everybody's
        try:
            return super().train(*args, **kwargs)
        finally:
            self.shown.close()

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Validation by the 1 + 999 protocol; the best checkpoint is chosen by its MRR."""
        try:
            evaluation = evaluate_recommender(
                self.model,
                self.dataset,
                "valid",
                seed=self.settings.candidates_seed,
                num_candidates=self.settings.num_candidates,
                batch_size=self.args.per_device_eval_batch_size,
                device=self.args.device,
                users=self.validated,
            )
        except NotFiniteError as error:
            raise self.watch.diverged(self.state.global_step, str(error)) from None
        sampled = evaluation.metrics["sampled"]
        metrics = {f"{metric_key_prefix}_{name}": sampled[name] for name in METRICS}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _wrap_model(self, model, *args, **kwargs):
        if not shards_weights() or model is not self.model:
            return super()._wrap_model(model, *args, **kwargs)
        prepared = self.accelerator.prepare_model(model, evaluation_mode=True)  # mixed precision, and nothing around it
        return data_parallel(prepared, self.args.device)

    # -- checkpoints: only what was trained, in our own layout, and no pickle ---------------------------------------------------

    def save_model(self, *args, **kwargs):
        if self.args.should_save:  # the first process
            super().save_model(*args, **kwargs)

    def _save(self, output_dir=None, state_dict=None):
        save_weights(self.model, self.base_model, Path(output_dir or self.args.output_dir))

    def seconds(self) -> float:
        """Of training so far, those included that led to the checkpoint from which it went on."""
        return self._seconds_before + time.time() - self._started

    def _get_output_dir(self, trial):
        return str(self._growing or self.args.output_dir)

    def _save_checkpoint(self, model, trial):
        directory = Path(self.args.output_dir)
        description = {"run": self.run, "train_seconds": round(self.seconds(), 2)}
        with new_checkpoint(directory, self.state.global_step, description) as self._growing:
            super()._save_checkpoint(model, trial)
        self._growing = None
        if self.args.should_save:
            remove_old_checkpoints(directory, self.args.save_total_limit, self.state.best_global_step)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        directory = Path(resume_from_checkpoint)
        self._seconds_before = read_json(directory / LIST)["train_seconds"]
        self._restore(model or self.model, directory)

    def _restore(self, model, directory: Path) -> None:
        restore_weights(model, directory)

    def _run_epoch(self, *args, **kwargs):
        """A run that was killed after its last step is not trained further; the Trainer would take one more step."""
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, *args, **kwargs):
        """The state names the best checkpoint by the path that it was written under; it lies in the output directory."""
        self.state.best_model_checkpoint = str(Path(self.args.output_dir) / f"checkpoint-{self.state.best_global_step}")
        return super()._finalize_training(*args, **kwargs)

    def _load_best_model(self):
        self._restore(self.model, Path(self.state.best_model_checkpoint))
