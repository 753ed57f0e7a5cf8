"""What a training step and an evaluation cost beside the floor of their arithmetic, and where the rest goes.

    python -m reproduce.efficiency.step_costs --data runs/beauty/data --json results/efficiency/cpu_step_costs.json

Sides: SASRec with its defaults, E4SRec of 4 and 8 layers at the shape of SmolLM2-135M (LoRA, exact encoding), and the ranking of
users among 999 candidates by the 8-layer one. The floor is the FLOPs of all matrix products and attention, counted by torch, over
the rate of a large square product that is timed before and after each step. Times are the processor's, of one thread, which other
programs disturb little. The profiler's shares divide a step's time into its products and attention, the other operations of
torch, and what is outside of torch (numpy, Python). `products` is what the products alone cost over the floor: products as narrow
as these models' run slower than a large square one.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from reproduce.efficiency.arguments import BenchmarkArguments
from reproduce.efficiency.cases import Case, Models
from reproduce.efficiency.encoder_costs import CostArguments, Side
from reproduce.efficiency.environment import environment
from reproduce.efficiency.shares import first_users
from reproduce.efficiency.timing import DTYPES
from reproduce.table import to_text
from slmrec.artifacts import read_manifest, write_json
from slmrec.checks import at_least, each, one_of
from slmrec.command_line import parse_arguments
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import load_dataset
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.runtime import run_main, seed_everything

SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_heads": 9, "num_key_value_heads": 3, "vocab_size": 49_152}
SQUARE = 1024
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "_scaled_dot_product", "_flash_attention", "mkldnn")
SHOWN = 4  # operations that are named, beside the products
FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
Step = Callable[[int], object]


@dataclass
class StepArguments:
    """What to measure."""

    data: str = field(metadata={"help": "directory of the data stage"})
    sides: list[str] = field(default_factory=lambda: list(SIDES), metadata={"help": "names as in the table"})
    batch_size: int = field(default=256, metadata={"help": "rows of an LLM's training step; SASRec has its own"})
    users: int = field(default=2048, metadata={"help": "that are ranked"})
    steps: int = field(default=5, metadata={"help": "timed steps, after one that is not"})
    precision: str = field(default="fp32", metadata={"help": "fp32 or bf16"})
    json: str | None = field(default=None, metadata={"help": "file to write the result to"})

    def __post_init__(self):
        each(at_least, self, "batch_size users steps", 1)
        one_of("precision", self.precision, tuple(DTYPES))
        for side in self.sides:
            one_of("sides", side, tuple(SIDES))


def sasrec(arguments: StepArguments) -> Step:
    dataset = load_dataset(arguments.data)
    settings = CostArguments(data=arguments.data, steps=arguments.steps, precision=arguments.precision, device="cpu")
    return Side("sasrec", dataset, settings, torch.device("cpu"))


def models(arguments: StepArguments) -> Models:
    dataset = load_dataset(arguments.data)
    shape = BenchmarkArguments(**SMOLLM2, train_strategy="lora", precision=arguments.precision, device="cpu")
    return Models(shape, dataset.num_items, torch.device("cpu"))


def e4srec(layers: int, arguments: StepArguments) -> Step:
    step = models(arguments).step(Case(layers, "exact", "train"))
    rows = SplitRows(load_dataset(arguments.data), "train", 30, "last")
    order, size = np.random.default_rng(0).permutation(len(rows)), min(arguments.batch_size, len(rows))
    batches = [rows.collate(np.roll(order, -turn * size)[:size]) for turn in range(arguments.steps)]
    return lambda turn: step(batches[turn % len(batches)])


def ranking(arguments: StepArguments) -> Step:
    model, dataset = models(arguments).recommender(8), first_users(load_dataset(arguments.data), arguments.users)
    model.encoding = "exact"

    def rank(_: int) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.precision == "bf16"):
            evaluate_recommender(model, dataset, "test", progress=False)

    return rank


SIDES: dict[str, Callable[[StepArguments], Step]] = {
    "SASRec": sasrec,
    "E4SRec_4": lambda arguments: e4srec(4, arguments),
    "E4SRec_8": lambda arguments: e4srec(8, arguments),
    "evaluation of E4SRec_8": ranking,
}


def processor_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(step: Step, steps: int, dtype: torch.dtype) -> dict:
    """Seconds, floor and their ratio (medians over the steps), and where the time goes."""
    square = torch.randn(SQUARE, SQUARE).to(dtype)
    product = lambda: processor_seconds(lambda: square @ square)
    step(0), product()
    mapping = {FLASH: sdpa_flop_count_of, FLASH_BACKWARD: sdpa_backward_flop_count_of}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        step(0)
    flops, seconds, floors = counter.get_total_flops(), [], []
    for _ in range(steps):  # the same batch, whose FLOPs are known
        around = [min(product() for _ in range(3))]
        seconds.append(processor_seconds(lambda: step(0)))
        around.append(min(product() for _ in range(3)))
        floors.append(flops * statistics.mean(around) / (2 * SQUARE**3))
    ratio = statistics.median(spent / floor for spent, floor in zip(seconds, floors))
    made = {
        "seconds": statistics.median(seconds),
        "floor_seconds": statistics.median(floors),
        "ratio": ratio,
        "gflop": flops / 1e9,
    }
    return made | {"parts": parts_of(step, ratio)}


def sdpa_flop_count_of(query, key, value, *_, **__) -> int:
    return sdpa_flop_count(query, key, value)


def sdpa_backward_flop_count_of(gradient, query, key, value, *_, **__) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


def parts_of(step: Step, ratio: float) -> dict[str, float]:
    """The ratio as a sum: products, the operations that take most of the rest, the other ones, and what is not torch's."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        began = time.perf_counter()
        step(0)
        whole = time.perf_counter() - began
    spent: Counter[str] = Counter()
    for event in seen.key_averages():
        name = event.key.removeprefix("aten::")
        spent["products" if name.startswith(PRODUCTS) else name] += event.self_cpu_time_total / 1e6
    products = spent.pop("products", 0.0)
    largest = dict(spent.most_common(SHOWN))
    rest = sum(spent.values()) - sum(largest.values())
    outside = max(0.0, whole - products - sum(spent.values()))
    parts = {"products": products} | largest | {"other operations": rest, "outside of torch": outside}
    return {name: seconds / sum(parts.values()) * ratio for name, seconds in parts.items()}


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments(StepArguments, argv, description=__doc__)
    torch.set_num_threads(1)
    measured, rows = {}, []
    for side in arguments.sides:
        seed_everything(0)
        found = measured[side] = measure(SIDES[side](arguments), arguments.steps, DTYPES[arguments.precision])
        products, *others = found["parts"].items()
        texts = ", ".join(f"{name} {value:.2f}" for name, value in others)
        numbers = [f"{found[name]:.2f}" for name in ("seconds", "floor_seconds", "ratio")]
        rows.append([side, *numbers, f"{products[1]:.2f}", texts])
        print(rows[-1], flush=True)
    print(to_text(["step", "seconds", "floor", "ratio", "products", "the rest, in floors"], rows))
    if arguments.json:
        made = {"data": read_manifest(arguments.data, "data")["digest"], "configuration": asdict(arguments) | {"data": None}}
        made["environment"] = environment("reproduce.efficiency.step_costs", argv, torch.device("cpu"))
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(arguments.json), {"measured": measured} | made)


if __name__ == "__main__":
    run_main(main)
