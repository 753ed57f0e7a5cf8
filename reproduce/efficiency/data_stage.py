"""The data stage on a large generated review file, against `gzip -dc FILE | wc -l` in the same run.

    python -m reproduce.efficiency.data_stage --rows 10000000

The file has the 2018 layout and is as hard to decompress as a real one: texts of Zipf-distributed words, rows sorted by item id,
about eight reviews a user and 30 an item, whole-day times. Up to a million reviews are counted in plain Python too, and what is
kept has to be the same.
"""

from __future__ import annotations

import gzip
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl
from isal import igzip
from tqdm import tqdm

from slmrec.artifacts import git_state, library_versions, read_json, write_json
from slmrec.command_line import parse_arguments
from slmrec.errors import InputError
from slmrec.runtime import run_main


@dataclass
class DataBenchmarkArguments:
    """What the benchmark of the data stage generates and measures."""

    rows: int = field(default=10_000_000, metadata={"help": "reviews in the generated file"})
    repeats: int = field(default=3, metadata={"help": "how often both commands run, in turn"})
    reviews: str | None = field(
        default=None, metadata={"help": "the generated file, made if it is not there, and kept; it holds --rows reviews"}
    )
    work_dir: str = field(
        default="runs/data_benchmark", metadata={"help": "made for what is generated and processed, removed afterwards"}
    )
    output: str = field(default="results/data_stage/benchmark.json", metadata={"help": "file of the result"})

    def __post_init__(self):
        if self.rows < 1 or self.repeats < 1:
            raise InputError("--rows and --repeats must be at least 1")


PLAIN_ROWS = 1_000_000
MEMBER_ROWS = 100_000  # reviews per gzip member; members are made in parallel
ROWS_PER_USER, ROWS_PER_ITEM = 8.3, 30
RATING_SHARES = (0.06, 0.05, 0.09, 0.19, 0.61)  # of one to five stars
VOCABULARY, BODIES = 8_000, 20_000
MEAN_WORDS = 24
FIRST_DAY, LAST_DAY = 15_000, 17_800
SECONDS_A_DAY = 86_400
LEVEL = 3  # of isa-l: 6% more bytes than gzip's own level 6, the same time to unpack, a quarter of the time to pack
COLUMNS = ("rating", "date", "user", "item", "text", "summary", "time")
LINE = (
    '{{"overall": {}, "verified": true, "reviewTime": "{}", "reviewerID": "{}", "asin": "{}", "reviewerName": "Shopper", '
    '"reviewText": "{}", "summary": "{}", "unixReviewTime": {}}}'
)


@cache
def random_ids(prefix: str, length: int, count: int, seed: int) -> pl.Series:
    """About `count` different ids of letters and digits that look like Amazon's, sorted."""
    alphabet = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", dtype=np.uint8)
    drawn = np.random.default_rng(seed).choice(alphabet, size=(count, length))
    return prefix + pl.Series(np.unique(drawn.view(f"S{length}").ravel()).astype(str))


