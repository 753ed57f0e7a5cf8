"""A data set without some of its items: what a model that is trained on it never sees.

    python -m reproduce.hide_items --data runs/beauty/data --share 0.1 --output_dir runs/beauty/data_hidden

Actions on hidden items are left out, and users who then have fewer than three. Items keep their numbers, so a model that is
trained on the rest can be evaluated on the whole, where histories hold hidden items; `reproduce.hidden_items` measures it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from slmrec.artifacts import Stage, stage_input, write_json
from slmrec.command_line import parse_arguments
from slmrec.data.dataset import SequenceDataset, load_dataset
from slmrec.data.write import MIN_ACTIONS
from slmrec.errors import InputError

HIDDEN = "hidden.json"


def draw_hidden(num_items: int, share: float, seed: int) -> np.ndarray:
    """A share of the items 1..N, uniformly drawn, int64 in ascending order. Raises InputError for a share of none or all."""
    number = round(share * num_items)
    if not 0 < number < num_items:
        raise InputError(f"--share {share}: of {num_items} items that hides {number}")
    return np.sort(np.random.default_rng(seed).choice(num_items, number, replace=False) + 1)


def without_items(dataset: SequenceDataset, hidden: np.ndarray) -> SequenceDataset:
    """The data set without the actions on some items, and without the users who are left with too few."""
    users = np.repeat(np.arange(dataset.num_users), dataset.lengths)  # [E]
    kept = ~np.isin(dataset.items, hidden)
    enough = np.bincount(users[kept], minlength=dataset.num_users) >= MIN_ACTIONS  # [U]
    kept &= enough[users]
    lengths = np.bincount(users[kept], minlength=dataset.num_users)[enough]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return SequenceDataset(dataset.items[kept], offsets, dataset.num_items, item_map=dataset.item_map)


@dataclass
class HideArguments:
    """Which items are hidden."""

    data: str = field(metadata={"help": "directory of the data stage"})
    output_dir: str = field(metadata={"help": "directory for the data set without them"})
    share: float = field(default=0.1, metadata={"help": "of the items"})
    seed: int = field(default=0, metadata={"help": "of the draw"})


def main(argv: list[str] | None = None) -> None:
    """Write a data stage without the hidden items' actions, and hidden.json, which names them."""
    (arguments,) = parse_arguments(HideArguments, argv, description=__doc__)
    dataset = load_dataset(arguments.data)
    hidden = draw_hidden(dataset.num_items, arguments.share, arguments.seed)
    config, inputs = {"share": arguments.share, "seed": arguments.seed}, {"whole": stage_input(arguments.data, "data")}
    stage = Stage("data", arguments.output_dir, config, inputs, item_map=dataset.item_map, seed=arguments.seed)
    if stage.up_to_date:
        return
    with stage:
        rest = without_items(dataset, hidden)
        np.savez(stage.path / "sequences.npz", items=rest.items, offsets=rest.offsets)
        shutil.copy(Path(arguments.data) / "items.csv", stage.path)
        counts = {"users": rest.num_users, "items": rest.num_items, "interactions": len(rest.items), "hidden_items": len(hidden)}
        write_json(stage.path / "stats.json", dataset.stats | counts)
        write_json(stage.path / HIDDEN, {"items": hidden.tolist()})
    print(f"{arguments.output_dir}: {len(hidden)} of {dataset.num_items} items hidden, {rest.num_users} users left")


if __name__ == "__main__":
    from slmrec.runtime import run_main

    run_main(main)
