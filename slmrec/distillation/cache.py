"""Offline distillation without running the teacher: its block states of every training row, computed once and kept on disk.

A cache directory holds

    states.npy   [P, B, d1], P read positions of all training rows in row order, B blocks, d1 the hidden size (float32, or the
                 bits of bfloat16 as int16), memory-mapped in training;
    cache.json   what the states belong to (`CacheKey`), and how many rows are written.

Several epochs, and a sweep over the weights lambda 1 to 3, read it in the teacher's place.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from slmrec.artifacts import first_difference, read_json, write_json
from slmrec.distillation.teacher import FrozenTeacher, TeacherSignals
from slmrec.errors import InputError
from slmrec.progress import Counter, say
from slmrec.ragged import indices, row_starts

if TYPE_CHECKING:  # rows come in ready made: distillation does not depend on the data stage
    from slmrec.data.batches import SplitRows

STATES, PROGRESS, LOCK = "states.npy", "cache.json", "lock"
STORED = {"float32": np.float32, "bfloat16": np.int16}  # numpy has no bfloat16: its bits are stored
RECORD_SECONDS = 5.0  # between two records of progress: what a kill can cost
GIB = 2**30


@dataclass(frozen=True)
class CacheKey:
    """What determines the states, and their number: two runs that agree in it can share a cache.

    Attributes:
        teacher: digest of the teacher (`slmrec.llm.checkpoint.model_input`), which covers its backbone and embeddings.
        data: digest of the data stage.
        layers: the teacher's layers at the end of each block.
        targets, max_length: which positions of which histories are read.
        hidden_size: d1 of the teacher.
        dtype: "float32" or "bfloat16", in which the teacher computes.
    """

    teacher: str
    data: str
    layers: list[int]
    targets: str
    max_length: int
    hidden_size: int
    dtype: str


class CachedTeacher:
    """Gives `DistillationObjective` the teacher's signals like `FrozenTeacher`, from a whole cache.

    `user_projection` float32 [d0, d1] turns the states of the last block, which ends with the last layer, into user vectors.
    """

    learns = False

    def __init__(self, directory: Path, key: CacheKey, rows: SplitRows, user_projection: torch.Tensor):
        self.user_projection = user_projection
        self.dtype = getattr(torch, key.dtype)
        self.states = np.load(directory / STATES, mmap_mode="r")  # [P, B, d1]
        self.counts = np.zeros(rows.dataset.num_users, dtype=np.int64)  # [U] positions of each user; without a row: none
        self.counts[rows.users] = positions_per_row(rows)
        self.first = row_starts(self.counts)  # [U] (rows stand in the order of users)

    def signals(self, batch: dict[str, torch.Tensor], attention: bool = False) -> TeacherSignals:
        """States and user vectors on the batch's device; attention weights are not kept (the arguments refuse them)."""
        assert not attention
        users, device = batch["users"].cpu().numpy(), batch["users"].device
        first, counts = self.first[users], self.counts[users]
        states = torch.from_numpy(self.states[indices(first, counts)]).view(self.dtype)  # [n, B, d1]
        blocks = list(states.to(device).unbind(1))
        return TeacherSignals(blocks, users=blocks[-1].float() @ self.user_projection.to(device).T)


def cached_teacher(
    directory: str | Path,
    key: CacheKey,
    rows: SplitRows,
    user_projection: torch.Tensor,
    load_teacher: Callable[[], FrozenTeacher],
    batch_size: int,
) -> CachedTeacher:
    """Open the cache, after filling what is missing of it.

    Args:
        rows: the training rows.
        user_projection: the teacher's, float32 [d0, d1].
        load_teacher: called only when states are missing; its weights are freed before this returns.
        batch_size: rows per forward pass of the teacher.

    Raises InputError when the directory belongs to another teacher (or data, blocks ...), holds other files, or the states do
    not fit on its disk.
    """
    directory = Path(directory)
    _refuse_other_content(directory, key)
    directory.mkdir(parents=True, exist_ok=True)
    with _only_one_fills(directory):
        written = _rows_written(directory, key) if (directory / PROGRESS).is_file() else _reserve(directory, key, rows)
        if written < len(rows):
            _fill(directory, key, rows, load_teacher(), batch_size, written)
    return CachedTeacher(directory, key, rows, user_projection)


