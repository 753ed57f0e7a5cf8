"""Tables 5, 7 and 8 with this machine's hours beside the paper's.

Ours are extrapolated: measured seconds per row, times the users of Table 1. Exact encoding depends on history lengths, so its
seconds are scaled by the arithmetic that the data set's mean length asks for; the loss is scaled by the catalogue's size. Table 1
counts users before the rating filter, and the paper's hours do not follow it (Sport takes longer than Cloth with a quarter of the
users), so ratios between methods can be compared with the paper's, hours only with great care.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from reproduce.efficiency.arguments import BenchmarkArguments
from reproduce.efficiency.cases import Models, build_recommender
from reproduce.efficiency.timing import in_turn
from reproduce.efficiency.work import minimum_work
from reproduce.efficiency.workload import Workload, mean_history
from reproduce.published import TABLE_1, TABLE_5, TABLE_7, TABLE_8
from slmrec.encoders.registry import ENCODERS, build_encoder
from slmrec.llm.backbone import count_parameters

HOUR = 3600.0
EXTRAPOLATED = "extrapolated from this machine's seconds per row to the users, items and mean lengths of Table 1"
CONVENTIONAL = {"sasrec": "SASRec", "maerec": "MAERec"}
LLAMA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_heads": 32, "vocab_size": 32000, "train_strategy": "lora"}
LLAMA_7B |= {"num_key_value_heads": 32, "base_model": None}

Table = dict[str, dict]


@dataclass(frozen=True)
class SecondsPerRow:
    """What a method costs.

    Attributes:
        train: a row of a training step without its losses.
        loss: all its losses.
        infer: a user vector.
        ranking: drawing and scoring a user's candidates.
        layers: of the model that is asked at inference.
        exact: whether train and infer depend on history lengths.
    """

    train: float
    loss: float
    infer: float
    ranking: float
    layers: int
    exact: bool


def seconds_per_row(arguments: BenchmarkArguments, comparison: dict, shares: dict) -> dict[str, SecondsPerRow]:
    """Each method's costs from the results of `compare_models` and of the shares."""
    base, forward, train = comparison["baseline"], comparison["forward"], comparison["train"]
    loss = shares["training"]["seconds"]["loss"] / arguments.train_batch_size
    per_user = shares["ranking"]["seconds_per_user"]
    ranking = per_user["candidates"] + per_user["score"]
    methods = {base: (next(iter(forward.values())), next(iter(train.values())), base, 1)}
    methods |= {name: (forward[name], train[name], name, arguments.num_blocks) for name in forward}
    return {
        name: SecondsPerRow(
            train=trained["seconds"][key] / arguments.train_batch_size - losses * loss,
            loss=losses * loss,
            infer=inferred["seconds"][key] / arguments.infer_batch_size,
            ranking=ranking,
            layers=arguments.e4srec_layers if key == base else arguments.student_layers,
            exact=name.endswith("exact"),
        )
        for name, (inferred, trained, key, losses) in methods.items()
    }


def table_7(models: Models, workload: Workload, costs: dict[str, SecondsPerRow], others: Table | None = None) -> Table:
    """Method -> data set -> [training hours per epoch, inference hours]: the paper's, then ours, with those of `others` last."""
    ours = {name: {dataset: _hours(models, workload, cost, dataset) for dataset in TABLE_1} for name, cost in costs.items()}
    paper = {name: {dataset: list(hours) for dataset, hours in row.items()} for name, row in TABLE_7.items()}
    return {"paper (one A100)": paper, f"ours ({EXTRAPOLATED})": ours | (others or {})}


def table_5(detailed: Table, parameters: dict) -> Table:
    """Method -> means over the data sets of Table 7, with the parameters in 10^9 (trained, at inference)."""
    ours = list(detailed.values())[1]
    means = {name: [float(np.mean([hours[i] for hours in row.values()])) for i in (0, 1)] for name, row in ours.items()}
    counts = {name: parameters[_model_name(name)] for name in means}
    rows = {
        name: [*pair, counts[name]["trained_parameters"] / 1e9, counts[name]["parameters"] / 1e9] for name, pair in means.items()
    }
    return {"paper (one A100)": {name: list(row) for name, row in TABLE_5.items()}, list(detailed)[1]: rows}


def table_8(detailed: Table, conventional: dict[str, float], ranking: float) -> Table:
    """Method -> inference hours, the mean over the data sets."""
    users = [size.users for size in TABLE_1.values()]
    ours = {name: [float(np.mean(users)) * (seconds + ranking) / HOUR] for name, seconds in conventional.items()}
    ours |= {name: [float(np.mean([hours[1] for hours in row.values()]))] for name, row in list(detailed.values())[1].items()}
    return {"paper (one A100)": {name: [row[0]] for name, row in TABLE_8.items()}, list(detailed)[1]: ours}


def conventional_seconds(arguments: BenchmarkArguments, workload: Workload, device: torch.device) -> dict[str, float]:
    """Seconds per user vector of those conventional models of Table 8 that this repository has."""

    def encode(model) -> Callable[[int], torch.Tensor]:
        batches = workload.batches("test", model.max_length, arguments.infer_batch_size, device)
        return torch.inference_mode()(lambda repeat: model.encode(batches[repeat % len(batches)]))

    sizes = workload.dataset.num_items, workload.dataset.num_users
    built = {shown: build_encoder(name, *sizes, {}).to(device).eval() for name, shown in CONVENTIONAL.items() if name in ENCODERS}
    seconds = in_turn({name: encode(model) for name, model in built.items()}, arguments.repeats, device, "conventional models")
    return {name: float(np.median(values)) / arguments.infer_batch_size for name, values in seconds.items()}


def llama_parameters(arguments: BenchmarkArguments) -> dict[str, dict[str, int]]:
    """Parameters at LLaMA-7B shape with LoRA, counted without allocating anything."""
    shape = BenchmarkArguments(**vars(arguments) | LLAMA_7B)
    depths = {"E4SRec_32": 32, "SLMRec_4": 4}
    built = {name: build_recommender(shape, layers, 1, "meta", "bf16") for name, layers in depths.items()}
    return {name: count_parameters(model.backbone) for name, model in built.items()}


def _hours(models: Models, workload: Workload, cost: SecondsPerRow, dataset: str) -> list[float]:
    size = TABLE_1[dataset]
    mean = size.mean_length if cost.exact else None
    factor = {split: _length_factor(models, workload, cost.layers, split, mean) for split in ("train", "test")}
    train = cost.train * factor["train"] + cost.loss * size.items / workload.dataset.num_items
    return [size.users * train / HOUR, size.users * (cost.infer * factor["test"] + cost.ranking) / HOUR]


def _length_factor(models: Models, workload: Workload, layers: int, split: str, mean: float | None) -> float:
    """The arithmetic that rows of users with `mean` actions need, over that of the measured rows; 1 without a mean."""
    if mean is None:
        return 1.0
    arguments = models.arguments
    batch = arguments.train_batch_size if split == "train" else arguments.infer_batch_size
    history = mean_history(mean, 3 if split == "train" else 1, arguments.max_length)
    measured = workload.rows(split, arguments.max_length).lengths.mean()
    lengths = [np.full(batch, length) for length in (history, measured)]
    final = split == "test"  # what answers has its adapters merged and its prompt kept
    layer, shape = models.layer_shape(merged=final), models.row_shape
    needed, spent = (minimum_work(layer, layers, each, shape, kept=final).forward for each in lengths)
    return needed / spent


def _model_name(method: str) -> str:
    """ "SLMRec_4<-8 exact" -> "SLMRec_4"."""
    return method.split()[0].split("<-")[0]
