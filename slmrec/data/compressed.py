"""Plain or gzip-compressed input files, whole or in blocks of lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from isal import igzip, isal_zlib

from slmrec.errors import InputError
from slmrec.progress import Counter

GZIP_MAGIC = b"\x1f\x8b"
BLOCK_BYTES = 8 << 20  # larger ones leave the cache and cost twice the time


@contextmanager
def open_binary(path: str | Path):
    """Yield (stream of the content, file): the two differ where the file's first bytes say gzip.

    Raises InputError when the file is missing or its gzip data is cut short or damaged, also while it is being read.
    """
    try:
        with open(path, "rb") as file:
            compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            file.seek(0)
            yield igzip.IGzipFile(fileobj=file) if compressed else file, file
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a directory where a file is needed") from None
    except EOFError:
        raise InputError(f"{path}: truncated gzip file (its end is missing)") from None
    except (igzip.BadGzipFile, isal_zlib.error) as error:
        raise InputError(f"{path}: damaged gzip file ({error})") from None


def read_bytes(path: str | Path) -> bytes:
    with open_binary(path) as (stream, _):
        return stream.read()


def line_blocks(path: str | Path) -> Iterator[bytes]:
    """Blocks of whole lines, about BLOCK_BYTES each; the next one is decompressed while the caller works on this one."""
    with (
        open_binary(path) as (stream, file),
        ThreadPoolExecutor(1) as reader,
        Counter(Path(path).name, os.path.getsize(path), unit="B") as counter,
    ):
        read = partial(read_lines, stream)
        pending = reader.submit(read)
        while block := pending.result():
            pending = reader.submit(read)
            counter.update(file.tell() - counter.done)
            yield block


def read_lines(stream: BinaryIO) -> bytes:
    """The next BLOCK_BYTES and what is missing of the last line; empty at the end."""
    return stream.read(BLOCK_BYTES) + stream.readline()
