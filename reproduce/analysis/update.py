"""What an update with new logs costs and gives, against training anew on everything and against no update.

    python -m reproduce.analysis.update --data runs/beauty/data --work runs/beauty/update --output results/update/beauty.json

The data set is cut into a past and what came after it: by time where it has times (the last fifth), else by prefix. Then of a
tenth of the users everything is new, of three tenths the last quarter of their actions, at least one; and one item in fifty is
new, so that whatever comes from such an item on is new too. All models are SASRecs, ranked on the same targets: the last actions
of the whole. Without an update new items are neither read nor recommended.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import torch

from reproduce.efficiency.environment import environment
from reproduce.statistics import paired_test
from slmrec.artifacts import input_directory, read_json, write_json
from slmrec.checks import at_least
from slmrec.command_line import parse_arguments
from slmrec.data.dataset import SequenceDataset, load_dataset
from slmrec.evaluation.metrics import reciprocal_rank
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.manifest import read_manifest
from slmrec.open_model import load_recommender
from slmrec.ragged import places, row_numbers
from slmrec.recommender import Recommender
from slmrec.runtime import run_main
from slmrec.training.update import update_users

ROOT = Path(__file__).resolve().parents[2]
LEAST = 3  # actions that a user has in the past, or none
UNREADABLE = -1e30  # score of an item that a model does not know: below all others, and finite


@dataclass
class UpdateMeasure:
    """What is cut and where it goes."""

    data: str = field(metadata={"help": "directory of the data stage: the whole"})
    work: str = field(metadata={"help": "directory for past, whole and models"})
    output: str = field(metadata={"help": "JSON file of the result"})
    seed: int = field(default=0, metadata={"help": "of the cut and the models"})
    num_epochs: int = field(default=100, metadata={"help": "at most, of each training"})
    replays: list[float] = field(default_factory=lambda: [0.0, 0.2, 1.0], metadata={"help": "shares that are tried"})
    learning_rates: list[float] = field(default_factory=lambda: [0.001, 0.0003], metadata={"help": "of the updates, likewise"})

    def __post_init__(self):
        at_least("num_epochs", self.num_epochs, 1)


def past_lengths(dataset: SequenceDataset, seed: int) -> np.ndarray:
    """How many of each user's actions are past, int64 [U]: none or at least LEAST."""
    lengths = dataset.lengths
    if dataset.timestamps is not None:
        before = dataset.timestamps < np.quantile(dataset.timestamps, 0.8)
        past = np.bincount(row_numbers(lengths)[before], minlength=dataset.num_users)
    else:
        random = np.random.default_rng(seed)
        order, tenth = random.permutation(dataset.num_users), dataset.num_users // 10
        past = lengths.copy()
        past[order[:tenth]] = 0
        active = order[tenth : 4 * tenth]
        past[active] -= np.maximum(lengths[active] // 4, 1)
        launched = np.isin(dataset.items, 1 + random.permutation(dataset.num_items)[: dataset.num_items // 50])
        np.minimum.at(past, row_numbers(lengths)[launched], places(lengths)[launched])
    return np.where(past < LEAST, 0, past)


def write_cut(directory: Path, work: Path, seed: int) -> None:
    """past.txt and new.txt, lines 'user item item ...' of numbers, and titles.csv."""
    dataset = load_dataset(directory)
    past = past_lengths(dataset, seed)
    with open(work / "past.txt", "w") as old, open(work / "new.txt", "w") as new:
        for user in range(dataset.num_users):
            sequence = dataset.sequence(user).tolist()
            for stream, part in ((old, sequence[: past[user]]), (new, sequence[past[user] :])):
                if part:
                    stream.write(f"{user} {' '.join(map(str, part))}\n")
    titles = pl.read_csv(directory / "items.csv", schema_overrides={"title": pl.String})
    titles.select(item_id="id", title=pl.col("title").fill_null("")).write_csv(work / "titles.csv")


def run(program: str, *flags: object) -> None:
    """A stage, as it can be typed; what is finished is left as it is."""
    words = program.split() if program.startswith("-m") else [str(ROOT / program)]
    subprocess.run([sys.executable, *words, *map(str, flags)], check=True)


class NotUpdated(Recommender):
    """A model of the first items on data with more: it does not read the others, and never recommends them."""

    def __init__(self, model: Recommender, num_items: int):
        super().__init__()
        self.model, self.max_length = model, model.max_length
        self.known, self.num_items = len(model.item_matrix()) - 1, num_items

    def encode(self, batch):
        readable = batch["history"] <= self.known
        rows = torch.repeat_interleave(torch.arange(len(batch["lengths"])), batch["lengths"])[readable]
        lengths = torch.bincount(rows, minlength=len(batch["lengths"]))
        some = lengths > 0
        users = torch.zeros(len(lengths), self.model.item_matrix().shape[1])
        users[some] = self.model.encode(batch | {"history": batch["history"][readable], "lengths": lengths[some]})
        return users

    def item_matrix(self):
        return self.model.item_matrix()

    def score_all(self, users):
        scores = users.new_full((len(users), self.num_items + 1), UNREADABLE)
        scores[:, : self.known + 1] = self.model.score_all(users)
        return scores

    def score(self, users, candidates):
        return self.score_all(users).gather(1, candidates)


def ranks(model: Recommender, dataset: SequenceDataset) -> np.ndarray:
    return evaluate_recommender(model, dataset, "test", progress=False).ranks["sampled"]


def entry(model: Path, found: np.ndarray, groups: dict[str, np.ndarray]) -> dict:
    """What a training cost and gave; MRR as fractions, by group of users.

    Seconds are those of a machine that may have had other work; users an epoch, times epochs, are a cost without it.
    """
    metrics, manifest = read_json(model / "metrics.json"), read_manifest(model)
    trained = [one["train_seconds"] for one in metrics["history"]]
    return {
        "valid_MRR": metrics["valid"]["sampled"]["MRR"],
        "epochs": len(trained),
        "users_an_epoch": users_an_epoch(model, manifest),
        "best_epoch": metrics["best_epoch"],
        "train_seconds": round(sum(trained), 1),
        "train_seconds_an_epoch": round(float(np.median(trained)), 2),
        "wall_seconds": manifest["wall_seconds"],
        "digest": manifest["digest"],
        "test_MRR": {name: float(reciprocal_rank(found[users]).mean()) for name, users in groups.items() if len(users)},
    }


def users_an_epoch(model: Path, manifest: dict) -> int:
    """How many users a training went through in each epoch."""
    dataset, replay = load_dataset(input_directory(model, "data")), manifest["config"].get("replay")
    return dataset.num_users if replay is None else len(update_users(dataset, replay, manifest["seed"]))


def train_all(args: UpdateMeasure, work: Path) -> dict[str, Path]:
    """Past, whole, text vectors, and a model of each kind; name -> directory."""
    places = {name: work / name for name in ("past", "whole", "text", "sasrec_past", "anew")}
    run("-m slmrec.data", "--input", work / "past.txt", "--meta", work / "titles.csv", "--output_dir", places["past"])
    flags = ("--update_from", places["past"], "--input", work / "new.txt", "--meta", work / "titles.csv")
    run("-m slmrec.data", *flags, "--output_dir", places["whole"])
    run("embed_titles.py", "--data", places["whole"], "--output_dir", places["text"])
    common = ("--num_epochs", args.num_epochs, "--seed", args.seed, "--report_to", "none")
    run("train_sr_trad.py", "--data", places["past"], *common, "--output_dir", places["sasrec_past"])
    run("train_sr_trad.py", "--data", places["whole"], *common, "--output_dir", places["anew"])
    update = ("--update_from", places["sasrec_past"], "--data", places["whole"], *common)
    for rate in args.learning_rates:
        for replay in args.replays:
            for text in ((), ("--text", places["text"])) if replay == 0.2 else ((),):
                name = f"update replay {replay:g} rate {rate:g}{' titles' if text else ''}"
                places[name] = work / name.replace(" ", "_")
                flags = ("--replay", replay, "--learning_rate", rate, *text, "--output_dir", places[name])
                run("train_sr_trad.py", *update, *flags)
    return places


def measure(args: UpdateMeasure, work: Path, argv: list[str] | None) -> dict:
    places = train_all(args, work)
    dataset = load_dataset(places["whole"])
    assert dataset.known is not None
    past, targets = load_dataset(places["past"]), dataset.items[dataset.target_positions("test")]
    new, grown = targets > past.num_items, dataset.lengths > dataset.known
    groups = {"all": grown | True, "new actions": grown, "new users": dataset.known == 0, "new items": new}
    groups = {name: np.flatnonzero(chosen) for name, chosen in groups.items()}
    old = load_recommender(places["sasrec_past"])
    found = {"no update": ranks(NotUpdated(old, dataset.num_items).eval(), dataset)}
    models = {"no update": places["sasrec_past"], "anew": places["anew"]}
    models |= {name: place for name, place in places.items() if name.startswith("update")}
    found |= {name: ranks(load_recommender(place), dataset) for name, place in models.items() if name != "no update"}
    entries = {name: entry(place, found[name], groups) for name, place in models.items()}
    chosen = max((name for name in entries if name.startswith("update")), key=lambda name: entries[name]["valid_MRR"])
    pairs = [(chosen, "anew"), (chosen, "no update"), ("anew", "no update")]
    return {
        "cut": "by time" if load_dataset(args.data).timestamps is not None else "by prefix",
        "users": {name: len(users) for name, users in groups.items()},
        "items": {"all": dataset.num_items, "new": dataset.num_items - past.num_items},
        "data": {name: read_manifest(places[name])["digest"] for name in ("past", "whole", "text")},
        "source": read_manifest(args.data)["digest"],
        "models": entries,
        "chosen by validation": chosen,
        "tests": {f"{a} - {b}": paired_test(found[a][None], found[b][None]) for a, b in pairs},
        "environment": environment("reproduce.analysis.update", argv, torch.device("cpu")),
    }


def main(argv: list[str] | None = None) -> None:
    (args,) = parse_arguments(UpdateMeasure, argv, description=__doc__)
    work = Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "new.txt").is_file():
        write_cut(Path(args.data), work, args.seed)
    result = measure(args, work, argv)
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(args.output), result)
    for name, one in result["models"].items():
        cost = f"{one['epochs']:>3} epochs of {one['users_an_epoch']:>6} users{one['train_seconds']:>9.1f} s  "
        print(f"{name:<32}{cost}" + "  ".join(f"{k} {100 * v:.2f}" for k, v in one["test_MRR"].items()))


if __name__ == "__main__":
    run_main(main)
