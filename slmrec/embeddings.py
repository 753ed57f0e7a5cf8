"""The item embeddings that pass from a conventional recommender to the LLM stages."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from slmrec.artifacts import InputError, read_manifest
from slmrec.data.dataset import PAD

TENSORS, NAME = "item_embeddings.safetensors", "item_embedding"


def save_item_embeddings(table: torch.Tensor, directory: str | Path) -> None:
    """Write a table [N + 1, d] as float32 with a zero PAD row. Raises InputError when a value is not finite."""
    table = table.detach().to("cpu", torch.float32).clone()
    table[PAD] = 0.0
    broken = torch.nonzero(~table.isfinite().all(dim=1))
    if len(broken):
        raise InputError(f"the embedding of item {int(broken[0])} is not finite ({len(broken)} such items)")
    save_file({NAME: table}, Path(directory) / TENSORS)


def load_item_embeddings(directory: str | Path) -> torch.Tensor:
    """The table of a finished embeddings stage, float32 [N + 1, d]; row 0 (PAD) is zero.

    Raises InputError when the directory is no such stage or its file is damaged.
    """
    read_manifest(directory, "embeddings")
    path = Path(directory) / TENSORS
    try:
        return load_file(path)[NAME]
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{path}: no readable tensor {NAME!r} in it ({error})") from None
