"""What the runs below a directory show, as one summary (`reproduce.summary`) per data set and experiment.

Runs with a named base model lie in a directory of their own (runs/DATASET-BASE_MODEL) that holds their E-LLMRecs alone; data and
conventional models are those of runs/DATASET: where the manifests of the E-LLMRecs say that they lie.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reproduce.cold import cold_groups
from reproduce.comparison import TEXT_LABELS, training_seconds
from reproduce.experiments import ANALYSES, ENCODER_LABELS, EXPERIMENTS, Backbone, Model, models_of, run_command
from reproduce.regimes import regimes
from reproduce.statistics import paired_test
from reproduce.summary import RANKINGS
from slmrec.artifacts import MANIFEST, input_directory, read_json, read_manifest, write_json
from slmrec.errors import InputError
from slmrec.evaluation.metrics import UNDEFINED

NO_LOSS = ("epoch", "valid_MRR", "train_seconds", "valid_seconds")  # every other value of an encoder's epoch is a loss term


@dataclass
class Runs:
    """All runs on one data set with one backbone.

    Attributes:
        directory: of seed 0; its name is that of the runs.
        seeds: seed -> directory, seed N in seed_N below that of seed 0.
    """

    directory: Path
    seeds: dict[int, Path]

    @classmethod
    def below(cls, directory: Path) -> Runs:
        seeds = {int(path.name.removeprefix("seed_")): path for path in directory.glob("seed_*")}
        return cls(directory, {0: directory} | dict(sorted(seeds.items())))

    @property
    def data(self) -> Path:
        """The data stage, in this directory or where an E-LLMRec read it."""
        found = trained(self.directory)
        return input_directory(found[0], "data") if found and not (self.directory / "data").is_dir() else self.directory / "data"

    @property
    def backbone(self) -> Backbone:
        """The random one there, else as deep as the deepest E4SRec that was trained (at least 8 layers)."""
        config = self.directory / "backbone" / "config.json"
        if config.is_file():
            return Backbone(read_json(config)["num_hidden_layers"])
        return Backbone(max([8, *map(depth_of, trained(self.directory))]), random=False)

    def where(self, seed: int, model: str) -> Path:
        """The directory of a model, there or not; a conventional one may lie beside the embeddings that E-LLMRecs read."""
        own = self.seeds[seed]
        found = trained(own)
        if model in ENCODER_LABELS and found and not (own / "sasrec").is_dir():
            return input_directory(found[0], "embeddings").parent / model
        return own / model

    def evaluated(self, model: str) -> dict[int, Path]:
        """Seed -> directory of a model, of the seeds that have its test evaluation."""
        there = {seed: self.where(seed, model) for seed in self.seeds}
        return {seed: path for seed, path in there.items() if (path / "evaluation-test" / MANIFEST).is_file()}

    def header(self, experiment: str) -> dict:
        stats = read_json(self.data / "stats.json")
        head = {"experiment": experiment, "dataset": self.directory.name, "synthetic": bool(stats.get("synthetic"))}
        return head | {"seeds": list(self.seeds)} | self.origin()

    def origin(self) -> dict:
        """The data set and the base model, where the directory's name stands for both."""
        if self.data.parent == self.directory:
            return {}
        base_model = read_manifest(trained(self.directory)[0])["inputs"]["base_model"]["base_model"]
        return {"data": self.data.parent.name, "base_model": base_model}

    def missing(self, experiment: str, seeds: set[int]) -> list[dict]:
        """These seeds with the command that makes them all."""
        named = {"dataset": self.directory.name} | self.origin()
        return [{"seed": seed, "command": run_command(experiment, named, max(seeds))} for seed in sorted(seeds)]


def trained(directory: Path) -> list[Path]:
    """The E4SRec runs there, each of which knows its backbone, data and embeddings; not those on random weights instead."""
    return sorted(path.parent for path in directory.glob(f"e4srec_*/{MANIFEST}") if "_random" not in path.parent.name)


