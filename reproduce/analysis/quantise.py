"""A trained E-LLMRec with fewer bits or fewer weights (`slmrec.export.smaller`): size, memory, speed, and how well it recommends.

    python -m reproduce.analysis.quantise --model runs/demo/slmrec_4_8 --split test     (pip install -e '.[export,quantise]')

The paper calls distillation orthogonal to quantisation and pruning and measures neither. Times are taken in turn within one run,
as ratios to float32; a user is a history encoded and scored against all items. Memory is what a process of its own holds after
batches of 512 users above what it held before the model was opened. Writes metrics.json into <model>/quantise-<split>:
{"kinds": {kind: {...}}, "refused": {kind: reason}, "processor_share": ...}.
"""

from __future__ import annotations

import gc
import statistics
from dataclasses import dataclass, field

import numpy as np
import psutil
import torch

from reproduce.analysis.finished_model import AnalysisArguments, open_analysis
from reproduce.efficiency.memory import in_own_process
from reproduce.efficiency.timing import ProcessorShare, in_turn, median_ratio
from reproduce.statistics import paired_test
from slmrec.checks import at_least, one_of
from slmrec.command_line import parse_arguments
from slmrec.data.batches import Batch, SplitRows
from slmrec.data.dataset import SequenceDataset
from slmrec.errors import InputError
from slmrec.evaluation.metrics import UNDEFINED, reciprocal_rank
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.export.graph import merged
from slmrec.export.smaller import KINDS, size_on_disk, smaller
from slmrec.llm.model_directory import load_ellmrec
from slmrec.recommender import Recommender
from slmrec.runtime import run_main

MIB = 2**20
SIZES = (1, 512)  # users of a batch
ONES = 32  # batches of one user that are timed together


@dataclass
class QuantiseArguments(AnalysisArguments):
    """What is tried."""

    kinds: list[str] = field(default_factory=lambda: list(KINDS), metadata={"help": f"of {', '.join(KINDS)}; fp32 always is"})
    repeats: int = field(default=3, metadata={"help": "timed turns of each kind; medians are reported"})

    def __post_init__(self):
        super().__post_init__()
        at_least("repeats", self.repeats, 1)
        for kind in self.kinds:
            one_of("kinds", kind, tuple(KINDS))
        self.kinds = list(dict.fromkeys(["fp32", *self.kinds]))


def opened(directory: str, kind: str) -> Recommender:
    return smaller(merged(load_ellmrec(directory)), kind).eval()


def answer(model: Recommender, batches: list[Batch]) -> None:
    """Encode and score the users of each batch."""
    with torch.inference_mode():
        for batch in batches:
            model.score_all(model.encode(batch))


def held_memory(directory: str, kind: str, batch: Batch, threads: int) -> float:
    """MiB that a process holds for one kind, in a process of its own."""
    return in_own_process(_held_memory, directory, kind, batch, threads)


def _held_memory(directory: str, kind: str, batch: Batch, threads: int) -> float:
    torch.set_num_threads(threads)
    before = psutil.Process().memory_info().rss
    model = opened(directory, kind)
    gc.collect()
    answer(model, [batch] * 2)
    return round((psutil.Process().memory_info().rss - before) / MIB, 1)


def open_kinds(args: QuantiseArguments) -> tuple[dict[str, Recommender], dict[str, str]]:
    """The model in every kind, and why a kind is not there: its library refuses the model, or is not installed."""
    models, refused = {}, {}
    for kind in args.kinds:
        try:
            models[kind] = opened(args.model, kind)
        except (InputError, NotImplementedError, RuntimeError, AssertionError) as error:  # what the libraries raise
            refused[kind] = str(error).splitlines()[0]
    return models, refused


def measure(args: QuantiseArguments, dataset: SequenceDataset) -> dict:
    models, refused = open_kinds(args)
    rows = SplitRows(dataset, args.split, models["fp32"].max_length)
    batches = {1: [rows.collate([row % len(rows)]) for row in range(ONES)], 512: [rows.collate(np.arange(min(512, len(rows))))]}
    share, cpu = ProcessorShare(), torch.device("cpu")
    seconds = {
        size: in_turn(
            {kind: lambda _, model=model, size=size: answer(model, batches[size]) for kind, model in models.items()},
            args.repeats,
            cpu,
            f"batches of {size}",
        )
        for size in SIZES
    }
    found = {"processor_share": share()}
    ranks = {
        kind: evaluate_recommender(model, dataset, args.split, progress=False, batch_size=args.eval_batch_size).ranks["sampled"]
        for kind, model in models.items()
    }
    ranked = ranks["fp32"] > UNDEFINED  # the others touched every item
    ranks = {kind: all_ranks[ranked] for kind, all_ranks in ranks.items()}
    found["kinds"] = {
        kind: {
            "bytes_on_disk": size_on_disk(model),
            "memory_mib": held_memory(args.model, kind, batches[512][0], torch.get_num_threads()),
            "users_per_second": {str(size): users(batches[size]) / statistics.median(seconds[size][kind]) for size in SIZES},
            "speed_over_fp32": {str(size): median_ratio(seconds[size]["fp32"], seconds[size][kind]) for size in SIZES},
            "MRR": float(reciprocal_rank(ranks[kind]).mean()),
            "test": paired_test(ranks[kind][None], ranks["fp32"][None]) if kind != "fp32" else None,
        }
        for kind, model in models.items()
    }
    return found | {"refused": refused, "items": dataset.num_items, "users": len(rows), "threads": torch.get_num_threads()}


def users(batches: list[Batch]) -> int:
    return sum(len(batch["lengths"]) for batch in batches)


def main(argv: list[str] | None = None) -> None:
    (args,) = parse_arguments(QuantiseArguments, argv, description=__doc__)
    config = {"kinds": args.kinds, "repeats": args.repeats}
    stage, dataset = open_analysis("quantise", args, config)
    if stage.up_to_date:
        return
    with stage:
        stage.metrics = measure(args, dataset)
    for kind, one in stage.metrics["kinds"].items():
        speed = ", ".join(f"{value:,.0f} users/s at batch {size}" for size, value in one["users_per_second"].items())
        size = f"{one['bytes_on_disk'] / MIB:8.2f} MiB on disk{one['memory_mib']:9.1f} MiB held"
        print(f"{kind:<14}{size}  MRR {100 * one['MRR']:.2f}  {speed}")
    for kind, reason in stage.metrics["refused"].items():
        print(f"{kind:<14}refused: {reason}")


if __name__ == "__main__":
    run_main(main)
