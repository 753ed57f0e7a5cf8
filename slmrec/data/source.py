"""What --input is: which files, in which format, with which columns. All of it is told before anything is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from slmrec.data.amazon import find_fields, parsed, read_amazon
from slmrec.data.arguments import DataArguments
from slmrec.data.columns import KNOWN, NONE, Columns, find_columns, guess
from slmrec.data.compressed import read_head
from slmrec.data.delimited import read_rows
from slmrec.data.frames import PARQUET, parquet_columns, read_parquet
from slmrec.data.input_files import input_files
from slmrec.data.interactions import Interactions
from slmrec.data.layout import TYPES, Layout, find_layout, find_row_columns
from slmrec.data.recbole import holds_sequences, read_sequence_rows
from slmrec.data.sequences import read_sequences
from slmrec.errors import InputError
from slmrec.files import starts_with

DESCRIBED = {
    "amazon": "JSON lines",
    "csv": "a table",
    "recbole": "an atomic file",
    "sequences": "sequences",
    "parquet": "parquet",
}
SEQUENCE_ROWS = {"rating": NONE, "time": NONE}  # columns that a file with one sequence a row does not have
HISTORY = re.compile(rb'\{\s*"[^"]*"\s*:\s*\[')  # how a JSON object of sequences begins


@dataclass(frozen=True)
class Source:
    """What was found out about the input.

    Attributes:
        ready: whether it holds sequences that somebody has made; their actions are kept unless a flag says otherwise.
        columns: None for sequences.
        layout: None where there is no separator.
    """

    paths: tuple[str, ...]
    format: str
    encoding: str
    ready: bool = False
    columns: Columns | None = None
    layout: Layout | None = None

    def __str__(self) -> str:
        first = Path(self.paths[0]).name
        files = first if len(self.paths) == 1 else f"{first} and {len(self.paths) - 1} more"
        cut = f", {self.layout}" if self.layout else ""
        return f"{files}: {DESCRIBED[self.format]}{cut}" + (f"; {self.columns}" if self.columns else ", in order already")

    def settings(self) -> dict:
        """What was found out, for config.json."""
        columns = {f"{role}_column": name or "none" for role, name in vars(self.columns).items()} if self.columns else {}
        return {"format": self.format} | columns

    def read(self, max_malformed: float) -> Interactions:
        paths = list(self.paths)
        if self.format == "sequences":
            return read_sequences(paths, self.encoding)
        assert self.columns is not None  # every other format has them
        if self.format == "amazon":
            return read_amazon(paths, self.columns, max_malformed, self.encoding)
        if self.format == "parquet":
            return read_parquet(paths, self.columns)
        assert self.layout is not None
        if self.ready:
            return read_sequence_rows(paths, self.layout, self.columns, self.encoding)
        return read_rows(paths, self.layout, self.columns, self.encoding)


def find_source(args: DataArguments) -> Source:
    """Look at the first file of --input. Raises InputError when it cannot be told what it is, or when the others differ."""
    paths = input_files(args.input)
    kinds = {path: args.format if args.format != "auto" else guess_format(path, args.encoding) for path in paths}
    first = paths[0]
    other = next((path for path in paths if kinds[path] != kinds[first]), None)
    if other:
        raise InputError(f"{other}: {DESCRIBED[kinds[other]]} where {first} is {DESCRIBED[kinds[first]]}")
    found = [describe(path, kinds[first], args) for path in paths]
    different = next((path for path, what in zip(paths, found) if what != found[0]), None)
    if different:
        raise InputError(f"{different}: has other columns than {first}, or between other separators")
    return Source(tuple(paths), kinds[first], args.encoding, **found[0])


def describe(path: str, kind: str, args: DataArguments) -> dict:
    """The fields of Source that one file tells."""
    flags = args.columns()
    if kind == "sequences":
        return {"ready": True}
    if kind == "amazon":
        return {"columns": find_fields(path, args.encoding, flags)}
    if kind == "parquet":
        return {"columns": find_columns(path, parquet_columns(path), flags)}
    layout = find_layout(path, args.encoding, args.no_header, atomic=kind == "recbole")
    item = flags["item"] or guess(layout.names, KNOWN["item"])
    if kind == "recbole" and item and holds_sequences(layout, item):
        return {
            "ready": True,
            "layout": layout,
            "columns": find_columns(path, layout.names, SEQUENCE_ROWS | sequence_flags(flags)),
        }
    return {"layout": Layout(**vars(layout) | {"first": ()}), "columns": find_row_columns(path, layout, flags)}


def sequence_flags(flags: dict[str, str | None]) -> dict[str, str]:
    """The flags that name columns of a file with one sequence a row. Raises InputError for those that it has no use for."""
    for role in SEQUENCE_ROWS:
        if flags[role] not in (None, NONE):
            raise InputError(f"--{role}_column is only for files with one action a row")
    return {role: name for role, name in flags.items() if name}


def guess_format(path: str, encoding: str) -> str:
    """The format that a file's first bytes and its name tell."""
    if starts_with(path, PARQUET):
        return "parquet"
    head = read_head(path, encoding).lstrip()
    if head.startswith(b"{"):
        return "sequences" if holds_histories(head) else "amazon"
    if head.startswith(b"["):
        return "amazon"  # whose reader says what is wrong with it
    if head.startswith(b"<"):
        raise InputError(f"{path}: looks like a web page, not like data")
    first_line = head.split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8", errors="replace")
    stem = Path(path).name.removesuffix(".gz")
    if stem.endswith(".inter") or any(cell.endswith(TYPES) for cell in re.split("[\t,]", first_line)):
        return "recbole"
    return "csv" if re.search("[\t,;|]|::", first_line) or not re.search("[ ]", first_line) else "sequences"


def holds_histories(head: bytes) -> bool:
    """Whether what begins with { is one JSON object of sequences."""
    record = parsed(head.split(b"\n", 1)[0], literals=False)
    if record is None:  # over several lines, or one that goes on
        return HISTORY.match(head) is not None
    return bool(record) and all(isinstance(value, list) for value in record.values())
