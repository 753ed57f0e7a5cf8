"""Offline distillation without running the teacher: its block states of every training row, computed once and kept on disk.

A cache directory holds

    states.npy   [P, B, d1], P read positions of all training rows in row order, B blocks, d1 the hidden size (float32, or the
                 bits of bfloat16 as int16), memory-mapped in training;
    cache.json   what the states belong to (`CacheKey`), how many rows are written, and the sha256 of their states. It is written
                 first, and marks the directory as a cache.

Several epochs, and a sweep over the weights lambda 1 to 3, read it in the teacher's place. States that are not those that were
written are computed again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from slmrec import processes
from slmrec.artifacts import first_difference, read_json, write_json
from slmrec.distillation.teacher import FrozenTeacher, TeacherSignals
from slmrec.errors import InputError, naming
from slmrec.files import is_temporary
from slmrec.locks import DirectoryLock
from slmrec.progress import Counter, say
from slmrec.ragged import indices, row_starts

if TYPE_CHECKING:  # rows come in ready made: distillation does not depend on the data stage
    from slmrec.data.batches import SplitRows

STATES, PROGRESS = "states.npy", "cache.json"
STORED = {"float32": np.float32, "bfloat16": np.int16}  # numpy has no bfloat16: its bits are stored
RECORD_SECONDS = 5.0  # between two records of progress: what a kill can cost
GIB, CHUNK = 2**30, 2**24  # bytes; the second are hashed at once


@dataclass(frozen=True)
class CacheKey:
    """What determines the states, and their number: two runs that agree in it can share a cache.

    Attributes:
        teacher: digest of the teacher (`slmrec.llm.model_directory.model_input`), which covers its backbone and embeddings.
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

    Of several processes the first one fills it. Raises InputError when the directory belongs to another teacher (or data, blocks
    ...), holds other files, or the states do not fit on its disk.
    """
    directory = Path(directory)
    if processes.first():
        _fill(directory, key, rows, load_teacher, batch_size)
    processes.wait()
    return CachedTeacher(directory, key, rows, user_projection)


def _fill(directory: Path, key: CacheKey, rows: SplitRows, load_teacher: Callable[[], FrozenTeacher], batch_size: int) -> None:
    with DirectoryLock(directory):
        _refuse_other_content(directory)
        directory.mkdir(exist_ok=True)
        cache = _Filling(directory, key, rows)
        cache.check()
        if cache.written < len(rows):
            cache.fill(load_teacher, batch_size)


def positions_per_row(rows: SplitRows) -> np.ndarray:
    """Read positions of each training row, int64 [len(rows)]: one, or with targets="all" every item of its history."""
    return rows.lengths if rows.targets == "all" else np.ones(len(rows), dtype=np.int64)


def _refuse_other_content(directory: Path) -> None:
    if not os.path.lexists(directory):
        return
    found = {path.name for path in directory.iterdir() if not is_temporary(path)} if directory.is_dir() else {""}
    if found and PROGRESS not in found:
        raise InputError(
            f"--teacher_cache {directory}: neither a cache of teacher states (it has no {PROGRESS}) nor an empty directory"
        )


class _Filling:
    """A cache directory, checked and filled by the process that holds its lock.

    Attributes:
        written: rows whose states are there.
        digest: sha256 over their states so far.
    """

    def __init__(self, directory: Path, key: CacheKey, rows: SplitRows):
        self.directory, self.key, self.rows = directory, key, rows
        self.ends = np.cumsum(positions_per_row(rows))  # [rows] one past the last position of each
        self.shape = (int(self.ends[-1]), len(key.layers), key.hidden_size)
        self.dtype = np.dtype(STORED[key.dtype])
        self.written, self.digest = 0, hashlib.sha256()

    def check(self) -> None:
        """Set `written`: the recorded rows if their states are still what was written, else none, after a line that says so.

        Raises InputError when the cache belongs to something else than `key`, naming both sides, or its record is damaged.
        """
        if not (self.directory / PROGRESS).is_file():
            return
        way_out = f"delete {self.directory}, and its states are computed again"
        try:
            content = read_json(self.directory / PROGRESS)
        except InputError as damage:
            raise InputError(f"{damage}; {way_out}") from None
        if not isinstance(content.get("key"), dict) or not isinstance(content.get("rows_written"), int):
            raise InputError(f"{self.directory / PROGRESS}: not the record of a cache of teacher states; {way_out}")
        difference = first_difference(content["key"], asdict(self.key))
        if difference:
            name, theirs, ours = difference
            raise InputError(f"--teacher_cache {self.directory}: holds states of {name} {theirs}, this run has {ours}")
        recorded = content["rows_written"]
        if not 0 < recorded <= len(self.rows):
            return
        if self._digest_of(recorded) == content.get("sha256"):
            self.written = recorded
        else:
            say(f"{self.directory}: its states are damaged and computed again")
            self.digest = hashlib.sha256()

    def _digest_of(self, rows: int) -> str | None:
        """sha256 of the states of the first rows; None where the file is not one of them. It is kept in `digest`."""
        try:
            states = np.load(self.directory / STATES, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if states.shape != self.shape or states.dtype != self.dtype:
            return None
        step, end = max(1, CHUNK // states[0].nbytes), int(self.ends[rows - 1])
        for start in range(0, end, step):
            self.digest.update(np.ascontiguousarray(states[start : min(start + step, end)]).data)
        return self.digest.hexdigest()

    def fill(self, load_teacher: Callable[[], FrozenTeacher], batch_size: int) -> None:
        """Compute and write the states of rows `written`..len(rows) - 1, in row order."""
        if not self.written:
            self._reserve()
        teacher = load_teacher()
        states = np.lib.format.open_memmap(self.directory / STATES, mode="r+")
        device, recorded = teacher.model.item_embeddings.device, time.monotonic()
        with Counter("teacher states", len(self.rows), initial=self.written, unit="rows of teacher states") as progress:
            while self.written < len(self.rows):
                chosen = np.arange(self.written, min(self.written + batch_size, len(self.rows)))
                blocks = self._blocks(teacher, {name: part.to(device) for name, part in self.rows.collate(chosen).items()})
                end = int(self.ends[chosen[-1]])
                states[end - len(blocks) : end] = blocks
                self.digest.update(blocks.data)
                self.written += len(chosen)
                progress.update(len(chosen))
                if self.written == len(self.rows) or time.monotonic() - recorded > RECORD_SECONDS:
                    states.flush()
                    self._record()
                    recorded = time.monotonic()

    def _blocks(self, teacher: FrozenTeacher, batch: dict[str, torch.Tensor]) -> np.ndarray:
        """The teacher's states of a batch as they are stored, [n, B, d1]."""
        blocks = torch.stack(teacher.signals(batch).blocks, dim=1).to(getattr(torch, self.key.dtype)).cpu()
        return np.ascontiguousarray(blocks.view(torch.int16).numpy() if self.key.dtype == "bfloat16" else blocks.numpy())

    def _reserve(self) -> None:
        """Say how much disk the states take, record that no row is written, and take it."""
        positions, blocks, width = self.shape
        (self.directory / STATES).unlink(missing_ok=True)
        needed, free = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize, shutil.disk_usage(self.directory).free
        what = (
            f"{needed / GIB:.2f} GiB for teacher states of {positions:,} positions x {blocks} blocks x {width} {self.key.dtype}"
        )
        if needed > free:
            raise InputError(f"--teacher_cache {self.directory}: {what} do not fit, {free / GIB:.2f} GiB are free")
        say(f"{self.directory}: {what} ({free / GIB:.2f} GiB are free)")
        self._record()
        with naming(self.directory / STATES):
            np.lib.format.open_memmap(self.directory / STATES, mode="w+", dtype=self.dtype, shape=self.shape)
            if hasattr(os, "posix_fallocate"):  # a sparse file would fail in the middle of training, with a bus error
                with open(self.directory / STATES, "r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, os.path.getsize(self.directory / STATES))

    def _record(self) -> None:
        content = {"key": asdict(self.key), "rows_written": self.written, "sha256": self.digest.hexdigest()}
        write_json(self.directory / PROGRESS, content)
