"""Training an encoder: epochs, selection on validation MRR, early stopping, resuming.

Nothing here knows a particular model; what is minimised comes from `Encoder.training_loss`.
"""

from __future__ import annotations

import logging
import math
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from slmrec import processes
from slmrec.data.batches import Batch, SplitRows, collate_share
from slmrec.data.dataset import SequenceDataset
from slmrec.encoders.encoder import Encoder
from slmrec.encoders.item_losses import choose_item_loss
from slmrec.errors import InputError
from slmrec.evaluation.metrics import METRICS
from slmrec.evaluation.protocol import NotFiniteError, evaluate_recommender
from slmrec.files import written_whole
from slmrec.progress import Counter, say, track
from slmrec.training.divergence import LossWatch
from slmrec.training.run_log import RunLog

CHECKPOINT = "checkpoint.pt"
NO_TERMS = {"epoch", "loss", "valid_MRR", "train_seconds", "valid_seconds"}  # the rest of a history entry are terms of the loss

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopSettings:
    """What determines a training run beside the model and the data; see TrainEncoderArguments for the fields.

    The defaults are for models that only count, which have no such settings.
    """

    targets: str = "all"
    learning_rate: float = 0.0
    batch_size: int = 1
    num_epochs: int = 1
    patience: int = 1
    weight_decay: float = 0.0
    seed: int = 0
    loss: str = "ce"
    num_negatives: int = 1
    pretrain_epochs: int = 0
    precision: str = "fp32"


@dataclass
class Progress:
    """Where a run stands after an epoch.

    Attributes:
        history: one entry per finished epoch: epoch (from 1), each loss term, valid_MRR, train_seconds, valid_seconds; a
            pretraining epoch has no validation.
        best: state dict of the epoch with the highest validation MRR (the earliest of equals).
    """

    history: list[dict]
    best: dict[str, torch.Tensor]

    @property
    def best_epoch(self) -> int:
        """0 before the first epoch that was validated."""
        validated = [entry for entry in self.history if "valid_MRR" in entry]
        return max(validated, key=lambda entry: entry["valid_MRR"])["epoch"] if validated else 0

    def finished(self, settings: LoopSettings) -> bool:
        epoch = len(self.history)
        if epoch <= settings.pretrain_epochs:
            return False
        return epoch - settings.pretrain_epochs >= settings.num_epochs or epoch - self.best_epoch >= settings.patience


def train_encoder(
    model: Encoder,
    dataset: SequenceDataset,
    settings: LoopSettings,
    directory: Path,
    device: torch.device,
    report_to: str = "tensorboard",
    users: np.ndarray | None = None,
) -> list[dict]:
    """Train until validation MRR has not risen for `patience` epochs, and leave the best epoch's weights in the model.

    Writes `checkpoint.pt` into the directory after each epoch and goes on from it when it is there. It stays: the stage removes
    it once weights and manifest are whole. Raises InputError at the step at which training diverges.
    Several processes share the rows of each step: `batch_size` is that of all together, and the first one writes.
    On the CPU a resumed run gives exactly the weights of an uninterrupted one. Scalars go where `report_to` says, see RunLog.
    A model without anything to train is prepared and validated, which is its one epoch, and nothing is written.
    `users`, int64, are those whose rows are trained on; default: all. A model prepares on all of them in any case.

    Returns:
        The history, see Progress.
    """
    rows = SplitRows(dataset, "train", model.max_length, settings.targets)
    if not len(rows):
        raise InputError("no user has a training target with a history before it (four actions are needed)")
    if rows.left_out:
        logger.info("%d of %d users have three actions and give no training row", rows.left_out, dataset.num_users)
    started = time.perf_counter()
    model.prepare(rows)
    rows = rows if users is None else SplitRows(dataset, "train", model.max_length, settings.targets, users)
    if not len(rows):
        raise InputError("nothing new to train on (the new actions are the targets of validation and test, or follow none)")
    model.to(device)
    if not is_trained(model):
        return [validated({"epoch": 1}, model, rows, started, device)[0]]
    optimizer = new_optimizer(model, settings)
    checkpoint = directory / CHECKPOINT
    progress = load_checkpoint(checkpoint, model, optimizer, device) or Progress([], {})
    watch = LossWatch(dataset.num_items, settings.learning_rate)
    steps = math.ceil(len(rows) / settings.batch_size)  # of an epoch
    done, epochs = len(progress.history), settings.pretrain_epochs + settings.num_epochs
    log = RunLog(report_to, directory, step=done * steps, config=vars(settings))
    with log, Counter("training", epochs, initial=done, unit="epochs") as counter:
        while not progress.finished(settings):
            entry, metrics = run_epoch(model, rows, optimizer, settings, len(progress.history) + 1, device, watch)
            progress.history.append(entry)
            record(entry, metrics, settings, log, steps)
            counter.update()
            counter.show(standing(progress))
            if entry["epoch"] == settings.pretrain_epochs:
                optimizer = new_optimizer(model, settings)  # another objective begins: its moments start at zero
                watch = LossWatch(dataset.num_items, settings.learning_rate)
            if progress.best_epoch == entry["epoch"]:
                progress.best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
            if processes.first():
                save_checkpoint(checkpoint, model, optimizer, progress)
    model.load_state_dict(progress.best)
    return progress.history


