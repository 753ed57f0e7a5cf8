"""How often items that training never saw are found when they are the target.

    python -m reproduce.hide_items --data runs/beauty/data --share 0.1 --output_dir runs/beauty/data_hidden
    python train_sr_trad.py --data runs/beauty/data_hidden --text runs/beauty/text --output_dir runs/beauty/sasrec_hidden
    python evaluate.py --model runs/beauty/sasrec_hidden --data runs/beauty/data --split test --full_ranking
    python -m reproduce.hidden_items --hidden runs/beauty/data_hidden --models runs/beauty/sasrec_hidden \
        --output runs/beauty/hidden_items.json
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reproduce.cold import group_metrics
from reproduce.hide_items import HIDDEN
from reproduce.summary import RANKINGS
from slmrec.artifacts import input_directory, read_json, read_manifest, write_json
from slmrec.command_line import parse_arguments
from slmrec.data.dataset import load_dataset


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


def main(argv: list[str] | None = None) -> None:
    """Write one entry a model, and print its MRR and HR@10 in percent."""
    (arguments,) = parse_arguments(MeasureArguments, argv, description=__doc__)
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


if __name__ == "__main__":
    from slmrec.runtime import run_main

    run_main(main)
