"""Open-P5's rows of Tables 5 and 7, extrapolated from a model that was trained and looked into.

An epoch of training: the seconds of the model's own training run a prefix, its validations included, times the prefixes of the
paper's users. Inference: the seconds a user of `python -m reproduce.analysis.generation`, in each of its ways, times the paper's
users. A longer catalogue costs more than this: 1,000 beams go through as many items whatever there are, exact scores through all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from reproduce.efficiency.paper_tables import HOUR
from reproduce.published import TABLE_1
from slmrec.artifacts import input_directory, read_json, read_manifest
from slmrec.errors import InputError

NO_PREFIX = 3  # of a user's actions: the first, whose prefix is empty, and those of validation and test


@dataclass(frozen=True)
class OpenP5Costs:
    """What the benchmark's tables take from an Open-P5; nothing where none is given.

    Attributes:
        digest: of its stage.
        hours: its rows of Table 7, way -> data set -> [training hours an epoch, inference hours].
        parameters: in all and trained, by its name.
    """

    digest: str | None = None
    hours: dict[str, dict] = field(default_factory=dict)
    parameters: dict[str, dict] = field(default_factory=dict)


def openp5_costs(directory: str | Path, device: torch.device) -> OpenP5Costs:
    """Raises InputError where the model was not looked into, or trained or timed on another kind of device than `device`."""
    directory = Path(directory)
    trained, looked = read_manifest(directory, "openp5"), directory / "generation-test"
    if not looked.is_dir():
        raise InputError(f"--openp5 {directory}: python -m reproduce.analysis.generation --model {directory} has to run first")
    for done in (trained, read_manifest(looked, "generation")):
        if torch.device(done["device"]).type != device.type:
            raise InputError(
                f"--openp5 {directory}: its {done['stage']} ran on {done['device']}, this benchmark runs on {device}"
            )
    config, metrics, found = trained["config"], read_json(directory / "metrics.json"), read_json(looked / "metrics.json")
    rows = metrics["steps"] * config["per_device_train_batch_size"] * config["gradient_accumulation_steps"]
    per_prefix = metrics["train_seconds"] / rows
    stats = read_json(input_directory(directory, "data") / "stats.json")
    name = f"Open-P5_{config['num_layers']}"
    hours: dict[str, dict] = {f"{name} {way}": {} for way in found["ways"]}
    for dataset, size in TABLE_1.items():
        prefixes = (size.mean_length or stats["mean_length"]) - NO_PREFIX
        training = size.users * prefixes * per_prefix / HOUR
        for way, cost in found["ways"].items():
            hours[f"{name} {way}"][dataset] = [training, size.users * cost["seconds_per_user"] / HOUR]
    return OpenP5Costs(trained["digest"], hours, {name: {key: metrics[key] for key in ("parameters", "trained_parameters")}})