@cache
def random_bodies() -> pl.Series:
    """BODIES texts as the inside of JSON strings: words of a Zipf-like vocabulary, lengths geometric."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwygpbvk"))
    words = ["".join(rng.choice(letters, size=length)) for length in rng.integers(2, 10, size=VOCABULARY)]
    chances = 1.0 / np.arange(3, VOCABULARY + 3)
    ends = np.cumsum(rng.geometric(1 / MEAN_WORDS, size=BODIES))
    drawn = rng.choice(words, size=ends[-1], p=chances / chances.sum())
    return pl.Series([" ".join(text) for text in np.split(drawn, ends[:-1])])


def review_columns(number: int, rows: int, total: int) -> pl.DataFrame:
    """The values of reviews number * MEMBER_ROWS and on: one column for each gap of LINE."""
    rng = np.random.default_rng([1, number])
    users = random_ids("A", 13, max(1, int(total / ROWS_PER_USER)), seed=2)
    items = random_ids("B0", 8, max(1, int(total / ROWS_PER_ITEM)), seed=3)
    bodies, days = random_bodies(), rng.integers(FIRST_DAY, LAST_DAY, size=rows)
    row = number * MEMBER_ROWS + np.arange(rows)
    return pl.DataFrame(
        {
            "rating": rng.choice(5, p=RATING_SHARES, size=rows) + 1.0,
            "date": pl.Series(days.astype(np.int32)).cast(pl.Date).dt.strftime("%m %-d, %Y"),
            "user": users.gather(rng.integers(len(users), size=rows)),
            "item": items.gather(row * len(items) // total),
            "text": bodies.gather(rng.integers(BODIES, size=rows)),
            "summary": bodies.gather(rng.integers(BODIES, size=rows)).str.slice(0, 20),
            "time": days * SECONDS_A_DAY,
        }
    )


def member(number: int, total: int) -> bytes:
    """The reviews of one gzip member."""
    rows = min(MEMBER_ROWS, total - number * MEMBER_ROWS)
    lines = review_columns(number, rows, total).select(pl.format(LINE + "\n", *map(pl.col, COLUMNS)).str.join(""))
    return igzip.compress(lines.item().encode(), LEVEL, mtime=0)


def generate(path: Path, rows: int) -> None:
    """Write `rows` reviews as a gzip file of many members."""
    members = range(-(-rows // MEMBER_ROWS))
    growing = path.with_name(path.name + ".part")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool, open(growing, "wb") as file:
        made = pool.map(partial(member, total=rows), members)
        for content in tqdm(made, total=len(members), desc="generating", disable=None):
            file.write(content)
    growing.rename(path)


def measured(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak memory in GiB of one process. Raises InputError when it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise InputError(f"{shlex.join(command)}: failed")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def measure(reviews: Path, rows: int, processed: Path) -> dict:
    """One run of each of the two commands; `processed` is made for the second one and removed."""
    floor, floor_cpu, _ = measured(["bash", "-c", f"set -o pipefail; gzip -dc {shlex.quote(str(reviews))} | wc -l"])
    stage = [sys.executable, "-m", "slmrec.data", "--format", "amazon", "--input", str(reviews), "--output_dir", str(processed)]
    seconds, cpu, peak = measured(stage)
    stats = read_json(processed / "stats.json")
    shutil.rmtree(processed)
    return {
        "gzip_seconds": round(floor, 3),
        "stage_seconds": round(seconds, 3),
        "ratio": round(seconds / floor, 3),
        "gzip_cpu_seconds": round(floor_cpu, 3),
        "stage_cpu_seconds": round(cpu, 3),
        "rows_per_second": round(rows / seconds),
        "peak_gib": round(peak, 2),
        "raw_rows": stats["raw_rows"],
        "raw_ids": stats["raw_users"] + stats["raw_items"],
        "kept": {name: stats[name] for name in ("users", "items", "interactions")},
    }


def plain_count(reviews: Path) -> dict[str, int]:
    """Users, items and interactions that the paper's rules keep, one review at a time: rated above 3, a pair once, 5-core."""
    kept = set()
    with gzip.open(reviews, "rt", encoding="utf-8") as lines:
        for review in map(json.loads, lines):
            if review["overall"] > 3:
                kept.add((review["reviewerID"], review["asin"]))
    while True:
        counts = [Counter(pair[side] for pair in kept) for side in (0, 1)]
        core = {(user, item) for user, item in kept if counts[0][user] >= 5 and counts[1][item] >= 5}
        if core == kept:
            return {"users": len(counts[0]), "items": len(counts[1]), "interactions": len(kept)}
        kept = core


def benchmark(args: DataBenchmarkArguments, work_dir: Path) -> dict:
    reviews = Path(args.reviews) if args.reviews else work_dir / "reviews.json.gz"
    if not reviews.is_file():
        generate(reviews, args.rows)
    runs = []
    for _ in range(args.repeats):
        runs.append(measure(reviews, args.rows, work_dir / "processed"))
        if runs[-1]["raw_rows"] != args.rows:
            raise InputError(f"{reviews}: holds {runs[-1]['raw_rows']} reviews, not --rows {args.rows}")
        print(json.dumps(runs[-1]), flush=True)
    plain = plain_count(reviews) if args.rows <= PLAIN_ROWS else None
    if plain and plain != runs[-1]["kept"]:
        raise InputError(f"{reviews}: the data stage kept {runs[-1]['kept']}, counted in plain Python {plain}")
    return {
        "rows": args.rows,
        "compressed_bytes": reviews.stat().st_size,
        "median_ratio": median(run["ratio"] for run in runs),
        "median_rows_per_second": median(run["rows_per_second"] for run in runs),
        "peak_gib": max(run["peak_gib"] for run in runs),
        "runs": runs,
        "plain_count": plain,
        "git": git_state(),
        "cpus": os.cpu_count(),
        "load_average_at_the_end": round(os.getloadavg()[0], 1),
        "libraries": library_versions(),
        "synthetic": True,
    }


def main(argv: list[str] | None = None) -> None:
    (args,) = parse_arguments((DataBenchmarkArguments,), argv, description=__doc__)
    work_dir, output = Path(args.work_dir), Path(args.output)
    if work_dir.exists():
        raise InputError(f"{work_dir}: exists already; name a directory that can be made and removed")
    work_dir.mkdir(parents=True)
    try:
        result = benchmark(args, work_dir)
    finally:
        shutil.rmtree(work_dir)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, result)
    speed = f"{result['median_rows_per_second']:.0f} rows per second, {result['median_ratio']} times gzip -dc | wc -l"
    print(f"{args.rows} reviews: {speed}, peak {result['peak_gib']} GiB (median of {args.repeats}; written to {output})")


if __name__ == "__main__":
    run_main(main)