def is_trained(model: Encoder) -> bool:
    """Whether anything in it learns; other models count, or know all they will ever know."""
    return any(parameter.requires_grad for parameter in model.parameters())


def new_optimizer(model: Encoder, settings: LoopSettings) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def run_epoch(
    model: Encoder,
    rows: SplitRows,
    optimizer: torch.optim.Optimizer,
    settings: LoopSettings,
    epoch: int,
    device: torch.device,
    watch: LossWatch,
) -> tuple[dict, dict]:
    """One pass over the training rows, then (but for pretraining) validation; returns the epoch's history entry and metrics."""
    started = time.perf_counter()
    terms = train_epoch(model, rows, optimizer, settings, epoch, device, watch)
    entry = {"epoch": epoch, "loss": terms.pop("total"), **terms}
    if epoch <= settings.pretrain_epochs:
        return entry | {"train_seconds": round(time.perf_counter() - started, 3)}, {}
    try:
        return validated(entry, model, rows, started, device)
    except NotFiniteError as error:
        raise watch.diverged(epoch * math.ceil(len(rows) / settings.batch_size), str(error)) from None


def validated(
    entry: dict, model: Encoder, rows: SplitRows, started: float, device: torch.device
) -> tuple[dict, dict[str, float]]:
    """An epoch's history entry completed by its validation MRR and the seconds of both parts, and all validation metrics.

    `started` is when the training of the epoch began.
    """
    trained = time.perf_counter()
    metrics = evaluate_recommender(model, rows.dataset, "valid", device=device).metrics["sampled"]
    seconds = {"train_seconds": round(trained - started, 3), "valid_seconds": round(time.perf_counter() - trained, 3)}
    return entry | {"valid_MRR": metrics["MRR"], **seconds}, metrics


def train_epoch(
    model: Encoder,
    rows: SplitRows,
    optimizer: torch.optim.Optimizer,
    settings: LoopSettings,
    epoch: int,
    device: torch.device,
    watch: LossWatch,
) -> dict[str, float]:
    """One pass over the training rows; returns the mean of each loss term per target. Raises InputError when it diverges."""
    model.train()
    if not processes.first():
        torch.manual_seed(hash((settings.seed, epoch, processes.rank())))  # dropout of its own, also after a kill
    sums: dict[str, torch.Tensor] = {}
    num_targets = 0
    batches = epoch_batches(rows, settings.batch_size, settings.seed, epoch)
    num_batches = math.ceil(len(rows) / settings.batch_size)
    objective: nn.Module = Objective(model, settings, pretraining=epoch <= settings.pretrain_epochs)
    if processes.number() > 1:
        objective = DistributedDataParallel(objective, broadcast_buffers=False, static_graph=True)
    step, last = (epoch - 1) * num_batches, None
    for batch in track(batches, f"epoch {epoch}", num_batches, "steps"):
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        weight, all_targets = int(batch.pop("own_targets")), int(batch.pop("all_targets"))
        terms = train_step(objective, batch, optimizer, weight / all_targets)
        if last is not None:  # looked at one step later: a GPU need not wait for it
            watch.see(step, float(last))
        step, last = step + 1, terms["total"].detach()
        num_targets += all_targets
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + weight * value.detach().double()
    assert last is not None  # there are rows
    watch.see(step, float(last))
    totals = processes.summed(np.array([float(total) for total in sums.values()]))
    return {name: float(total) / num_targets for name, total in zip(sums, totals, strict=True)}


