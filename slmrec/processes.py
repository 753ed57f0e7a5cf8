"""The processes of one run, as torchrun and `accelerate launch` start them: who they are, and what they tell one another.

The first one owns what lies outside of it: directories, caches, logs, the terminal. The others wait for it where they need what
it writes. Without a launcher there is one process, and every function here is as good as not called.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import TypeVar

import numpy as np

from slmrec.accelerate_configuration import take_configuration
from slmrec.checks import at_least
from slmrec.errors import InputError

LONGEST_WAIT = timedelta(days=7)  # for the first process, which may be filling a cache or validating
Value = TypeVar("Value")


def number() -> int:
    """How many processes this run has."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else 1


def rank() -> int:
    """Which one of them this is, from 0."""
    return int(os.environ.get("RANK", 0)) if number() > 1 else 0


def first() -> bool:
    """Whether this process owns what the run writes."""
    return rank() == 0


def share(rows: np.ndarray) -> np.ndarray:
    """This process's part of an array whose parts, in the order of the processes, make the whole; some may be empty."""
    return np.array_split(rows, number())[rank()]


def wait() -> None:
    """Until every process has come here; a sum that all of them need, as who broadcasts does not wait for who listens."""
    summed(np.zeros(1, dtype=np.int32))


def same(value: Value) -> Value:
    """What the first process gives as `value`, in all of them; any object that pickle knows."""
    if number() == 1:
        return value
    held = [value]
    _group().broadcast_object_list(held, src=0, device=_cpu())
    return held[0]


def summed(array: np.ndarray) -> np.ndarray:
    """The sum of the processes' arrays, which agree in shape and dtype."""
    if number() == 1:
        return array
    import torch

    total = torch.from_numpy(array.copy())
    _group().all_reduce(total)
    return total.numpy()


def lost_another(error: BaseException) -> bool:
    """Whether an error is only the echo of another process's end, which its launcher is about to hear of."""
    return isinstance(error, RuntimeError) and number() > 1 and ("gloo" in str(error) or "NCCL" in str(error))


@contextlib.contextmanager
def left_at_once() -> Iterator[None]:
    """Around all that one of several processes does: it then leaves as those of multiprocessing do, without taking Python apart.

    Threads of gloo may still hold the last tensors, and outlive their group where a DistributedDataParallel knows it. One that
    lets go of a tensor while the interpreter ends would take the process down by SIGABRT, after all its work was done.
    """
    if number() == 1:
        yield
        return
    status = 0
    try:
        yield
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@functools.cache
def _group():
    """torch.distributed with the group of all processes; what is told here goes over the CPU, gradients over the GPUs."""
    import torch
    import torch.distributed as group

    if not group.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        group.init_process_group(backend, timeout=LONGEST_WAIT)
        atexit.register(group.destroy_process_group)
    return group


def _cpu():
    import torch

    return torch.device("cpu")


# -- starting them --------------------------------------------------------------------------------------------------------------


def launched(script: str, processes: int | None, argv: list[str] | None, *, shards: bool = False) -> bool:
    """Start a command in several processes on this machine, as torchrun does, and wait for them; False where this is one of them.

    Args:
        script: file of the command.
        processes: how many; None is what the environment variable LAUNCH says, by default one, which starts nothing.
        argv: its flags (default: sys.argv).
        shards: whether it can share out frozen weights among its processes (FSDP).

    Exits with the status of the process that failed first; it has said what was wrong. Raises InputError where a configuration of
    `accelerate launch` asks for what would be ignored.
    """
    take_configuration(shards)
    wanted = _wanted(processes)
    if wanted == 1 or "LOCAL_RANK" in os.environ:
        return False
    import logging

    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, run

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # it reports at length what one line says
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // wanted)))
    command = ["--standalone", "--nproc_per_node", str(wanted), script, *(sys.argv[1:] if argv is None else argv)]
    try:
        run(get_args_parser().parse_args(command))
    except ChildFailedError as error:
        failed, failure = error.get_first_failure()
        if failure.exitcode < 0:  # killed, and so without a word of its own
            raise InputError(
                f"process {failed + 1} of {wanted} was ended by signal {-failure.exitcode}; "
                "the same command goes on from the last checkpoint, where its stage has any"
            ) from None
        sys.exit(failure.exitcode)
    return True


def _wanted(processes: int | None) -> int:
    if processes is None:
        text = os.environ.get("LAUNCH", "1")
        if not text.isdigit() or int(text) < 1:
            raise InputError(f"LAUNCH={text}: the environment variable must be a number of processes, at least 1")
        return int(text)
    at_least("launch", processes, 1)
    return processes