def positions_per_row(rows: SplitRows) -> np.ndarray:
    """Read positions of each training row, int64 [len(rows)]: one, or with targets="all" every item of its history."""
    return rows.lengths if rows.targets == "all" else np.ones(len(rows), dtype=np.int64)


def _refuse_other_content(directory: Path, key: CacheKey) -> None:
    if (directory / PROGRESS).is_file():
        _rows_written(directory, key)
    elif directory.exists() and (not directory.is_dir() or {path.name for path in directory.iterdir()} - {STATES, LOCK}):
        raise InputError(f"--teacher_cache {directory}: neither a cache of teacher states nor an empty directory")


def _rows_written(directory: Path, key: CacheKey) -> int:
    """How many rows the cache holds. Raises InputError when it belongs to something else than `key`, naming both sides."""
    content = read_json(directory / PROGRESS)
    difference = first_difference(content["key"], asdict(key))
    if difference:
        name, theirs, ours = difference
        raise InputError(f"--teacher_cache {directory}: holds states of {name} {theirs}, this run has {ours}")
    return content["rows_written"]


@contextmanager
def _only_one_fills(directory: Path) -> Iterator[None]:
    """Runs of a sweep that start together wait for the first one. The lock goes with its process, also when that is killed."""
    with open(directory / LOCK, "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{directory}: another run is filling this cache of teacher states, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _reserve(directory: Path, key: CacheKey, rows: SplitRows) -> int:
    """Say how much disk the states take, take it, and record that no row is written; returns 0."""
    shape = (int(positions_per_row(rows).sum()), len(key.layers), key.hidden_size)
    dtype = np.dtype(STORED[key.dtype])
    needed, free = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, shutil.disk_usage(directory).free
    what = f"{needed / GIB:.2f} GiB for teacher states of {shape[0]:,} positions x {shape[1]} blocks x {shape[2]} {key.dtype}"
    if needed > free:
        raise InputError(f"--teacher_cache {directory}: {what} do not fit, {free / GIB:.2f} GiB are free")
    say(f"{directory}: {what} ({free / GIB:.2f} GiB are free)")
    states = np.lib.format.open_memmap(directory / STATES, mode="w+", dtype=dtype, shape=shape)
    del states
    with open(directory / STATES, "r+b") as stream:  # a sparse file would fail in the middle of training, with a bus error
        os.posix_fallocate(stream.fileno(), 0, os.path.getsize(directory / STATES))
    write_json(directory / PROGRESS, {"key": asdict(key), "rows_written": 0})
    return 0


def _fill(directory: Path, key: CacheKey, rows: SplitRows, teacher: FrozenTeacher, batch_size: int, written: int) -> None:
    """Compute and write the states of rows `written`..len(rows) - 1, in row order."""
    states = np.lib.format.open_memmap(directory / STATES, mode="r+")
    ends = np.cumsum(positions_per_row(rows))
    device = teacher.model.item_embeddings.device
    recorded = time.monotonic()
    with Counter("teacher states", len(rows), initial=written, unit="rows of teacher states") as progress:
        while written < len(rows):
            chosen = np.arange(written, min(written + batch_size, len(rows)))
            batch = {name: tensor.to(device) for name, tensor in rows.collate(chosen).items()}
            blocks = torch.stack(teacher.signals(batch).blocks, dim=1).to(getattr(torch, key.dtype)).cpu()  # [n, B, d1]
            end = int(ends[chosen[-1]])
            states[end - len(blocks) : end] = blocks.view(torch.int16).numpy() if key.dtype == "bfloat16" else blocks.numpy()
            written += len(chosen)
            progress.update(len(chosen))
            if written == len(rows) or time.monotonic() - recorded > RECORD_SECONDS:
                states.flush()
                write_json(directory / PROGRESS, {"key": asdict(key), "rows_written": written})
                recorded = time.monotonic()
