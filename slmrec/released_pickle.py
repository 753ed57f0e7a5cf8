"""Item embeddings in the layout of the authors' released code: a pickled dict {'item_embedding': tensor}.

A pickle can run any code when it is opened, so reading goes through an allow-list that admits tensors and nothing else.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import torch

from slmrec.errors import InputError

KEY = "item_embedding"


def _load_storage(content: bytes):
    """In place of torch.storage._load_from_bytes, which would unpickle without restriction."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _rebuild_tensor(storage, offset, size, stride, *_):
    """In place of torch._utils._rebuild_tensor_v2, which enlarges a storage that is too small, by whatever lies in memory."""
    with warnings.catch_warnings():  # torch says that storages with a type will go, and pickles hold no others
        warnings.simplefilter("ignore")
        room = len(storage)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) if 0 not in size else -1
    if offset < 0 or min((*size, *stride), default=0) < 0 or last >= room:
        raise pickle.UnpicklingError(f"a tensor of {list(size)} values in a storage of {room}")
    return torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, collections.OrderedDict())


def _encode_latin1(text: str, encoding: str) -> bytes:
    """In place of _codecs.encode, by which pickle protocols 0 to 2 spell bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


ALLOWED = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): _load_storage,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _encode_latin1,
}
# What reading a hostile or damaged file may raise; anything else is a fault of this program.
REFUSALS = (
    *(pickle.UnpicklingError, EOFError, RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError),
    *(MemoryError, OverflowError, RecursionError, struct.error, zipfile.BadZipFile),
)


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
    if table.dim() != 2 or not table.is_floating_point() or table.layout != torch.strided:
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
    except REFUSALS as error:
        raise InputError(f"{path}: refused, not a pickle of tensors ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """In a few words; never torch's advice to read the file without restriction."""
    text = str(error).splitlines()[0] if str(error) else ""
    if "weights_only" in str(error) or "Weights only" in text:
        return "it asks for something that is no tensor"
    return text if 0 < len(text) <= 120 else type(error).__name__


class _Written:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def write_released_pickle(table: torch.Tensor, path: str | Path) -> None:
    """Write a table [N + 1, d] in the released layout. The same table gives the same bytes."""
    table = table.detach().cpu().clone(memory_format=torch.contiguous_format)
    storage = _Written(torch.storage._load_from_bytes, _storage_bytes(table))
    order: dict = collections.OrderedDict()
    tensor = (torch._utils._rebuild_tensor_v2, storage, 0, tuple(table.shape), table.stride(), False, order)
    with open(path, "wb") as stream:
        pickle.dump({KEY: _Written(*tensor)}, stream)


def _storage_bytes(table: torch.Tensor) -> bytes:
    """The storage of a tensor as torch pickles it, but under the name "0" instead of its address in memory."""
    buffer = io.BytesIO()
    storage = torch.storage.TypedStorage(wrap_storage=table.untyped_storage(), dtype=table.dtype, _internal=True)
    torch.save(storage, buffer, _use_new_zipfile_serialization=False)
    address = str(table.untyped_storage()._cdata).encode()
    written = b"X" + struct.pack("<I", len(address)) + address
    assert buffer.getvalue().count(written) == 2, "torch names a storage where it lies and in the list of all"
    return buffer.getvalue().replace(written, b"X" + struct.pack("<I", 1) + b"0")


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
