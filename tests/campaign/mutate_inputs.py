"""Damaged data files against a second, plain reader.

    python -m tests.campaign.mutate_inputs --seed 0 --count 3000

Every file is either read, with the sequences that the plain reader has, or refused in one line. Prints a table of outcomes; the
exit status is 1 when a file is read differently, or ends in anything but one line.
"""

import argparse
import collections
import contextlib
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from unittest import mock

import polars as pl

from slmrec.data.__main__ import read_source
from slmrec.data.arguments import DataArguments
from slmrec.data.filters import PROTOCOLS, apply_rules
from slmrec.data.jsonlines import JsonLines
from slmrec.data.meta import read_meta
from slmrec.data.meta_table import MetaColumns
from slmrec.data.source import find_source
from slmrec.data.write import number_sequences
from slmrec.errors import InputError
from tests.campaign.mutations import mutated
from tests.campaign.plain_reader import Refused, plain_sequences
from tests.campaign.processes import run

LONGEST_MESSAGE = 400
FILES = 600  # of each of the five kinds
KINDS = ("a damaged data file", "a damaged meta file")
OUTCOMES = {
    "read by both, equal": "equal",
    "read": "equal",  # of a meta file, which has no plain reader: fast path and slow path agree
    "WRONG: traceback": "traceback",
    "WRONG: long message": "no error line",
    "WRONG: the line-by-line path differs": "another result",
    "WRONG: the plain reader fails": "another result",
    "WRONG: read where the plain reader refuses": "another result",
    "WRONG: read differently": "another result",
}
STRICTER = "refused, the plain reader read it"
SEEDS = {  # format -> the cases that faults are put into
    "amazon": ("baseline/reviews.json", "amazon2023/reviews.jsonl", "yelp/review.json", "ids_number_json/reviews.json"),
    "csv": ("baseline/reviews.csv", "csv_text/doubled_quotes.csv", "csv_text/newline_in_text.csv", "subsecond/float_seconds.csv"),
    "recbole": ("baseline/x.inter", "csv_text/x.inter"),
    "sequences": ("baseline/seq.txt", "baseline/seq.json", "seq_forms/floats.json"),
    "meta": (
        "amazon2023/meta.jsonl", "meta_mix/title_html.json", "meta_mix/lcrec.item.json", "meta_mix/movies.csv", "meta_mix/u.item",
        "meta_surrogate/meta_2014.json", "meta_surrogate/meta_null_category_item.json", "quotes/meta.item",
    ),
}  # fmt: skip
ITEMS = pl.Series([f"B{number:05d}" for number in range(12)])


def sequences_of(path, kind, **flags):
    """({user: [items in order]}, the source) as the data stage has them, nothing saved. Raises InputError."""
    arguments = DataArguments(input=[str(path)], format=kind, **flags)
    source = find_source(arguments)
    arguments.check_format(source.format)
    actions = read_source(arguments, source)
    rules = PROTOCOLS["paper"](actions, None, None, arguments.k_core)
    numbered = number_sequences(apply_rules(actions.frame.with_row_index("row"), rules).frame, actions.ids)
    items, ends = [numbered.item_ids[int(item) - 1] for item in numbered.items], numbered.offsets.tolist()
    return {user: items[ends[row] : ends[row + 1]] for row, user in enumerate(numbered.user_ids)}, source


def stage_sequences(path, kind, item_table=None):
    """{user: [items in order]} as the data stage has them."""
    return sequences_of(path, kind, item_table=str(item_table) if item_table else None)[0]


def meta_texts(path, kind, item_table=None):
    """Titles and attributes of the baseline's items."""
    meta = read_meta(str(path), ITEMS, MetaColumns(), 0.01)
    return meta.titles.to_list(), meta.attributes and [meta.attributes.of(item + 1) for item in range(len(ITEMS))]


def outcome(read, *arguments):
    """("read", sequences), ("refused", message) or ("traceback", text)."""
    try:
        return "read", read(*arguments)
    except (InputError, Refused) as error:
        return "refused", str(error)
    except Exception:
        return "traceback", "\n".join(traceback.format_exc().splitlines()[-5:])


