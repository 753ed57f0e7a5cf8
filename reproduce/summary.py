"""What the runs below a directory show, one small JSON per data set and experiment, for `reproduce.report`.

    python -m reproduce.summary --runs runs

writes runs/tables/<data set>/<experiment>.json: metrics (fractions), training history and provenance of each run, paired tests
over users, what is missing and the command that makes it. The report needs nothing else, so these files can be committed.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reproduce.cold import cold_groups, mean_over_seeds
from reproduce.comparison import training_seconds
from reproduce.experiments import MODEL_EXPERIMENTS, PAIRS, Model, models_of
from reproduce.regimes import regimes
from reproduce.statistics import paired_comparison
from slmrec.artifacts import MANIFEST, read_json, read_manifest, write_json
from slmrec.command_line import parse_arguments
from slmrec.errors import InputError

RANKINGS = ("sampled", "full")
NO_LOSS = ("epoch", "valid_MRR", "train_seconds", "valid_seconds")  # every other value of an encoder's epoch is a loss term
ANALYSES = {"depth-infer": "depth_infer-test", "layers": "layers-test"}  # experiment -> stage directory below a model's


@dataclass
class Runs:
    """All runs on one data set.

    Attributes:
        dataset: its name.
        seeds: seed -> directory, seed 0 in the data set's own directory, seed N in seed_N below it.
    """

    dataset: str
    directory: Path
    seeds: dict[int, Path]

    @classmethod
    def below(cls, directory: Path) -> Runs:
        seeds = {int(path.name.removeprefix("seed_")): path for path in directory.glob("seed_*")}
        return cls(directory.name, directory, {0: directory} | dict(sorted(seeds.items())))

    @property
    def stats(self) -> dict:
        return read_json(self.directory / "data" / "stats.json")

    def header(self, experiment: str) -> dict:
        synthetic = bool(self.stats.get("synthetic"))
        return {"experiment": experiment, "dataset": self.dataset, "synthetic": synthetic, "seeds": list(self.seeds)}

    def missing(self, experiment: str, model: str) -> list[dict]:
        """The seeds whose `model` has no test evaluation, each with the command that makes it."""
        seeds = [seed for seed, directory in self.seeds.items() if not is_evaluated(directory / model)]
        return [self.missing_run(experiment, seed) for seed in seeds]

    def missing_run(self, experiment: str, seed: int) -> dict:
        seeds = f" --seeds {seed + 1}" if seed else ""
        return {"seed": seed, "command": f"bash run_tables.sh {experiment} {self.dataset}{seeds}"}


def is_evaluated(model: Path) -> bool:
    return (model / "evaluation-test" / MANIFEST).is_file()


def provenance(stage: Path) -> dict:
    """What made a stage: command, digests, code and machine."""
    manifest = read_manifest(stage)
    kept = {name: manifest[name] for name in ("stage", "digest", "device", "seed", "config", "libraries")}
    kept["command"] = manifest.get("command", "not recorded")  # the first manifests had none
    return kept | {"commit": manifest["git"]["commit"], "dirty": manifest["git"]["dirty"]}


def run_entry(model: Path, seed: int) -> dict:
    """One trained and evaluated model. A jointly trained teacher is described by the run that it was part of."""
    stage = model if (model / MANIFEST).is_file() else model.parent
    training = read_json(stage / "metrics.json")
    counts = training if stage == model else training["trained_along"][model.name]
    entry = {
        "seed": seed,
        "metrics": read_json(model / "evaluation-test" / "metrics.json")["test"],
        "parameters": counts["parameters"],
        "train_seconds": training_seconds(training),
        "history": [history_point(entry) for entry in training["history"] if "valid_MRR" in entry or "valid" in entry],
        "provenance": provenance(stage),
    }
    return entry | ({"cost": epoch_cost(training)} if "best_epoch" in training else {})


def epoch_cost(training: dict) -> dict:
    """What training a conventional model took, from its metrics.json. Pretraining epochs count as epochs."""
    seconds = [epoch["train_seconds"] for epoch in training["history"]]
    return {
        "epochs": len(seconds),
        "best_epoch": training["best_epoch"],
        "seconds_per_epoch": float(np.median(seconds)),
        "peak_memory_mib": training.get("peak_memory_mib"),  # the first runs did not record it
    }


def history_point(entry: dict) -> dict:
    """A validation of an encoder (by epoch) or of an LLM stage (by step) in one form."""
    if "epoch" in entry:
        train = {name: value for name, value in entry.items() if name not in NO_LOSS}
        return {"step": entry["epoch"], "valid_MRR": entry["valid_MRR"], "train": train}
    train = {name.removeprefix("loss_"): value for name, value in entry["train"].items()}
    return {"step": entry["step"], "valid_MRR": entry["valid"]["MRR"], "train": train}


def model_summary(runs: Runs, experiment: str) -> dict | None:
    """An experiment that compares models; None when none of its models is there."""
    models = models_of(experiment, runs.directory)
    entries = [model_entry(runs, experiment, model) for model in models]
    if not any(entry["runs"] for entry in entries):
        return None
    return runs.header(experiment) | {"models": entries, "comparisons": comparisons(runs, PAIRS[experiment])}


def model_entry(runs: Runs, experiment: str, model: Model) -> dict:
    there = {seed: directory / model.name for seed, directory in runs.seeds.items() if is_evaluated(directory / model.name)}
    return {
        "name": model.name,
        "label": model.label,
        "x": model.x,
        "runs": [run_entry(directory, seed) for seed, directory in there.items()],
        "missing": runs.missing(experiment, model.name),
    }


def comparisons(runs: Runs, pairs: list[tuple[str, str]]) -> list[dict]:
    """Paired tests over users between two models, over the seeds that have both."""
    found = []
    for pair in pairs:
        directories = [path for path in runs.seeds.values() if all(is_evaluated(path / name) for name in pair)]
        for ranking in RANKINGS if directories else ():
            first, second = (np.stack([read_ranks(path / name, ranking) for path in directories]) for name in pair)
            named = {"model": pair[0], "against": pair[1], "ranking": ranking, "metric": "MRR"}
            found.append(named | paired_comparison(first, second))
    return found


def read_ranks(model: Path, ranking: str) -> np.ndarray:
    """int [users], as evaluate.py wrote them."""
    with np.load(model / "evaluation-test" / "ranks.npz", allow_pickle=False) as arrays:
        return arrays[ranking]


def analysis_summary(runs: Runs, experiment: str) -> dict | None:
    """An experiment that looks into one trained model per seed: the deepest one that was analysed."""
    entries, missing = [], []
    for seed, directory in runs.seeds.items():
        found = sorted(directory.glob(f"e4srec_*/{ANALYSES[experiment]}/{MANIFEST}"), key=lambda path: depth_of(path.parents[1]))
        if not found:
            missing.append(runs.missing_run(experiment, seed))
            continue
        stage = found[-1].parent
        entry = {"seed": seed, "model": stage.parent.name, "provenance": provenance(stage)}
        entries.append(entry | read_json(stage / "metrics.json"))
    return runs.header(experiment) | {"runs": entries, "missing": missing} if entries else None


def depth_of(model: Path) -> int:
    return read_manifest(model)["config"]["num_layers"]


def cold_summary(runs: Runs) -> dict | None:
    """The models of `main`, by history length and target popularity, averaged over seeds."""
    models, missing = [], []
    for model in models_of("main", runs.directory):
        there = [directory / model.name for directory in runs.seeds.values() if is_evaluated(directory / model.name)]
        missing += [run | {"model": model.label} for run in runs.missing("cold", model.name)]
        if there:
            groups = mean_over_seeds([cold_groups(directory) for directory in there])
            models.append({"name": model.name, "label": model.label, "groups": groups})
    return runs.header("cold") | {"models": models, "missing": missing} if models else None


def summarise(runs: Runs) -> dict[str, dict]:
    """Experiment -> summary, of the experiments that have at least one run."""
    found = {name: model_summary(runs, name) for name in MODEL_EXPERIMENTS}
    found |= {name: analysis_summary(runs, name) for name in ANALYSES}
    found["cold"] = cold_summary(runs)
    searched = regimes(runs.directory / "search")
    if searched:
        found["regimes"] = runs.header("regimes") | {"settings": searched}
    found["stats"] = runs.header("stats") | {"stats": runs.stats}
    benchmark = runs.directory / "efficiency.json"
    if benchmark.is_file():
        found["efficiency"] = runs.header("efficiency") | {"benchmark": read_json(benchmark)}
    return {name: summary for name, summary in found.items() if summary}


@dataclass
class SummaryArguments:
    """Which runs to summarise."""

    runs: str = field(default="runs", metadata={"help": "directory with one run directory per data set"})


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments(SummaryArguments, argv, description=__doc__)
    root = Path(arguments.runs)
    directories = sorted(path.parent.parent for path in root.glob("*/data/stats.json"))
    if not directories and not (root / "tables").is_dir():
        raise InputError(f"{root}: no runs there; bash run_tables.sh main demo makes some")
    for directory in directories:
        target = root / "tables" / directory.name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for experiment, summary in summarise(Runs.below(directory)).items():
            write_json(target / f"{experiment}.json", summary)
    print(f"{root / 'tables'}: summaries of {', '.join(path.name for path in directories) or 'no data set'}")


if __name__ == "__main__":
    from slmrec.runtime import run_main

    run_main(main)