def depth_of(model: Path) -> int:
    return read_manifest(model)["config"]["num_layers"]


def require_one_backbone(runs: Runs) -> None:
    """Raise InputError where models of one table start from different backbones; other widths are meant to."""
    for directory in runs.seeds.values():
        found = {}
        for model in trained(directory):
            if "_w" not in model.name:
                described = read_manifest(model)["inputs"]["base_model"]
                digest = described.get("weights", described["digest"])  # the latter is of hub names and of earlier versions
                found.setdefault(digest, f"{model.name} ({described['base_model']})")
        if len(found) > 1:
            raise InputError(f"{directory}: {' and '.join(found.values())} start from different backbones; no table holds both")


def provenance(stage: Path) -> dict:
    """What made a stage: command, digests, code and machine."""
    manifest = read_manifest(stage)
    kept = {name: manifest[name] for name in ("stage", "digest", "device", "seed", "config", "libraries", "command")}
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
        "peak_memory_mib": training["peak_memory_mib"],
    }


def history_point(entry: dict) -> dict:
    """A validation of an encoder (by epoch) or of an LLM stage (by step) in one form."""
    if "epoch" in entry:
        train = {name: value for name, value in entry.items() if name not in NO_LOSS}
        return {"step": entry["epoch"], "valid_MRR": entry["valid_MRR"], "train": train}
    train = {name.removeprefix("loss_"): value for name, value in entry["train"].items()}
    return {"step": entry["step"], "valid_MRR": entry["valid"]["MRR"], "train": train}


def shown_models(runs: Runs, experiment: str) -> list[Model]:
    """The models of an experiment without those that are optional and have not run."""
    return [model for model in models_of(experiment, runs.backbone) if not model.optional or runs.evaluated(model.name)]


def model_summary(runs: Runs, experiment: str) -> dict | None:
    """An experiment that compares models; None when none of its models is there, or its base model cannot be."""
    if EXPERIMENTS[experiment].pretrained and runs.backbone.random:
        return None
    models = shown_models(runs, experiment)
    entries = [model_entry(runs, experiment, model) for model in models]
    if not any(entry["runs"] for entry in entries):
        return None
    names = {model.name for model in models}
    pairs = [pair for pair in EXPERIMENTS[experiment].pairs if names.issuperset(pair)]
    return runs.header(experiment) | {"models": entries, "comparisons": paired_tests(runs, pairs)}


def model_entry(runs: Runs, experiment: str, model: Model) -> dict:
    there = runs.evaluated(model.name)
    return {
        "name": model.name,
        "label": shown_label(model, list(there.values())),
        "x": model.x,
        "runs": [run_entry(directory, seed) for seed, directory in there.items()],
        "missing": runs.missing(experiment, runs.seeds.keys() - there),
    }


def shown_label(model: Model, directories: list[Path]) -> str:
    """Its label; one that is not about titles says so where the runs were trained on them after all (--text_use)."""
    if model.text or model.stage != "encoder" or not directories:
        return model.label
    return model.label + TEXT_LABELS[read_manifest(directories[0])["config"].get("text", {}).get("text_control")]


def paired_tests(runs: Runs, pairs: list[tuple[str, str]]) -> list[dict]:
    """Paired tests over users between two models, over the seeds that have both."""
    found = []
    for pair in pairs:
        both = [runs.evaluated(name) for name in pair]
        seeds = [seed for seed in both[0] if seed in both[1]]
        for ranking in RANKINGS if seeds else ():
            first, second = (np.stack([read_ranks(there[seed], ranking) for seed in seeds]) for there in both)
            ranked = ((first > UNDEFINED) & (second > UNDEFINED)).all(axis=0)  # the others touched every item
            first, second = first[:, ranked], second[:, ranked]
            named = {"model": pair[0], "against": pair[1], "ranking": ranking, "metric": "MRR"}
            found.append(named | paired_test(first, second))
    return found


def read_ranks(model: Path, ranking: str) -> np.ndarray:
    """int [users], as evaluate.py wrote them."""
    with np.load(model / "evaluation-test" / "ranks.npz", allow_pickle=False) as arrays:
        return arrays[ranking]


