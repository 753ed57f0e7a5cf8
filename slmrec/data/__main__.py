"""Stage 0: reviews or ready-made sequences to a filtered, ordered data set.

    python -m slmrec.data --format amazon --input Gift_Cards_5.json.gz --meta meta_Gift_Cards.json.gz \
        --output_dir datasets/processed/gift_cards
"""

from __future__ import annotations

import polars as pl

from slmrec.arguments import OutputArguments
from slmrec.artifacts import Stage, file_input, write_json
from slmrec.command_line import parse_arguments
from slmrec.data.amazon import read_amazon
from slmrec.data.arguments import DataArguments
from slmrec.data.attributes import save_attributes
from slmrec.data.delimited import Columns, read_csv
from slmrec.data.demo import is_synthetic
from slmrec.data.filters import PROTOCOLS, Filtered, apply_rules
from slmrec.data.interactions import Interactions, rename_by_table
from slmrec.data.meta import MetaColumns, read_id_table, read_meta
from slmrec.data.recbole import read_recbole
from slmrec.data.sequences import read_sequences
from slmrec.data.write import NumberedSequences, describe, number_sequences, save_sequences
from slmrec.runtime import run_main


def read_source(args: DataArguments) -> Interactions:
    """Read --input as its --format says, with the source's own ids where --item_table and --user_table give them."""
    columns = Columns(args.user_column, args.item_column, args.rating_column, args.time_column)
    readers = {
        "amazon": lambda: read_amazon(args.input, args.max_malformed),
        "csv": lambda: read_csv(args.input, columns),
        "recbole": lambda: read_recbole(args.input, columns),
        "sequences": lambda: read_sequences(args.input),
    }
    source = readers[args.format]()
    for name, path in (("item", args.item_table), ("user", args.user_table)):
        if path:
            source.frame = rename_by_table(source.frame, name, read_id_table(path), path)
    return source


def make_stats(
    args: DataArguments, stage: Stage, source: Interactions, raw: pl.DataFrame, filtered: Filtered, sequences: NumberedSequences
) -> dict:
    """`raw` holds the actions before any rule, users and items as categories."""
    return describe(sequences) | {
        "raw_rows": source.raw_rows,
        "raw_users": raw["user"].n_unique(),
        "raw_items": raw["item"].n_unique(),
        "malformed_lines": source.malformed,
        "dropped": filtered.dropped,
        "rules": filtered.rules,
        **source.notes,
        "format": args.format,
        "protocol": args.protocol,
        "synthetic": stage.config["synthetic"],
    }


def process(args: DataArguments, stage: Stage) -> dict:
    """Read, filter, number and save; returns the statistics."""
    source = read_source(args)
    rules = PROTOCOLS[args.protocol](source, args.duplicates, args.min_rating, args.k_core)
    coded = source.frame.with_columns(pl.col("user", "item").cast(pl.Categorical)).with_row_index("row")
    filtered = apply_rules(coded, rules)
    sequences = number_sequences(filtered.frame)
    titles, attributes = pl.Series("title", [""] * len(sequences.item_ids)), None
    if args.meta:
        columns = MetaColumns(args.meta_item_column, args.meta_title_column, args.meta_category_column)
        titles, attributes = read_meta(args.meta, sequences.item_ids, columns, args.max_malformed)
    save_sequences(sequences, titles, stage.path)
    stats = make_stats(args, stage, source, coded, filtered, sequences) | {"items_with_title": int((titles != "").sum())}
    if attributes:
        save_attributes(attributes, stage.path)
        stats |= attributes.counts()
    write_json(stage.path / "stats.json", stats)
    stage.item_map = sequences.item_map()
    return stats


def in_one_line(stats: dict) -> str:
    """What is left, and how many actions each rule removed."""
    left = ", ".join(f"{stats[name]:,} {name}" for name in ("users", "items", "interactions"))
    removed = ", ".join(f"{rule} {rows:,}" for rule, rows in stats["dropped"].items() if rule != "order")
    removed = f"; removed of {sum(stats['dropped'].values()) + stats['interactions']:,}: {removed}" if removed else ""
    return f"{'synthetic: ' if stats['synthetic'] else ''}{left}{removed}"


def main(argv: list[str] | None = None) -> None:
    args, output = parse_arguments((DataArguments, OutputArguments), argv, description=__doc__)
    inputs = {name: file_input(path) for name, path in args.files().items()}
    config = args.rules() | {"synthetic": is_synthetic(args.input, inputs["reviews"]["digest"])}
    stage = Stage("data", output.output_dir, config, inputs, overwrite=output.overwrite_output_dir)
    if stage.up_to_date:
        return
    with stage:
        stage.result = in_one_line(process(args, stage))


if __name__ == "__main__":
    run_main(main)
