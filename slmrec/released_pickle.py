"""Item embeddings in the layout of the authors' released code: a pickled dict {'item_embedding': tensor}.

A pickle can run any code when it is opened, so reading goes through an allow-list that admits tensors and nothing else.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from pathlib import Path

import torch

from slmrec.errors import InputError

KEY = "item_embedding"


def _load_storage(content: bytes):
    """In place of torch.storage._load_from_bytes, which would unpickle without restriction."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _encode_latin1(text: str, encoding: str) -> bytes:
    """In place of _codecs.encode, by which pickle protocols 0 to 2 spell bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


ALLOWED = {
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): _load_storage,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _encode_latin1,
}


class TensorUnpickler(pickle.Unpickler):
    """Unpickles dicts, plain values and tensors; any other global is refused."""

    def find_class(self, module: str, name: str):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only tensors are admitted")
        return ALLOWED[module, name]


def read_released_pickle(path: str | Path) -> torch.Tensor:
    """The float32 table [rows, d] of a file written by pickle.dump or torch.save, whatever device it was written from.

    Raises InputError when the file is missing, asks for anything but tensors, or is not of the released layout.
    """
    content = _unpickle(Path(path))
    table = content.get(KEY) if isinstance(content, dict) else None
    if not isinstance(table, torch.Tensor):
        raise InputError(f"{path}: not a dict with a tensor under {KEY!r}")
    if table.dim() != 2 or not table.is_floating_point():
        raise InputError(f"{path}: {KEY!r} is {table.dtype} {list(table.shape)}, not a matrix of numbers")
    return table.detach().float()


def _unpickle(path: Path):
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        if zipfile.is_zipfile(path):  # torch.save
            return torch.load(path, map_location="cpu", weights_only=True)
        with open(path, "rb") as stream:
            return TensorUnpickler(stream).load()
    except (pickle.UnpicklingError, EOFError, RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: refused, not a pickle of tensors ({reason})") from None


def write_released_pickle(table: torch.Tensor, path: str | Path) -> None:
    """Write a table [N + 1, d] in the released layout."""
    with open(path, "wb") as stream:
        pickle.dump({KEY: table.detach().cpu()}, stream)


def place_rows(table: torch.Tensor, num_items: int, first_item_row: int) -> torch.Tensor:
    """A table [first_item_row + N, d] whose row first_item_row belongs to item 1, as [N + 1, d] with a zero PAD row.

    Raises InputError when the number of rows is another.
    """
    if len(table) != first_item_row + num_items:
        raise InputError(
            f"the file's table has {len(table)} rows, the data set has {num_items} items: with --first_item_row {first_item_row} "
            f"it must have {first_item_row + num_items} (0: one row per item; 1: a padding row before them)"
        )
    padding = table.new_zeros(1, table.shape[1])
    return torch.cat([padding, table[first_item_row:]])
