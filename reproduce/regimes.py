"""Every training setting that was tried on a data set before the tables were made, good or bad, by validation MRR alone.

The runs are directories of finetune.py, distill.py, train_openp5.py and train_sr_trad.py below <runs>/<data set>/search.
"""

from __future__ import annotations

from pathlib import Path

from reproduce.comparison import training_seconds
from slmrec.artifacts import MANIFEST, input_directory, read_json, read_manifest

# stage -> what it trains
SEARCHED = {"finetune": "E4SRec", "distill": "students", "openp5": "Open-P5", "encoder": "conventional models"}


def search_runs(search: Path, stage: str) -> list[Path]:
    """The finished runs of a stage in a search, by name."""
    runs = sorted(path.parent for path in search.glob(f"*/{MANIFEST}"))
    return [run for run in runs if read_manifest(run)["stage"] == stage]


def setting(run: Path) -> dict:
    """What a run was trained with: its configuration, and what it read where that differs between runs of a search.

    That is the base model by its name or, under backbone.*, how a random one was made beside the runs; the teacher; and, under
    titles.*, how titles became vectors.
    """
    manifest = read_manifest(run)
    config, inputs = manifest["config"], manifest["inputs"]
    if manifest["stage"] == "encoder":
        config = {"model": config["model"]} | config["architecture"] | config["training"] | config.get("text", {})
        if "text" in inputs:
            config |= {f"titles.{key}": value for key, value in read_manifest(input_directory(run, "text"))["config"].items()}
        return config
    if config.get("train_strategy") == "full":  # without adapters
        config = {key: value for key, value in config.items() if not key.startswith("lora_")}
    if "teacher" in inputs:
        config = config | {"teacher": Path(inputs["teacher"]["directory"]).name}
    name = inputs["base_model"]["base_model"]
    if not (run.parent / name).is_dir():
        return config | {"base_model": name}
    built = read_manifest(run.parent / name, "backbone")["config"]
    return config | {f"backbone.{key}": value for key, value in built.items() if key != "num_layers"}


def regimes(search: Path) -> list[dict]:
    """One entry per run: the settings in which its stage's runs differ, and where validation MRR peaked and ended; best first."""
    return [entry for stage in SEARCHED for entry in stage_regimes(search, stage)]


def stage_regimes(search: Path, stage: str) -> list[dict]:
    runs = search_runs(search, stage)
    settings = [setting(run) for run in runs]
    names = sorted({name for one in settings for name in one if len({str(other.get(name)) for other in settings}) > 1})
    entries = []
    for run, one in zip(runs, settings, strict=True):
        manifest = read_manifest(run)
        shared = {"command": manifest["command"], "digest": manifest["digest"], **manifest["git"]}
        named = {"name": run.name, "stage": stage, "setting": {name: one.get(name) for name in names}}
        entries.append(named | progress(read_json(run / "metrics.json")) | shared)
    return sorted(entries, key=lambda entry: -entry["best_valid_MRR"])


def progress(metrics: dict) -> dict:
    """How a run's validation MRR went, from its metrics.json: over steps, or over epochs of a conventional model."""
    history = metrics["history"]
    if "best_epoch" in metrics:
        curve = [point["valid_MRR"] for point in history if "valid_MRR" in point]
        best, steps = metrics["best_epoch"], len(history)
    else:
        curve = [point["valid"]["MRR"] for point in history]
        best, steps = metrics["best_step"], metrics["steps"]
    return {
        "best_valid_MRR": max(curve),
        "last_valid_MRR": curve[-1],
        "best_step": best,
        "steps": steps,
        "train_seconds": training_seconds(metrics),
    }
