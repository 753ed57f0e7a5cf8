"""Files that survive: read with one clear error, written whole or not at all, on the disk before anything points to them."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from slmrec.errors import InputError, naming

HASHED: dict[tuple, str] = {}  # (path, inode, size, times) -> sha256: one command opens the same directory several times


def read_json(path: str | Path, kind: type = dict):
    """Parse one JSON file that holds an object, or a `list`. Raises InputError when it is missing or something else."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not valid JSON (it is no UTF-8 text)") from None
    except (RecursionError, ValueError):  # nested too deeply; an integer of thousands of digits
        raise InputError(f"{path}: not valid JSON (nested too deeply, or a number too long)") from None
    if not isinstance(content, kind):
        raise InputError(f"{path}: not a JSON {'object in braces' if kind is dict else 'list in brackets'}")
    return content


def read_arrays(path: str | Path, *required: str, mapped: bool = False) -> dict[str, np.ndarray]:
    """The arrays of an .npz file. Raises InputError when it is missing, damaged, or lacks one of the required names.

    With `mapped` they stay in the file, whose pages all processes that read it share, unless it is compressed.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            places = {name: _place_in_archive(content.zip, path, f"{name}.npy") if mapped else None for name in content.files}
            arrays = {name: content[name] if place is None else _mapped(path, place) for name, place in places.items()}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        KeyError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
    ) as error:
        raise InputError(f"{path}: not an intact .npz file ({type(error).__name__})") from None
    missing = [name for name in required if name not in arrays]
    if missing:
        raise InputError(f"{path}: has no array {missing[0]!r}")
    return arrays


def _mapped(path: str | Path, place: dict) -> np.ndarray:
    return np.memmap(path, mode="r", **place).view(np.ndarray)


def _place_in_archive(archive: zipfile.ZipFile, path: str | Path, member: str) -> dict | None:
    """Where an array's bytes stand in an .npz file, as np.memmap asks for it; None where they are compressed, or none."""
    found = archive.getinfo(member)
    with open(path, "rb") as stream:
        stream.seek(found.header_offset + 26)  # the lengths of two fields that are 30 bytes from the member's beginning
        stream.seek(found.header_offset + 30 + sum(struct.unpack("<HH", stream.read(4))))
        if found.compress_type != zipfile.ZIP_STORED or np.lib.format.read_magic(stream) != (1, 0):
            return None
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        plain = not dtype.hasobject and 0 not in shape
        order = "F" if fortran_order else "C"
        return {"dtype": dtype, "shape": shape, "order": order, "offset": stream.tell()} if plain else None


def first_bytes(path: str | Path, count: int) -> bytes:
    """What a file begins with. Raises InputError when there is no file of this name."""
    try:
        with open(path, "rb") as stream:
            return stream.read(count)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a directory where a file is needed") from None


def starts_with(path: str | Path, magic: bytes) -> bool:
    """Whether a file is of the kind that begins so. Raises InputError likewise."""
    return first_bytes(path, len(magic)) == magic


def write_json(path: str | Path, content: dict) -> None:
    """Write JSON so that a killed process leaves the old file or the new one, never a part."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Gives a temporary name to write to; the file gets its own name when the body ends without an error."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    with naming(path):
        try:
            yield temporary
            synchronise(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        synchronise(path.parent)


def is_temporary(path: Path) -> bool:
    """Whether `written_whole` gave this name."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def synchronise(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk: what is renamed before may be empty after a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_to_colleagues(paths: Iterable[Path], like: Path) -> None:
    """Give files the permissions of `like`, which plain `open` made: safetensors makes files that only their owner reads."""
    mode = stat.S_IMODE(like.stat().st_mode)
    for path in paths:
        if stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


def file_sha256(path: str | Path) -> str:
    """sha256 of a file's bytes. A file that has not changed since this process last asked is not read again."""
    status = os.stat(path)
    key = (os.path.realpath(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if key not in HASHED:
        with open(path, "rb") as stream:
            HASHED[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return HASHED[key]


def json_sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
