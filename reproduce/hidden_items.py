"""Items that training never saw: hide some, train without them, and see how often they are found when they are the target.

    python -m reproduce.hidden_items hide --data runs/beauty/data --share 0.1 --output_dir runs/beauty/data_hidden
    python train_sr_trad.py --data runs/beauty/data_hidden --text runs/beauty/text --output_dir runs/beauty/sasrec_hidden
    python evaluate.py --model runs/beauty/sasrec_hidden --data runs/beauty/data --split test --full_ranking
    python -m reproduce.hidden_items measure --hidden runs/beauty/data_hidden --models runs/beauty/sasrec_hidden \
        --output runs/tables/beauty/hidden_items.json

The hidden data set is the whole one without the actions on hidden items, and without users who then have fewer than three;
items keep their numbers, so a model that is trained on it can be evaluated on the whole one, where histories hold hidden items.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reproduce.cold import RANKINGS, group_metrics
from slmrec.artifacts import Stage, input_directory, read_json, read_manifest, stage_input, write_json
from slmrec.command_line import parse_arguments, typed_command
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


def hide(arguments: HideArguments) -> None:
    """Write a data stage without the hidden items' actions, and hidden.json, which names them."""
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


def hidden_groups(targets: np.ndarray, hidden: np.ndarray) -> dict[str, np.ndarray]:
    """Label -> bool [U], from each user's target int [U]."""
    of_hidden = np.isin(targets, hidden)
    return {"hidden": of_hidden, "trained": ~of_hidden}


def measure_model(model: Path, hidden: np.ndarray) -> dict:
    """Metrics over users whose test target is hidden, and over the others, of a model that was evaluated on the whole data."""
    evaluation = model / "evaluation-test"
    read_manifest(evaluation, "evaluate")
    dataset = load_dataset(input_directory(evaluation, "data"))
    groups = hidden_groups(dataset.items[dataset.target_positions("test")], hidden)
    with np.load(evaluation / "ranks.npz", allow_pickle=False) as arrays:
        metrics = {name: group_metrics(arrays[name], groups) for name in RANKINGS if name in arrays}
    manifest = read_manifest(model, "encoder")
    users = {label: int(members.sum()) for label, members in groups.items()}
    return {"name": model.name, "config": manifest["config"], "users": users, "metrics": metrics}


@dataclass
class MeasureArguments:
    """Which models are measured."""

    hidden: str = field(metadata={"help": "directory of the data set without the hidden items"})
    models: list[str] = field(metadata={"help": "models trained on it, evaluated (test) on the whole data set"})
    output: str = field(metadata={"help": "JSON file"})


def measure(arguments: MeasureArguments) -> None:
    """Write one entry a model, and print its MRR and HR@10 in percent."""
    hidden = np.array(read_json(Path(arguments.hidden) / HIDDEN)["items"])
    entries = [measure_model(Path(model), hidden) for model in arguments.models]
    stats, drawn = read_json(Path(arguments.hidden) / "stats.json"), read_manifest(arguments.hidden, "data")["config"]
    counts = {name: stats[name] for name in ("users", "items", "hidden_items")}
    Path(arguments.output).parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(arguments.output), {"experiment": "hidden_items", "drawn": drawn, "data": counts, "models": entries})
    for entry in entries:
        for ranking, by_label in entry["metrics"].items():
            values = ", ".join(f"{label} MRR {100 * m['MRR']:.2f} HR@10 {100 * m['HR@10']:.2f}" for label, m in by_label.items())
            print(f"{entry['name']} ({ranking}): {values}")


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    steps = {"hide": (HideArguments, hide), "measure": (MeasureArguments, measure)}
    if not argv or argv[0] not in steps:
        raise InputError(f"begin with one of {', '.join(steps)}")
    kind, step = steps[argv[0]]
    step(*parse_arguments(kind, argv[1:], description=__doc__, command=f"{typed_command()} {argv[0]}"))


if __name__ == "__main__":
    from slmrec.runtime import run_main

    run_main(main)
