"""The item embeddings that pass from a conventional recommender to the LLM stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from slmrec.artifacts import read_manifest
from slmrec.data.dataset import PAD
from slmrec.errors import InputError


@dataclass
class EmbeddingArguments:
    """Where item embeddings come from."""

    encoder: str | None = field(default=None, metadata={"help": "directory of a trained conventional recommender"})
    pickle: bool = field(default=False, metadata={"help": "also write sasrec_item.pkl in the layout of the released code"})
    from_pickle: str | None = field(
        default=None, metadata={"help": "instead of --encoder: a released sasrec_item.pkl whose items are in the order of --data"}
    )
    data: str | None = field(default=None, metadata={"help": "with --from_pickle: directory of the data stage"})
    first_item_row: int = field(
        default=1,
        metadata={"help": "with --from_pickle: the row of item 1; 1 where row 0 is padding, 0 where there is no such row"},
    )

    def __post_init__(self):
        if (self.encoder is None) == (self.from_pickle is None):
            raise InputError("give either --encoder or --from_pickle")
        if (self.from_pickle is None) != (self.data is None):
            raise InputError("--from_pickle and --data go together")
        if self.first_item_row not in (0, 1) or (self.encoder and self.first_item_row != 1):
            raise InputError(f"--first_item_row {self.first_item_row}: 0 or 1, and only with --from_pickle")


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
    broken = torch.nonzero(~table.isfinite().all(dim=1))
    if len(broken):
        raise InputError(f"the {name.split('_')[1]} of item {int(broken[0])} is not finite ({len(broken)} such items)")
    save_file({name: table}, path)


def _read(path: Path, name: str) -> torch.Tensor:
    try:
        return load_file(path)[name]
    except (FileNotFoundError, SafetensorError, KeyError) as error:
        raise InputError(f"{path}: no readable tensor {name!r} in it ({error})") from None
