"""Time and memory of what touches the whole catalogue, from ten thousand to ten million items.

    python -m reproduce.efficiency.catalogue_size --json results/efficiency/cpu_catalogue_size.json
    python -m reproduce.efficiency.catalogue_size --device cuda --json catalogue_size.json    # Liger's kernel too, if installed

Each number comes from a process of its own: random item vectors, and of one batch the next-item loss with its gradient (over the
whole catalogue, and estimated by --loss sampled), or the ranks of its users (among 1 + 999 candidates, and among all items).
On a CPU seconds are the processor's, all threads together, which other load disturbs least; memory is what the process holds at
most beyond the item vectors. `plain` is torch's own cross-entropy of the whole matrix of logits, where that has at most a quarter
of a billion of them; `liger` is the fused kernel of liger-kernel (Hsu et al. 2024), on CUDA alone and where it is installed.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from reproduce.efficiency.environment import environment
from reproduce.efficiency.timing import wall_seconds
from reproduce.table import to_text
from slmrec.artifacts import write_json
from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.checks import at_least, device_name, each
from slmrec.command_line import parse_arguments
from slmrec.data.dataset import SequenceDataset
from slmrec.errors import InputError
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.recommender import Recommender
from slmrec.runtime import peak_memory_mib, pick_device, run_main
from slmrec.training.sampled_softmax import SampledSoftmax

SIZES = [10_000, 100_000, 1_000_000, 10_000_000]
PLAIN_LOGITS = 2**28
HISTORY = 10
CLEAR = Path("/proc/self/clear_refs")


@dataclass
class CatalogueArguments:
    """What to measure."""

    items: list[int] = field(default_factory=lambda: list(SIZES), metadata={"help": "numbers of items"})
    batch_size: int = field(default=256, metadata={"help": "predictions of a training step, and users that are ranked"})
    width: int = field(default=64, metadata={"help": "d of the item vectors"})
    repeats: int = field(default=3, metadata={"help": "timed turns, after one that is not; the median counts"})
    device: str = field(default="cpu", metadata={"help": "auto, cpu or cuda"})
    json: str | None = field(default=None, metadata={"help": "file to write the result to"})
    case: str | None = field(default=None, metadata={"help": "one case alone, in this process"})

    def __post_init__(self):
        each(at_least, self, "batch_size width repeats", 1)
        for number in self.items:
            at_least("items", number, 1000)
        device_name("device", self.device)
        if self.case is not None and self.case not in CASES:
            raise InputError(f"--case {self.case}: choose one of {', '.join(CASES)}")


class RandomVectors(Recommender):
    """Random item vectors; a user is the sum of the history's."""

    max_length = HISTORY

    def __init__(self, items: torch.Tensor):
        super().__init__()
        self.register_buffer("items", items)

    def item_matrix(self) -> torch.Tensor:
        return self.items

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.stack([self.items[part].sum(0) for part in batch["history"].split(batch["lengths"].tolist())])


class Problem:
    """One batch over a catalogue: each case is a method that makes one turn."""

    def __init__(self, num_items: int, arguments: CatalogueArguments):
        device = pick_device(arguments.device)
        random = np.random.default_rng(0)
        users, generator = arguments.batch_size, torch.Generator().manual_seed(0)
        self.vectors = torch.randn(users, arguments.width, generator=generator).to(device).requires_grad_()
        self.items = torch.randn(num_items + 1, arguments.width, generator=generator).to(device)
        sequences = random.integers(1, num_items + 1, size=users * HISTORY).astype(np.int32)
        self.dataset = SequenceDataset(sequences, np.arange(users + 1) * HISTORY, num_items)
        self.targets = torch.from_numpy(random.integers(1, num_items + 1, size=users)).to(device)
        self.sampled_softmax = SampledSoftmax(np.ones(num_items + 1), 8192)

    def plain(self) -> float:
        loss = F.cross_entropy(self.vectors @ self.items[1:].T, self.targets - 1)
        loss.backward()
        return loss.item()

    def liger(self) -> float:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        loss = LigerFusedLinearCrossEntropyLoss()(self.items[1:], self.vectors, self.targets - 1)
        loss.backward()
        return loss.item()

    def loss(self) -> float:
        loss = catalogue_cross_entropy(self.vectors, self.items, self.targets)
        loss.backward()
        return loss.item()

    def sampled(self) -> float:
        loss = self.sampled_softmax(self.vectors, self.items, self.targets)
        loss.backward()
        return loss.item()

    def validation(self) -> float:
        return self._ranked(sampled=True)

    def full_ranking(self) -> float:
        return self._ranked(sampled=False, full_ranking=True)

    def _ranked(self, **ways: bool) -> float:
        found = evaluate_recommender(
            RandomVectors(self.items), self.dataset, "test", device=self.items.device, progress=False, **ways
        )
        return next(iter(found.metrics.values()))["MRR"]


