"""Recommendations of a trained model: for one history on the terminal, or for all users into a file.

python recommend.py --model runs/demo/slmrec_4_8 --history B0008Y81WQ,B000050B6U
python recommend.py --model runs/demo/slmrec_4_8 --users all --output recommendations.parquet
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow.parquet
from tqdm import tqdm

from slmrec.checks import at_least
from slmrec.command_line import parse_arguments
from slmrec.errors import InputError
from slmrec.open_model import data_directory
from slmrec.recommendation import Histories, Model, load
from slmrec.runtime import run_main

FORMATS = (".parquet", ".csv", ".jsonl")


@dataclass
class RecommendArguments:
    """Which model, for whom, and where to."""

    model: str = field(metadata={"help": "directory of a trained model"})
    history: str | None = field(default=None, metadata={"help": "source ids, oldest first, with commas between them"})
    users: str | None = field(default=None, metadata={"help": "all, or source ids of users with commas between them"})
    data: str | None = field(
        default=None,
        metadata={"help": "with --users: directory of the data stage; default: the one that the model was trained on"},
    )
    output: str | None = field(default=None, metadata={"help": "with --users: file, by its ending .parquet, .csv or .jsonl"})
    k: int = field(default=10, metadata={"help": "items for each history"})
    filter_viewed: bool = field(default=True, metadata={"help": "leave out what the history holds"})
    exclude: str | None = field(default=None, metadata={"help": "source ids that must not be recommended, with commas"})
    only: str | None = field(default=None, metadata={"help": "source ids that alone may be recommended, with commas"})
    unknown: Literal["skip", "refuse"] = field(default="skip", metadata={"help": "ids of --history that the model does not know"})
    batch_size: int = field(default=512, metadata={"help": "users at a time; it has no influence on the result"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})
    precision: Literal["fp32", "bf16"] = field(
        default="fp32", metadata={"help": "in which an E4SRec or SLMRec computes; bf16 is faster where the device has it"}
    )

    def __post_init__(self):
        if (self.history is None) == (self.users is None):
            raise InputError("give either --history (one, by hand) or --users (those of a data directory)")
        if self.history is not None and (self.output or self.data):
            raise InputError("--output and --data go with --users; the answer to --history is printed")
        if self.output and Path(self.output).suffix not in FORMATS:
            raise InputError(f"--output {self.output}: must end in {', '.join(FORMATS)}")
        at_least("k", self.k, 1)
        at_least("batch_size", self.batch_size, 1)


def listed(ids: str | None) -> list[str]:
    return [one.strip() for one in (ids or "").split(",") if one.strip()]


def table(rows: Iterable[tuple], header: tuple[str, ...]) -> str:
    """Columns as wide as their widest cell."""
    rows = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def print_one(model: Model, args: RecommendArguments) -> None:
    only = listed(args.only) if args.only is not None else None
    found = model.recommend(
        listed(args.history),
        args.k,
        filter_viewed=args.filter_viewed,
        exclude=listed(args.exclude),
        only=only,
        unknown=args.unknown,
    )
    if found.by_popularity:
        print("nothing of the history is known: these are the most popular items")
    rows = [(rank, one.item, f"{one.score:.3f}", one.title[:80]) for rank, one in enumerate(found, start=1)]
    print(table(rows, ("rank", "item", "score", "title")))


def chosen_histories(model: Model, args: RecommendArguments) -> Histories:
    """Those of all users of the data directory, or of the named ones."""
    histories = model.histories(args.data or data_directory(args.model))
    if args.users == "all":
        return histories
    number = {user: place for place, user in enumerate(histories.users)}
    wanted = listed(args.users)
    missing = [user for user in wanted if user not in number]
    if missing or not wanted:
        raise InputError(f"--users: {missing[0] if missing else 'nobody'!r} is not a user of the data")
    return histories.take([number[user] for user in wanted])


@contextmanager
def writer(output: str | None) -> Iterator:
    """A function that appends a frame: to the file, which gets its name once it is whole, or to the terminal."""
    if output is None:
        yield lambda frame: print(table(frame.rows(), tuple(frame.columns)))
        return
    path, suffix = Path(output), Path(output).suffix
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with Appender(unfinished, suffix) as appender:
            yield appender.append
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


class Appender:
    """Frames of one shape, one after another into a parquet, csv or jsonl file."""

    def __init__(self, path: Path, suffix: str):
        self.path, self.suffix, self.parquet, self.first = path, suffix, None, True

    def __enter__(self) -> Appender:
        self.stream = open(self.path, "wb")
        return self

    def append(self, frame: pl.DataFrame) -> None:
        if self.suffix == ".parquet":
            content = frame.to_arrow()
            self.parquet = self.parquet or pyarrow.parquet.ParquetWriter(self.stream, content.schema)
            self.parquet.write_table(content)
        elif self.suffix == ".csv":
            frame.write_csv(self.stream, include_header=self.first)
        else:
            frame.write_ndjson(self.stream)
        self.first = False

    def __exit__(self, *error) -> None:
        if self.parquet:
            self.parquet.close()
        self.stream.close()


def main(argv: list[str] | None = None) -> None:
    (args,) = parse_arguments(RecommendArguments, argv, description=__doc__)
    model = load(args.model, args.device, args.precision)
    if args.history is not None:
        print_one(model, args)
        return
    histories = chosen_histories(model, args)
    only = listed(args.only) if args.only is not None else None
    options = {"filter_viewed": args.filter_viewed, "exclude": listed(args.exclude), "only": only, "batch_size": args.batch_size}
    with writer(args.output) as append, tqdm(total=len(histories.users), unit="user", disable=None) as progress:
        for frame in model.recommend_batches(histories, args.k, **options):
            append(frame)
            progress.update(min(args.batch_size, progress.total - progress.n))
    if args.output:
        print(f"{args.output}: the {args.k} best items of {len(histories.users)} users")


if __name__ == "__main__":
    run_main(main)
