"""Stage 0: reviews or ready-made sequences to a filtered, ordered data set.

python -m slmrec.data --input Gift_Cards_5.json.gz --meta meta_Gift_Cards.json.gz --output_dir datasets/processed/gift_cards
"""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl

from slmrec import progress
from slmrec.arguments import OutputArguments
from slmrec.artifacts import Stage, file_input, json_sha256, write_json
from slmrec.command_line import parse_arguments
from slmrec.data.arguments import DataArguments
from slmrec.data.attributes import save_attributes
from slmrec.data.demo import is_synthetic
from slmrec.data.filters import PROTOCOLS, SKIPPED, Filtered, apply_rules
from slmrec.data.id_table import read_id_table
from slmrec.data.interactions import Interactions, rename_by_table
from slmrec.data.meta import Meta, read_meta
from slmrec.data.meta_table import MetaColumns
from slmrec.data.source import Source, find_source
from slmrec.data.write import NumberedSequences, describe, number_sequences, save_sequences
from slmrec.runtime import run_main

logger = logging.getLogger(__name__)


def read_source(args: DataArguments, source: Source) -> Interactions:
    """Read --input, with the source's own ids where --item_table and --user_table give them."""
    interactions = source.read(args.malformed_limit())
    for name, path in (("item", args.item_table), ("user", args.user_table)):
        if path:
            ids = rename_by_table(interactions.frame[name], read_id_table(path, args.encoding), path)
            interactions.frame = interactions.frame.with_columns(ids.alias(name))
    return interactions


def make_stats(
    args: DataArguments, stage: Stage, source: Interactions, raw: pl.DataFrame, filtered: Filtered, sequences: NumberedSequences
) -> dict:
    """`raw` holds the actions before any rule, users and items as categories."""
    return describe(sequences) | {
        "raw_rows": source.raw_rows,
        "raw_users": raw["user"].n_unique(),
        "raw_items": raw["item"].n_unique(),
        "malformed_lines": source.malformed,
        "time_unit": source.time_unit,
        "dropped": filtered.dropped,
        "rules": filtered.rules,
        **source.notes,
        "format": stage.config["format"],
        "protocol": args.protocol,
        "synthetic": stage.config["synthetic"],
    }


def read_titles(args: DataArguments, items: pl.Series) -> Meta:
    """What --meta says about the items; a file that knows none of them is told."""
    if not args.meta:
        return Meta(pl.Series("title", [""] * len(items), dtype=pl.String), None, 0)
    columns = MetaColumns(args.meta_item_column, args.meta_title_column, args.meta_category_column)
    meta = read_meta(args.meta, items, columns, args.malformed_limit(), args.encoding)
    if not meta.matched:
        logger.warning("%s: knows none of the %d items (one of them is %s); no item has a title", args.meta, len(items), items[0])
    return meta


def process(args: DataArguments, source: Source, stage: Stage) -> dict:
    """Read, filter, number and save; returns the statistics."""
    interactions = read_source(args, source)
    rules = PROTOCOLS[args.protocol](interactions, args.duplicates, args.min_rating, args.k_core)
    raw = interactions.frame.with_row_index("row")
    filtered = apply_rules(raw, rules)
    sequences = number_sequences(filtered.frame)
    meta = read_titles(args, sequences.item_ids)
    save_sequences(sequences, meta.titles, stage.path)
    stats = make_stats(args, stage, interactions, raw, filtered, sequences)
    stats["items_with_title"] = int((meta.titles != "").sum())
    if meta.attributes:
        save_attributes(meta.attributes, stage.path)
        stats |= meta.attributes.counts()
    write_json(stage.path / "stats.json", stats)
    stage.item_map = sequences.item_map()
    return stats


def describe_inputs(args: DataArguments, source: Source) -> dict[str, dict]:
    """The input files for the manifest; several review files count as one input."""
    reviews = [file_input(path) for path in source.paths]
    several = {
        "file": Path(source.paths[0]).name,
        "files": len(reviews),
        "digest": json_sha256([file["digest"] for file in reviews]),
    }
    others = {"meta": args.meta, "item_table": args.item_table, "user_table": args.user_table}
    inputs = {"reviews": reviews[0] if len(reviews) == 1 else several}
    return inputs | {name: file_input(path) for name, path in others.items() if path}


def in_one_line(stats: dict) -> str:
    """What is left, how many actions each rule removed, and which rules did not apply."""
    left = ", ".join(f"{stats[name]:,} {name}" for name in ("users", "items", "interactions"))
    removed = ", ".join(f"{rule} {rows:,}" for rule, rows in stats["dropped"].items() if rule != "order")
    removed = f"; removed of {sum(stats['dropped'].values()) + stats['interactions']:,}: {removed}" if removed else ""
    return f"{'synthetic: ' if stats['synthetic'] else ''}{left}{removed}{skipped_rules(stats['rules'])}"


def skipped_rules(rules: dict[str, str]) -> str:
    reasons: dict[str, list[str]] = {}
    for name, text in rules.items():
        if text.startswith(SKIPPED):
            reasons.setdefault(text.removeprefix(SKIPPED), []).append(name)
    texts = ", ".join(f"{' and '.join(names)} ({reason})" for reason, names in reasons.items())
    return f"; not applied: {texts}" if texts else ""


def main(argv: list[str] | None = None) -> None:
    args, output = parse_arguments((DataArguments, OutputArguments), argv, description=__doc__)
    source = find_source(args)
    args.check_format(source.format)
    inputs = describe_inputs(args, source)
    config = args.rules() | source.settings() | args.defaults(source.ready)
    config |= {"synthetic": is_synthetic(source.paths[0], inputs["reviews"]["digest"])}
    stage = Stage("data", output.output_dir, config, inputs, overwrite=output.overwrite_output_dir)
    if stage.up_to_date:
        return
    with stage:
        stats = process(args, source, stage)
        unit = f" ({stats['time_unit']})" if stats["time_unit"] not in (None, "seconds") else ""
        progress.say(f"{progress.head()}{source}{unit}")
        stage.result = in_one_line(stats)


if __name__ == "__main__":
    run_main(main)
