"""From actions, however they were read, to a data set on disk; and `prepare`, which takes them from a data frame."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from slmrec import progress
from slmrec.artifacts import Stage, file_input, write_json
from slmrec.data.arguments import DataArguments
from slmrec.data.attributes import save_attributes
from slmrec.data.columns import NONE, find_columns
from slmrec.data.dataset import SequenceDataset, load_dataset
from slmrec.data.filters import PROTOCOLS, SKIPPED, Filtered, apply_rules
from slmrec.data.frames import add_frame, as_polars, frame_columns
from slmrec.data.interactions import ActionBlocks, Interactions
from slmrec.data.meta import Meta, known_items, no_meta, read_meta
from slmrec.data.meta_table import MetaColumns, typed_meta
from slmrec.data.old_data import OldData
from slmrec.data.rows import codes_of, count_codes
from slmrec.data.write import NumberedSequences, describe, number_sequences, save_sequences

FRAME = "the data frame"  # what messages call it
HASHED_ROWS = 1_000_000  # of a frame at a time

logger = logging.getLogger(__name__)


def make_stats(
    args: DataArguments, stage: Stage, source: Interactions, raw: dict, filtered: Filtered, sequences: NumberedSequences
) -> dict:
    """`raw` holds counts of the actions before any rule."""
    return describe(sequences) | {
        "raw_rows": source.raw_rows,
        **raw,
        "malformed_lines": source.malformed,
        "time_unit": source.time_unit,
        "dropped": filtered.dropped,
        "rules": filtered.rules,
        **source.notes,
        "format": stage.config["format"],
        "protocol": args.protocol,
        "synthetic": stage.config["synthetic"],
    }


def process(
    args: DataArguments,
    actions: Interactions,
    said: str,
    stage: Stage,
    read_items: Callable[[pl.Series], Meta],
    old: OldData | None = None,
) -> dict:
    """Filter, number and save; returns the statistics. `said` is what was found out about the source, for the terminal.

    `read_items` gives titles and attributes for the source ids of the items. The actions go on from `old`, where it is given.
    """
    rules = old.rules(actions, args) if old else PROTOCOLS[args.protocol](actions, args.duplicates, args.min_rating, args.k_core)
    frame = actions.frame.with_row_index("row")
    actions.frame = frame.clear()  # the rules use it up
    raw = {f"raw_{side}s": int(np.count_nonzero(count_codes(codes_of(frame[side])))) for side in ("user", "item")}
    filtered = apply_rules(frame, rules)
    sequences = (old.followed_by if old else number_sequences)(filtered.frame, actions.ids)
    meta = read_items(sequences.item_ids)
    titles = old.titles_over(meta.titles) if old else meta.titles
    save_sequences(sequences, titles, stage.path)
    stats = make_stats(args, stage, actions, raw, filtered, sequences)
    stats |= old.counts(filtered.frame, actions.ids, sequences) if old else {}
    stats["items_with_title"] = int((titles != "").sum())
    attributes = old.attributes_over(meta.attributes, len(titles)) if old else meta.attributes
    if attributes:
        save_attributes(attributes, stage.path)
        stats |= attributes.counts()
    write_json(stage.path / "stats.json", stats)
    stage.item_map = sequences.item_map()
    unit = f" ({actions.time_unit})" if actions.time_unit not in (None, "seconds") else ""
    for line in (f"{said}{unit}", meta.said):
        if line:
            progress.say(f"{progress.head()}{line}")
    stage.result = in_one_line(stats)
    return stats


def read_titles(args: DataArguments, items: pl.Series) -> Meta:
    """What --meta says about the items; a file that knows none of them is told."""
    if not args.meta:
        return no_meta(items)
    columns = MetaColumns(args.meta_item_column, args.meta_title_column, args.meta_category_column)
    meta = read_meta(args.meta, items, columns, args.malformed_limit(), args.encoding)
    if not meta.matched:
        logger.warning("%s: knows none of the %d items (one of them is %s); no item has a title", args.meta, len(items), items[0])
    return meta


def in_one_line(stats: dict) -> str:
    """What is left, how many actions each rule removed, and which rules did not apply."""
    names, known = ("users", "items", "interactions"), {}
    left = ", ".join(f"{stats[name]:,} {name}" for name in names)
    if "known_users" in stats:
        known = {name: stats[f"known_{name}"] for name in names}
        left += f" ({', '.join(f'{stats[name] - known[name]:,} {name}' for name in names)} of them new)"
        left += f"; {stats['late_actions']:,} older than their user's last known one" if stats["late_actions"] else ""
    removed = ", ".join(f"{rule} {rows:,}" for rule, rows in stats["dropped"].items() if rule != "order")
    read = sum(stats["dropped"].values()) + stats["interactions"] - known.get("interactions", 0)
    removed = f"; removed of {read:,}: {removed}" if removed else ""
    return f"{'synthetic: ' if stats['synthetic'] else ''}{left}{removed}{skipped_rules(stats['rules'])}"


def skipped_rules(rules: dict[str, str]) -> str:
    reasons: dict[str, list[str]] = {}
    for name, text in rules.items():
        if text.startswith(SKIPPED):
            reasons.setdefault(text.removeprefix(SKIPPED), []).append(name)
    texts = ", ".join(f"{' and '.join(names)} ({reason})" for reason, names in reasons.items())
    return f"; not applied: {texts}" if texts else ""


def prepare(
    frame: object, output_dir: str | Path, *, meta: object = None, overwrite_output_dir: bool = False, **flags
) -> SequenceDataset:
    """A data frame of actions as a data set on disk, which every stage takes as --data.

    Args:
        frame: of polars or pandas, one action a row; columns are found by their names, or named by `user_column` and so on.
        meta: a data frame or a file with titles and categories of items.
        flags: the flags of `python -m slmrec.data` that are no files: protocol, duplicates, min_rating, k_core, *_column.

    Raises InputError where the command line would refuse a file.
    """
    meta_file = meta if isinstance(meta, (str, Path)) else None
    args = DataArguments(input=[FRAME], format="parquet", meta=str(meta_file) if meta_file else None, **flags)
    columns = find_columns(FRAME, frame_columns(frame), args.columns())
    table = as_polars(frame, list(dict.fromkeys(name for name in vars(columns).values() if name)))
    inputs = {"reviews": {"file": FRAME, "digest": frame_digest(table)}}
    if meta_file:
        inputs["meta"] = file_input(meta_file)
    elif meta is not None:
        inputs["meta"] = {"file": FRAME, "digest": frame_digest(as_polars(meta))}
    found = {f"{role}_column": name or NONE for role, name in vars(columns).items()}
    config = args.rules() | found | args.defaults(ready=False) | {"format": "frame", "synthetic": False}
    stage = Stage("data", output_dir, config, inputs, overwrite=overwrite_output_dir)
    if not stage.up_to_date:
        blocks = ActionBlocks()
        add_frame(blocks, table, columns, FRAME)
        with stage:
            actions = blocks.interactions(FRAME, vars(columns))
            process(args, actions, f"{FRAME}: {columns}", stage, lambda items: frame_titles(args, meta, items))
    return load_dataset(output_dir)


def frame_titles(args: DataArguments, meta: object, items: pl.Series) -> Meta:
    if meta is None or args.meta:
        return read_titles(args, items)
    columns = MetaColumns(args.meta_item_column, args.meta_title_column, args.meta_category_column)
    return known_items(typed_meta(f"{FRAME} of items", as_polars(meta), columns), items, "")


def frame_digest(table: pl.DataFrame) -> str:
    """sha256 over the cells of a frame as text."""
    digest = hashlib.sha256(",".join(table.columns).encode())
    sized = pl.element().str.len_bytes().cast(pl.String) + ":" + pl.element()  # ["a|b"] is not ["a", "b"]
    lists = [name for name, kind in table.schema.items() if kind == pl.List]
    nested = [pl.col(name).cast(pl.List(pl.String)).list.eval(sized).list.join("|") for name in lists]
    for part in table.with_columns(nested).iter_slices(HASHED_ROWS):
        digest.update(part.write_csv(include_header=False).encode())
    return digest.hexdigest()
