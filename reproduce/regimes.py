"""Every training setting that was tried on a data set before the tables were made, good or bad, by validation MRR alone.

The runs are finetune.py directories below <runs>/<data set>/search, with their backbones beside them.
"""

from __future__ import annotations

from pathlib import Path

from slmrec.artifacts import MANIFEST, read_json, read_manifest


def search_runs(search: Path) -> list[Path]:
    """The finished E4SRec runs of a search, by name."""
    stages = sorted(path.parent for path in search.glob(f"*/{MANIFEST}"))
    return [stage for stage in stages if read_manifest(stage)["stage"] == "finetune"]


def setting(stage: Path) -> dict:
    """What a run was trained with: configuration, and its base model's name or, under backbone.*, how a random one was made."""
    manifest = read_manifest(stage)
    name = manifest["inputs"]["base_model"]["base_model"]
    if not (stage.parent / name).is_dir():
        return manifest["config"] | {"base_model": name}
    built = read_manifest(stage.parent / name, "backbone")["config"]
    return manifest["config"] | {f"backbone.{key}": value for key, value in built.items() if key != "num_layers"}


def regimes(search: Path) -> list[dict]:
    """One entry per run: the settings in which the runs differ, and where validation MRR peaked and ended; best first."""
    runs = search_runs(search)
    settings = [setting(run) for run in runs]
    names = sorted({name for one in settings for name in one if len({str(other.get(name)) for other in settings}) > 1})
    entries = []
    for run, one in zip(runs, settings, strict=True):
        metrics, manifest = read_json(run / "metrics.json"), read_manifest(run)
        curve = [point["valid"]["MRR"] for point in metrics["history"]]
        entries.append(
            {
                "name": run.name,
                "setting": {name: one.get(name) for name in names},
                "best_valid_MRR": max(curve),
                "last_valid_MRR": curve[-1],
                "best_step": metrics["best_step"],
                "steps": metrics["steps"],
                "train_seconds": metrics["train_seconds"],
                "command": manifest["command"],
                "digest": manifest["digest"],
                "commit": manifest["git"]["commit"],
                "dirty": manifest["git"]["dirty"],
            }
        )
    return sorted(entries, key=lambda entry: -entry["best_valid_MRR"])
