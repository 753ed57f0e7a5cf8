"""Input files as streams of UTF-8 text: decompressed, without a byte order mark, whole or in blocks of lines."""

from __future__ import annotations

import bz2
import codecs
import io
import lzma
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from backports import zstd
from isal import igzip, isal_zlib

from slmrec.errors import InputError
from slmrec.progress import Counter

BLOCK_BYTES = 8 << 20  # larger ones leave the cache and cost twice the time
HEAD_BYTES = 256 << 10  # of a file, from which its layout is told
LONGEST_LINE = 64 << 20  # its first line, where that is longer
MAX_LAYERS = 3  # of compression around each other: a gzip file packed again is not rare
READERS: dict[bytes, tuple[str, Callable]] = {  # first bytes -> what that is, and what unpacks it
    b"\x1f\x8b": ("gzip", lambda stream: igzip.IGzipFile(fileobj=stream, mode="rb")),
    b"\x28\xb5\x2f\xfd": ("zstd", zstd.ZstdFile),
    b"BZh": ("bzip2", bz2.BZ2File),
    b"\xfd7zXZ\x00": ("xz", lzma.LZMAFile),
}
DAMAGED: tuple[Any, ...] = (igzip.BadGzipFile, isal_zlib.error, zstd.ZstdError, lzma.LZMAError)
UNPACK = "unpack it and name the file that was inside"
OTHERS = {  # first bytes of what is not read -> what that is, and what to do
    b"PK\x03\x04": ("a zip archive or an Excel file", f"{UNPACK}, or save the sheet as CSV"),
    b"7z\xbc\xaf": ("a 7z archive", UNPACK),
    b"Rar!": ("a rar archive", UNPACK),
    b"\x04\x22\x4d\x18": ("an lz4 file", UNPACK),
    b"\x1f\x9d": ("a file of compress (.Z)", UNPACK),
    b"ARROW1": ("an Arrow or Feather file", "write it as parquet"),
    b"\x89HDF": ("an HDF5 file", "write it as parquet or CSV"),
    b"SQLite": ("an SQLite database", "write the table as CSV"),
}
TAR_AT, TAR = 257, b"ustar"
BOM = codecs.BOM_UTF8
WIDE = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


@contextmanager
def open_binary(path: str | Path, encoding: str = "utf-8"):
    """Yield (stream of the content as UTF-8, file): the two differ where the file's first bytes say that it is compressed.

    Raises InputError when the file is missing, an archive or in another encoding, or its compressed data is cut short or damaged,
    also while it is being read.
    """
    kinds: list[str] = []
    try:
        with open(path, "rb") as file:
            yield as_utf8(path, unpacked(path, file, kinds), encoding), file
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a directory where a file is needed") from None
    except EOFError:
        raise InputError(
            f"{path}: truncated {kinds[-1]} file (its end is missing, or bytes of something else follow it)"
        ) from None
    except DAMAGED as error:
        raise InputError(f"{path}: damaged {kinds[-1]} file ({error})") from None
    except OSError as error:
        if error.errno is not None or not kinds:  # the disk's, not the data's
            raise
        raise InputError(f"{path}: damaged {kinds[-1]} file ({error})") from None


def unpacked(path: str | Path, file: BinaryIO, kinds: list[str]) -> Any:
    """The decompressed stream of a file; what it was compressed with is added to `kinds`."""
    stream: Any = file  # all kinds of them can peek
    while True:
        head = stream.peek(TAR_AT + len(TAR))
        for magic, (what, advice) in OTHERS.items():
            if head.startswith(magic):
                raise InputError(f"{path}: {what}; {advice}")
        if head[TAR_AT:].startswith(TAR):
            raise InputError(f"{path}: a tar archive; {UNPACK}")
        kind, reader = next((READERS[magic] for magic in READERS if head.startswith(magic)), ("", None))
        if reader is None or len(kinds) == MAX_LAYERS:
            return stream
        stream = reader(stream if not kinds else io.BufferedReader(stream))
        kinds.append(kind)


def as_utf8(path: str | Path, stream: Any, encoding: str) -> BinaryIO:
    """The stream without byte order mark, recoded unless it is UTF-8 already."""
    if encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
        stream = io.BufferedReader(Recoded(path, stream, encoding), BLOCK_BYTES)
    head = stream.peek(4)[:4]
    if head[:2] in WIDE:
        raise InputError(f"{path}: {WIDE[head[:2]]} text where UTF-8 is needed; --encoding utf-16 reads it")
    if b"\x00" in head:
        raise InputError(f"{path}: begins with NUL bytes, so it is no text (or UTF-16 or UTF-32: --encoding names it)")
    if head.startswith(BOM):
        stream.read(len(BOM))
    return stream


class Recoded(io.RawIOBase):
    """A stream of another encoding as UTF-8."""

    def __init__(self, path: str | Path, stream: BinaryIO, encoding: str):
        self.path, self.stream, self.encoding, self.ready = path, stream, encoding, b""
        try:
            self.decoder = codecs.getincrementaldecoder(encoding)()
        except LookupError:
            raise InputError(f"--encoding {encoding}: Python knows no encoding of this name") from None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self.ready:
            chunk = self.stream.read(1 << 20)
            try:
                self.ready = self.decoder.decode(chunk, final=not chunk).encode()
            except UnicodeError as error:
                raise InputError(f"{self.path}: not {self.encoding} text ({getattr(error, 'reason', error)})") from None
            if not chunk:
                break
        part, self.ready = self.ready[: len(buffer)], self.ready[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def read_bytes(path: str | Path, encoding: str = "utf-8") -> bytes:
    with open_binary(path, encoding) as (stream, _):
        return stream.read()


def read_head(path: str | Path, encoding: str = "utf-8") -> bytes:
    """The first lines of a file, whole ones unless the first is longer than HEAD_BYTES. Refuses lines that end in CR alone."""
    with open_binary(path, encoding) as (stream, _):
        head = stream.read(HEAD_BYTES)
        whole = len(head) < HEAD_BYTES
        if b"\n" not in head:
            head += stream.readline(LONGEST_LINE)
    if b"\r" in head and b"\n" not in head:
        raise InputError(f"{path}: its lines end in carriage returns alone, as on old Macs; convert it (tr '\\r' '\\n' < FILE)")
    return head if whole or b"\n" not in head else head[: head.rindex(b"\n") + 1]


def line_blocks(path: str | Path, encoding: str = "utf-8") -> Iterator[bytes]:
    """Blocks of whole lines, about BLOCK_BYTES each; the next one is decompressed while the caller works on this one."""
    with (
        open_binary(path, encoding) as (stream, file),
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


def decoded(block: bytes, path: str | Path, lines_before: int) -> str:
    """A block of lines as text. Raises InputError with the line that is not UTF-8."""
    try:
        return block.decode("utf-8")
    except UnicodeDecodeError as error:
        line = lines_before + block.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: not UTF-8 text; --encoding names another (latin1 is usual in old files)"
        ) from None
