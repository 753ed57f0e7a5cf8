"""Stage 0: reviews or ready-made sequences to a filtered, ordered data set.

python -m slmrec.data --input Gift_Cards_5.json.gz --meta meta_Gift_Cards.json.gz --output_dir datasets/processed/gift_cards
python -m slmrec.data --update_from datasets/processed/gift_cards --input new.json.gz --output_dir datasets/processed/gift_cards_2
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from slmrec.arguments import OutputArguments
from slmrec.artifacts import Stage, file_input, json_sha256, stage_input
from slmrec.command_line import parse_arguments
from slmrec.data.arguments import DataArguments
from slmrec.data.demo import is_synthetic
from slmrec.data.id_table import read_id_table
from slmrec.data.interactions import Interactions, rename_by_table
from slmrec.data.old_data import open_old, take_over_rules
from slmrec.data.process import process, read_titles
from slmrec.data.source import Source, find_source
from slmrec.runtime import run_main


def read_source(args: DataArguments, source: Source) -> Interactions:
    """Read --input, with the source's own ids where --item_table and --user_table give them."""
    interactions = source.read(args.malformed_limit())
    for name, path in (("item", args.item_table), ("user", args.user_table)):
        if path:
            interactions.ids[name] = rename_by_table(interactions.ids[name], read_id_table(path, args.encoding), path)
    return interactions


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
    old = {"update_from": stage_input(args.update_from, "data")} if args.update_from else {}
    return inputs | {name: file_input(path) for name, path in others.items() if path} | old


def main(argv: list[str] | None = None) -> None:
    args, output = parse_arguments((DataArguments, OutputArguments), argv, description=__doc__)
    if args.update_from:
        take_over_rules(args)
    source = find_source(args)
    args.check_format(source.format)
    inputs = describe_inputs(args, source)
    config = args.rules() | source.settings() | args.defaults(source.ready)
    config |= {"synthetic": is_synthetic(source.paths[0], inputs["reviews"]["digest"])}
    stage = Stage("data", output.output_dir, config, inputs, overwrite=output.overwrite_output_dir)
    if stage.up_to_date:
        return
    with stage:
        old = open_old(args.update_from) if args.update_from else None
        process(args, read_source(args, source), str(source), stage, partial(read_titles, args), old)


if __name__ == "__main__":
    run_main(main)
