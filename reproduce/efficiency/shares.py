"""Where the time goes, with exact encoding: a training step, and the ranking of users among candidates."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from reproduce.efficiency.cases import Case, Models, autocast
from reproduce.efficiency.timing import wall_seconds
from reproduce.efficiency.workload import BATCHES, Workload
from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.data.dataset import SequenceDataset
from slmrec.evaluation.protocol import evaluate_recommender

TRAINING_PARTS = ("data", "encoder", "loss", "optimiser")


def training_shares(models: Models, workload: Workload, repeats: int) -> dict:
    """Median seconds, and shares, of a training step's parts; encoder and loss are forward and backward pass together."""
    step = _DividedStep(models, workload)
    step(0)  # warm
    turns = [step(repeat) for repeat in range(repeats)]
    seconds = {name: statistics.median(turn[name] for turn in turns) for name in TRAINING_PARTS}
    return {"seconds": seconds, "share": _shares(seconds)}


class _DividedStep:
    """A training step cut at the user vectors, so that the loss's backward pass is timed apart from the encoder's."""

    def __init__(self, models: Models, workload: Workload):
        arguments = models.arguments
        self.step = models.step(Case(arguments.num_layers, "exact", "train"))
        self.rows = workload.rows("train", arguments.max_length)
        self.size, self.device = min(arguments.train_batch_size, len(self.rows)), models.device

    def __call__(self, repeat: int) -> dict[str, float]:
        first = (repeat % BATCHES) * self.size % max(1, len(self.rows) - self.size + 1)
        kept: dict[str, torch.Tensor] = {}

        def data() -> None:
            kept["batch"] = {
                name: tensor.to(self.device) for name, tensor in self.rows.collate(np.arange(first, first + self.size)).items()
            }

        def forward() -> None:
            model = self.step.model
            model.encoding = "exact"
            model.train()
            with autocast(model, self.step.precision):
                kept["users"] = model(kept["batch"]).users

        def loss() -> None:
            kept["leaf"] = kept["users"].detach().requires_grad_()
            catalogue_cross_entropy(kept["leaf"], self.step.model.item_matrix(), kept["batch"]["targets"]).backward()

        seconds = {"data": wall_seconds(data, self.device), "encoder": wall_seconds(forward, self.device)}
        seconds["loss"] = wall_seconds(loss, self.device)
        seconds["encoder"] += wall_seconds(lambda: kept["users"].backward(kept["leaf"].grad), self.device)
        return seconds | {"optimiser": wall_seconds(self.step.update, self.device)}


def ranking_shares(models: Models, workload: Workload) -> dict:
    """Seconds per user, and shares, of ranking test users among 999 candidates: encode, draw candidates, score, rest."""
    arguments = models.arguments
    model = models.answering(arguments.num_layers, arguments.precision)
    dataset = workload.dataset

    def rank(dataset: SequenceDataset):
        with autocast(model, arguments.precision):
            return evaluate_recommender(
                model, dataset, "test", batch_size=arguments.infer_batch_size, device=models.device, progress=False
            )

    rank(first_users(dataset, arguments.infer_batch_size))  # warm
    started = time.perf_counter()
    seconds = rank(dataset).seconds
    seconds["data"] = time.perf_counter() - started - sum(seconds.values())
    per_user = {name: value / dataset.num_users for name, value in seconds.items()}
    return {"seconds_per_user": per_user, "share": _shares(seconds), "users": dataset.num_users}


def first_users(dataset: SequenceDataset, number: int) -> SequenceDataset:
    offsets = dataset.offsets[: number + 1]
    return SequenceDataset(dataset.items[: offsets[-1]], offsets, dataset.num_items)


def _shares(seconds: dict[str, float]) -> dict[str, float]:
    total = sum(seconds.values())
    return {name: value / total for name, value in seconds.items()}
