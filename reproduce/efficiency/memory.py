"""Peak memory of one step.

On CUDA it is what the allocator reports. On a CPU each step runs in a process of its own, because the operating system only knows
the highest resident set that a process ever had.
"""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import psutil
import torch

from reproduce.efficiency.arguments import BenchmarkArguments
from reproduce.efficiency.cases import EMBEDDING_SIZE, Case, Models, split_batch
from reproduce.efficiency.workload import make_workload
from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.runtime import peak_memory_mib, pick_device, quiet_libraries

MIB = 2**20
T = TypeVar("T")


def peak_memory(arguments: BenchmarkArguments, case: Case | None) -> dict[str, float]:
    """Peak memory of one step of `case` (None: of the loss alone, at the batch of training) in MiB.

    Returns {"peak": all that is held, "step": above what is held before the step: weights, optimiser, libraries}.
    """
    if pick_device(arguments.device).type == "cuda":
        return _measure(arguments, case)
    return in_own_process(_measure, arguments, case)


def in_own_process(measure: Callable[..., T], *arguments: object) -> T:
    """What `measure` gives in a process of its own, which ends with it."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=quiet_libraries) as executor:
        return executor.submit(measure, *arguments).result()


def _measure(arguments: BenchmarkArguments, case: Case | None) -> dict[str, float]:
    device = pick_device(arguments.device)
    work, batch, small = _loss_alone(arguments, device) if case is None else _one_step(arguments, case, device)
    work(small)  # libraries, gradients and optimiser states are there before the step that counts
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    before = (torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss) / MIB
    work(batch)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    peak = peak_memory_mib(device)
    return {"peak": peak, "step": round(peak - before, 1)}


def _one_step(arguments: BenchmarkArguments, case: Case, device: torch.device):
    workload = make_workload(arguments)
    step = Models(arguments, workload.dataset.num_items, device).step(case)
    split, size = ("test", arguments.infer_batch_size) if case.mode == "forward" else ("train", arguments.train_batch_size)
    batch = workload.batches(split, arguments.max_length, size, device)[0]
    return step, batch, next(split_batch(batch, 2))


def _loss_alone(arguments: BenchmarkArguments, device: torch.device):
    num_items = make_workload(arguments).dataset.num_items
    items = torch.randn(num_items + 1, EMBEDDING_SIZE, device=device)

    def work(num_rows: int) -> None:
        users = torch.randn(num_rows, EMBEDDING_SIZE, device=device, requires_grad=True)
        catalogue_cross_entropy(users, items, torch.randint(1, num_items + 1, (num_rows,), device=device)).backward()

    return work, arguments.train_batch_size, 2
