"""The item embeddings that pass from an encoder to the LLM stages."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from slmrec.artifacts import read_manifest
from slmrec.data.dataset import PAD
from slmrec.errors import InputError
from slmrec.tensors import read_tensors

TENSORS, NAME = "item_embeddings.safetensors", "item_embedding"
TEXT_TENSORS, TEXT_NAME = "text_vectors.safetensors", "text_vector"  # what the items are called, in numbers (slmrec.text)


def save_item_embeddings(table: torch.Tensor, directory: str | Path) -> None:
    """Write a table [N + 1, d] as float32 with a zero PAD row. Raises InputError when a value is not finite."""
    _save(table, Path(directory) / TENSORS, NAME)


def load_item_embeddings(directory: str | Path) -> torch.Tensor:
    """The table of a finished embeddings stage, float32 [N + 1, d]; row 0 (PAD) is zero.

    Raises InputError when the directory is no such stage or its file is damaged.
    """
    read_manifest(directory, "embeddings")
    return read_item_embeddings(directory)


def read_item_embeddings(directory: str | Path) -> torch.Tensor:
    """The table that `save_item_embeddings` wrote into any directory, float32 [N + 1, d].

    Raises InputError when there is none, or it is damaged.
    """
    return _read(Path(directory) / TENSORS, NAME)


def save_text_vectors(table: torch.Tensor, directory: str | Path) -> None:
    """Write the items' text vectors [N + 1, d_text] like item embeddings."""
    _save(table, Path(directory) / TEXT_TENSORS, TEXT_NAME)


def load_text_vectors(directory: str | Path | None) -> torch.Tensor | None:
    """The vectors of a finished text stage, float32 [N + 1, d_text]; row 0 (PAD) is zero. Nothing where no directory is given.

    Raises InputError likewise.
    """
    if directory is None:
        return None
    read_manifest(directory, "text")
    return read_text_vectors(directory)


def read_text_vectors(directory: str | Path) -> torch.Tensor:
    """The table that `save_text_vectors` wrote into any directory. Raises InputError likewise."""
    return _read(Path(directory) / TEXT_TENSORS, TEXT_NAME)


def _save(table: torch.Tensor, path: Path, name: str) -> None:
    table = table.detach().to("cpu", torch.float32).clone()
    table[PAD] = 0.0
    _require_finite(table, f"the {name.split('_')[1]}")
    save_file({name: table}, path)


def _read(path: Path, name: str) -> torch.Tensor:
    table = read_tensors(path).get(name)
    if table is None:
        raise InputError(f"{path}: no readable tensor {name!r} in it")
    if table.dtype != torch.float32 or table.dim() != 2 or len(table) < 2 or not table.shape[1]:
        found = f"{str(table.dtype).removeprefix('torch.')} {list(table.shape)}"
        raise InputError(f"{path}: {name!r} is {found} where float32 [items + 1, width] is needed")
    _require_finite(table, f"{path}: the {name.split('_')[1]}")
    return table


def _require_finite(table: torch.Tensor, what: str) -> None:
    broken = torch.nonzero(~table.isfinite().all(dim=1))
    if len(broken):
        raise InputError(f"{what} of item {int(broken[0])} is not finite ({len(broken)} such items)")
