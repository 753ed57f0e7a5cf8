"""Reading files of tensors with one clear error."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from slmrec.errors import InputError


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file by name, on the CPU. Raises InputError when it is missing or damaged."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (SafetensorError, ValueError, KeyError):  # the last two: a type or shape that torch does not have
        raise InputError(f"{path}: no readable tensor in it; it is damaged or no safetensors file") from None
