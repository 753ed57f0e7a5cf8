"""The text vectors of items on disk: one stage directory, float32 [N + 1, d_text], row 0 (PAD) zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from slmrec.artifacts import read_manifest
from slmrec.errors import InputError

TENSORS, NAME = "text_vectors.safetensors", "text_vector"


def fill_missing(known: np.ndarray, vectors: np.ndarray) -> torch.Tensor:
    """Vectors of all items, float32 [N + 1, d_text], from those of the items that have a text.

    Args:
        known: bool [N], which items have one.
        vectors: float32 [known.sum(), d_text], theirs in the same order; the others get their mean.
    """
    table = np.zeros((len(known) + 1, vectors.shape[1]), dtype=np.float32)
    table[1:] = vectors.mean(0)
    table[1:][known] = vectors
    return torch.from_numpy(table)


def save_text_vectors(table: torch.Tensor, directory: Path) -> None:
    """Raises InputError when a value is not finite."""
    if not table.isfinite().all():
        raise InputError("the encoder gave vectors that are not finite")
    save_file({NAME: table.contiguous()}, directory / TENSORS)


def load_text_vectors(directory: str | Path) -> torch.Tensor:
    """The vectors of a finished text stage, float32 [N + 1, d_text]. Raises InputError when the directory is none."""
    read_manifest(directory, "text")
    path = Path(directory) / TENSORS
    try:
        return load_file(path)[NAME]
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{path}: no readable tensor {NAME!r} in it ({error})") from None


def control_vectors(table: torch.Tensor, control: str, seed: int) -> torch.Tensor:
    """What stands in the place of the text vectors [N + 1, d_text] so that all but their meaning stays alike.

    Args:
        control: none (the vectors themselves), shuffled (each item gets another item's) or gaussian (standard normal vectors).
    """
    generator = torch.Generator().manual_seed(seed)
    replaced = table.clone()
    if control == "shuffled":
        replaced[1:] = table[1:][torch.randperm(len(table) - 1, generator=generator)]
    elif control == "gaussian":
        replaced[1:] = torch.randn(table[1:].shape, generator=generator)
    return replaced