def compare(path, kind, item_table=None):
    """The outcome of one file, in a word; what is wrong begins with WRONG."""
    read = meta_texts if kind == "meta" else stage_sequences
    ours, result = outcome(read, path, kind, item_table)
    if ours == "traceback":
        return "WRONG: traceback", result
    if ours == "refused" and ("\n" in result or len(result) > LONGEST_MESSAGE):
        return "WRONG: long message", result
    if kind in ("amazon", "meta"):
        with mock.patch.object(JsonLines, "_read_strictly", lambda self, block: None):
            slow = outcome(read, path, kind, item_table)
        if slow != (ours, result):
            return "WRONG: the line-by-line path differs", f"{ours} {str(result)[:500]}\n{slow[0]} {str(slow[1])[:500]}"
    if kind == "meta":  # of which there is no plain reader
        return ours, ""
    theirs, expected = outcome(plain_sequences, path, kind, item_table)
    if theirs == "traceback":
        return "WRONG: the plain reader fails", expected
    if ours == "refused":
        return f"refused, the plain reader {theirs} it", result
    if theirs != "read":
        return "WRONG: read where the plain reader refuses", expected
    return ("read by both, equal", "") if result == expected else ("WRONG: read differently", f"{result}\n{expected}"[:1000])


def try_files(kind, count, rng, cases, folder):
    """Yields (what came out, file, details) of `count` damaged files of a kind; the folder holds one file at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        name = rng.choice(SEEDS[kind])
        path, table = folder / f"{number}_{Path(name).name}", None
        content = (cases / name).read_bytes()
        if name == "baseline/seq.json" and rng.random() < 0.5:  # the table is what is damaged
            table = folder / f"{number}_item2index"
            table.write_bytes(mutated((cases / "baseline/item2index").read_bytes(), rng))
            path.write_bytes(content)
        else:
            path.write_bytes(mutated(content, rng))
        what, detail = compare(path, kind, table)
        yield what, path, detail
        path.unlink()
        if table:
            table.unlink()


def campaign(inputs, kind, place, tally, share, draw):
    """`share` of the damaged files of a kind, in a process of its own: polars has threads, which a fork would lose."""
    found = place.parent / "mutations.json"

    def work():
        logging.disable(logging.WARNING)
        count = max(1, round(FILES * share))
        outcomes = [(what, detail) for what, _, detail in try_files(kind, count, draw, shared_cases(), place)]
        found.write_text(json.dumps(outcomes), encoding="utf-8")

    ended = run(work, place.parent / "mutations.log")
    assert ended.status == 0, ended.said
    for what, detail in json.loads(found.read_text(encoding="utf-8")):
        tally.add(KINDS[kind == "meta"], kind, OUTCOMES.get(what, "refused in one line"), detail)


def shared_cases():
    if "SLMREC_SHARED" not in os.environ:
        sys.exit("SLMREC_SHARED names no folder with the shared cases, in which this puts faults")
    return Path(os.environ["SLMREC_SHARED"]) / "cases"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--stricter", action="store_true", help="list what the plain reader would have read, too")
    parser.add_argument("--keep", type=Path, help="folder for the files that go wrong")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    counts, wrong = collections.Counter(), []
    with tempfile.TemporaryDirectory() as temporary, open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        for kind in SEEDS:
            rng = random.Random(f"{arguments.seed} {kind}")
            for what, path, detail in try_files(kind, arguments.count // len(SEEDS), rng, shared_cases(), Path(temporary)):
                counts[kind, what] += 1
                if what.startswith("WRONG") or arguments.stricter and what == STRICTER:
                    wrong.append((path.name, what, detail))
                    if arguments.keep:
                        shutil.copytree(temporary, arguments.keep, dirs_exist_ok=True)
    for (kind, what), number in sorted(counts.items()):
        print(f"| {kind} | {what} | {number} |")
    for name, what, detail in wrong:
        print(f"\n{name}: {what}\n{detail}")
    sys.exit(any(what != STRICTER for _, what, _ in wrong))


if __name__ == "__main__":
    main()
