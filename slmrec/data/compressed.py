"""Plain or gzip-compressed input files, whole or in blocks of lines."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from slmrec.artifacts import InputError

GZIP_MAGIC = b"\x1f\x8b"
BLOCK_BYTES = 32 << 20


@contextmanager
def open_binary(path: str | Path):
    """Yield (stream of the content, file): the two differ where the file's first bytes say gzip.

    Raises InputError when the file is missing or its gzip data is cut short or damaged, also while it is being read.
    """
    try:
        with open(path, "rb") as file:
            compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            file.seek(0)
            yield gzip.GzipFile(fileobj=file) if compressed else file, file
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a directory where a file is needed") from None
    except EOFError:
        raise InputError(f"{path}: truncated gzip file (its end is missing)") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged gzip file ({error})") from None


def read_bytes(path: str | Path) -> bytes:
    with open_binary(path) as (stream, _):
        return stream.read()


def line_blocks(path: str | Path) -> Iterator[bytes]:
    """Blocks of whole lines, about BLOCK_BYTES each; the next one is decompressed while the caller works on this one."""
    with (
        open_binary(path) as (stream, file),
        ThreadPoolExecutor(1) as reader,
        tqdm(total=os.path.getsize(path), desc=Path(path).name, unit="B", unit_scale=True, disable=None) as bar,
    ):
        pending, rest = reader.submit(stream.read, BLOCK_BYTES), b""
        while block := pending.result():
            pending = reader.submit(stream.read, BLOCK_BYTES)
            bar.update(file.tell() - bar.n)
            lines, newline, rest_of_block = block.rpartition(b"\n")
            if newline:
                yield rest + lines + newline
            rest = rest_of_block if newline else rest + block
        if rest:
            yield rest