class Objective(nn.Module):
    """What an epoch minimises, called with a batch: the loss terms of the encoder. A module, for several processes to share."""

    def __init__(self, model: Encoder, settings: LoopSettings, pretraining: bool = False):
        super().__init__()
        self.model, self.settings, self.pretraining = model, settings, pretraining
        self.item_loss = choose_item_loss(settings.loss, settings.num_negatives, settings.precision)

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        with torch.autocast(batch["lengths"].device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            if self.pretraining:
                return self.model.pretraining_loss(batch)
            return self.model.training_loss(batch, self.settings.targets, self.item_loss)


def train_step(
    objective: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer, share: float = 1.0
) -> dict[str, torch.Tensor]:
    """One update of the weights; returns the loss terms of the batch, whose targets are this share of those of all processes."""
    terms = objective(batch)
    optimizer.zero_grad()
    (terms["total"] * (share * processes.number())).backward()  # the gradient is the mean over the processes
    optimizer.step()
    return terms


def epoch_batches(rows: SplitRows, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
    """This process's part of the training rows, in an order that only (seed, epoch) determines."""
    order = np.random.default_rng([seed, epoch]).permutation(len(rows))
    return (collate_share(rows, order[start : start + batch_size]) for start in range(0, len(order), batch_size))


def record(entry: dict, metrics: dict[str, float], settings: LoopSettings, log: RunLog, steps: int) -> None:
    """Log an epoch of `steps` steps under the names of run_log.py."""
    step = entry["epoch"] * steps
    terms = {f"loss_{name}": value for name, value in entry.items() if name not in NO_TERMS}
    own = {"loss": entry["loss"], "learning_rate": settings.learning_rate, "epoch": entry["epoch"]}
    log.add("train", own | terms, step)
    log.add("eval", {name: metrics[name] for name in METRICS if name in metrics}, step)


def standing(progress: Progress) -> str:
    """The latest loss and the best validation so far, in words."""
    loss = f"loss {progress.history[-1]['loss']:.3f}"
    if not progress.best_epoch:
        return f"{loss} (pretraining)"
    return f"validation MRR {progress.history[progress.best_epoch - 1]['valid_MRR']:.3f} at epoch {progress.best_epoch}, {loss}"


def save_checkpoint(path: Path, model: Encoder, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Everything that the next epoch depends on, written under a temporary name and renamed."""
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "best": progress.best,
        "history": progress.history,
        "cpu_generator": torch.get_rng_state(),
        "cuda_generators": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    with written_whole(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: Path, model: Encoder, optimizer: torch.optim.Optimizer, device: torch.device) -> Progress | None:
    """Put model, optimizer and generators into the state of a checkpoint (tensors and plain values only, never code).

    None where there is none, or, with a line that says so, a damaged one.
    """
    if not path.is_file():
        return None
    if not _is_whole(path):
        say(f"{path} is damaged and not used: training starts anew")
        return None
    content = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    torch.set_rng_state(content["cpu_generator"])
    if device.type == "cuda" and content["cuda_generators"]:
        torch.cuda.set_rng_state_all(content["cuda_generators"])
    logger.info("resuming after epoch %d", len(content["history"]))
    return Progress(content["history"], content["best"])


def _is_whole(path: Path) -> bool:
    """Whether every record of a file that torch.save wrote has its checksum; torch.load does not look at them."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError):
        return False