CASES = ("plain", "liger", "loss", "sampled", "validation", "full_ranking")


def possible(case: str, num_items: int, arguments: CatalogueArguments) -> bool:
    """Whether a case can be measured here."""
    if case == "liger":
        return pick_device(arguments.device).type == "cuda" and importlib.util.find_spec("liger_kernel") is not None
    return case != "plain" or num_items * arguments.batch_size <= PLAIN_LOGITS


def measure(arguments: CatalogueArguments) -> dict:
    """Of one case, in this process."""
    (num_items,) = arguments.items
    assert arguments.case is not None
    device = pick_device(arguments.device)
    torch.randn(256, 256, device=device) @ torch.randn(256, 256, device=device)  # what a first product sets up is nobody's
    problem = Problem(num_items, arguments)
    with suppress(OSError):
        CLEAR.write_text("5", encoding="utf-8")  # Linux: the peak so far, of making the problem, is forgotten
    turn, before, seconds = getattr(problem, arguments.case), peak_memory_mib(device), []
    torch.manual_seed(0)
    value = turn()
    for _ in range(arguments.repeats):
        started = time.process_time()
        spent = wall_seconds(turn, device)
        seconds.append(time.process_time() - started if device.type == "cpu" else spent)
    memory = round(peak_memory_mib(device) - before, 1)
    return {
        "items": num_items,
        "case": arguments.case,
        "seconds": round(float(np.median(seconds)), 4),
        "mib": memory,
        "value": value,
    }


def measure_all(arguments: CatalogueArguments) -> list[dict]:
    measured = []
    for number in arguments.items:
        for case in CASES:
            if not possible(case, number, arguments):
                continue
            given = asdict(arguments) | {"items": number, "case": case}
            flags = [
                text
                for name, value in given.items()
                if value is not None and name != "json"
                for text in (f"--{name}", str(value))
            ]
            words = [sys.executable, "-m", "reproduce.efficiency.catalogue_size", *flags]
            ended = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
            if ended.returncode:
                raise InputError(f"{number} items, {case}: failed with status {ended.returncode}")
            measured.append(json.loads(ended.stdout.splitlines()[-1]))
            print(ended.stdout.splitlines()[-1], flush=True)
    return measured


def as_text(measured: list[dict]) -> str:
    """A line for each number of items, seconds and MiB of each case."""
    found = {(entry["items"], entry["case"]): f"{entry['seconds']:.2f} s, {entry['mib']:.0f} MiB" for entry in measured}
    sizes = list(dict.fromkeys(entry["items"] for entry in measured))
    cases = [case for case in CASES if any(entry["case"] == case for entry in measured)]
    rows = [[f"{size:,}", *(found.get((size, case), "-") for case in cases)] for size in sizes]
    return to_text(["items", *cases], rows)


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments(CatalogueArguments, argv, description=__doc__)
    if arguments.case:
        print(json.dumps(measure(arguments)))
        return
    measured = measure_all(arguments)
    print(as_text(measured))
    if arguments.json:
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
        described = {"batch_size": arguments.batch_size, "width": arguments.width}
        where = environment("reproduce.efficiency.catalogue_size", argv, pick_device(arguments.device))
        write_json(arguments.json, {"measured": measured, "configuration": described, "environment": where})


if __name__ == "__main__":
    run_main(main)
