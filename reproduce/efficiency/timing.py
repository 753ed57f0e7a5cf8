"""Wall times of things that are compared: taken in turn within one run, so that a slow moment hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from tqdm import tqdm

Seconds = dict[str, list[float]]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LONG_PRODUCT = 0.05  # seconds


class ProcessorShare:
    """Of the wall time since it was made, the share in which this process had its processors; 1 where nobody else computes.

    Says how far timings on a CPU can be trusted: well below 1, another program took its turns in between.
    """

    def __init__(self):
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def __call__(self) -> float:
        spent = time.process_time() - self.processor
        return spent / (time.perf_counter() - self.wall) / torch.get_num_threads()


def wall_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of `work()`, queued kernels included."""
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def in_turn(sides: dict[str, Callable[[int], object]], repeats: int, device: torch.device, title: str) -> Seconds:
    """Seconds of `side(repeat)` for every side and repeat, after one call of each that does not count.

    All sides of a repeat run one after the other, in the opposite order in every second repeat.
    """
    seconds: Seconds = {name: [] for name in sides}
    with tqdm(total=len(sides) * (repeats + 1), desc=title, disable=None) as progress:
        for repeat in range(-1, repeats):
            for name in sorted(sides, key=list(sides).index, reverse=repeat % 2 == 1):
                spent = wall_seconds(partial(sides[name], max(repeat, 0)), device)
                if repeat >= 0:
                    seconds[name].append(spent)
                progress.update()
    return seconds


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """Median over the repeats of how many times as long the slow side took."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def matrix_product_rate(device: torch.device, dtype: torch.dtype, size: int | None = None, repeats: int = 5) -> float:
    """FLOP/s of a square matrix product, the best of `repeats`: the ceiling that utilisation is measured against."""
    size = size or (8192 if device.type == "cuda" else _affordable_size(device, dtype))
    return 2 * size**3 / min(_product_seconds(size, device, dtype, repeats + 1)[1:])


def _affordable_size(device: torch.device, dtype: torch.dtype) -> int:
    """2048, or less where a product takes long: a CPU without bf16 products needs half a minute for one of that size."""
    size = 256
    while size < 2048 and min(_product_seconds(size, device, dtype, 2)) < LONG_PRODUCT:
        size *= 2
    return size


def _product_seconds(size: int, device: torch.device, dtype: torch.dtype, repeats: int) -> list[float]:
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return [wall_seconds(lambda: left @ right, device) for _ in range(repeats)]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