def analysis_summary(runs: Runs, experiment: str) -> dict | None:
    """An experiment that looks into trained models: all that were analysed, by depth."""
    entries, name = [], f"{ANALYSES[EXPERIMENTS[experiment].kind]}-test"
    for seed, directory in runs.seeds.items():
        analysed = [model / name for model in trained(directory) if (model / name / MANIFEST).is_file()]
        for stage in sorted(analysed, key=lambda path: depth_of(path.parent)):
            entry = {"seed": seed, "model": stage.parent.name, "provenance": provenance(stage)}
            entries.append(entry | read_json(stage / "metrics.json"))
    missing = runs.missing(experiment, runs.seeds.keys() - {entry["seed"] for entry in entries})
    return runs.header(experiment) | {"runs": entries, "missing": missing} if entries else None


def quantise_summary(runs: Runs, experiment: str) -> dict | None:
    """Each model of the experiment that was made smaller, of every seed."""
    found = [
        {"seed": seed, "model": model.label, "provenance": provenance(stage)} | read_json(stage / "metrics.json")
        for model in shown_models(runs, experiment)
        for seed, directory in runs.seeds.items()
        if ((stage := directory / model.name / "quantise-test") / MANIFEST).is_file()
    ]
    missing = runs.missing(experiment, runs.seeds.keys() - {entry["seed"] for entry in found})
    return runs.header(experiment) | {"runs": found, "missing": missing} if found else None


def cold_summary(runs: Runs, experiment: str) -> dict | None:
    """The models of `main`, by history length and target popularity, averaged over seeds."""
    models, missing = [], []
    for model in shown_models(runs, experiment):
        there = runs.evaluated(model.name)
        missing += [run | {"model": model.label} for run in runs.missing(experiment, runs.seeds.keys() - there)]
        if there:
            models.append({"name": model.name, "label": model.label, "groups": cold_groups(list(there.values()))})
    return runs.header(experiment) | {"models": models, "missing": missing} if models else None


def regime_summary(runs: Runs, experiment: str) -> dict | None:
    searched = regimes(runs.directory / "search")
    return runs.header(experiment) | {"settings": searched} if searched else None


def stats_summary(runs: Runs, experiment: str) -> dict | None:
    return runs.header(experiment) | {"stats": read_json(runs.data / "stats.json")}


def efficiency_summary(runs: Runs, experiment: str) -> dict | None:
    benchmark = runs.directory / "efficiency.json"
    return runs.header(experiment) | {"benchmark": read_json(benchmark)} if benchmark.is_file() else None


KINDS = {
    "models": model_summary,
    "depth-infer": analysis_summary,
    "layers": analysis_summary,
    "quantise": quantise_summary,
    "cold": cold_summary,
    "regimes": regime_summary,
    "stats": stats_summary,
    "efficiency": efficiency_summary,
}


def summarise(runs: Runs) -> dict[str, dict]:
    """Experiment -> summary, of the experiments that have at least one run."""
    require_one_backbone(runs)
    kinds = {name: KINDS.get(experiment.kind) for name, experiment in EXPERIMENTS.items()}
    found = {name: build(runs, name) for name, build in kinds.items() if build}
    return {name: summary for name, summary in found.items() if summary}


def write_summaries(root: Path) -> list[str]:
    """Write `root`/tables/<runs>/<experiment>.json for all runs below `root`; returns their names.

    Raises InputError when there are neither runs nor summaries.
    """
    directories = [path for path in sorted(root.glob("*")) if (path / "data" / "stats.json").is_file() or trained(path)]
    if not directories and not (root / "tables").is_dir():
        raise InputError(f"{root}: no runs there; bash run_tables.sh main demo makes some")
    for directory in directories:
        target = root / "tables" / directory.name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for experiment, summary in summarise(Runs.below(directory)).items():
            write_json(target / f"{experiment}.json", summary)
    return [path.name for path in directories]
