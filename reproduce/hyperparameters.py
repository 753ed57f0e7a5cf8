"""Table 6 beside the values that the run scripts really use, which are read from hyperparameters.sh by bash itself.

Three of its lines are no shell variables. The optimiser and the saving strategy are the defaults of
transformers.TrainingArguments, which the trainer does not change, and a model is validated whenever it is saved
(slmrec/training/trainer.py).
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from reproduce.published import TABLE_6
from slmrec.errors import InputError

SCRIPT = "hyperparameters.sh"
TRAINER = {"optimizer": "adamw_torch_fused", "save_strategy": "steps"}
SAME = {"adamw_torch_fused": "adamw_torch"}  # the same update, computed by one kernel instead of several
SHELL = tuple(name for name in TABLE_6 if name not in (*TRAINER, "eval_steps"))
PRINT_VARIABLES = 'set -eu; source "$1"; shift; for name; do printf "%s\\n" "${!name}"; done'


@dataclass(frozen=True)
class Line:
    """A line of Table 6: data set -> value as text, the paper's and that of our scripts."""

    name: str
    paper: dict[str, str]
    ours: dict[str, str]

    @property
    def drift(self) -> list[str]:
        """The data sets where the two are different values; 1 and 1.0 are the same."""
        return [dataset for dataset, value in self.paper.items() if _value(value) != _value(self.ours[dataset])]


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return SAME.get(text, text)


def shell_values(dataset: str, names: list[str], root: Path, environment: dict[str, str]) -> dict[str, str]:
    """What `DATASET=<dataset>` makes of these variables of `root`/hyperparameters.sh, which the environment overrides.

    Raises InputError when the script is missing, fails, or does not set one of them.
    """
    script = Path(root) / SCRIPT
    if not script.is_file():
        raise InputError(f"{script}: no such file")
    command = ["bash", "-c", PRINT_VARIABLES, "bash", str(script), *names]
    outcome = subprocess.run(command, env=environment | {"DATASET": dataset}, capture_output=True, text=True, check=False)
    if outcome.returncode:
        raise InputError(f"{script}: {' '.join(outcome.stderr.split())}")
    return dict(zip(names, outcome.stdout.splitlines(), strict=True))


def script_values(dataset: str, root: Path) -> dict[str, str]:
    """Our value of every line of Table 6, as text, whatever the environment overrides."""
    wanted = [name.upper() for name in SHELL]
    environment = {name: value for name, value in os.environ.items() if name not in (*wanted, "BASE_MODEL")}
    values = dict(zip(SHELL, shell_values(dataset, wanted, root, environment).values(), strict=True))
    return values | TRAINER | {"eval_steps": values["save_steps"]}


def comparison_rows(root: Path | None = None) -> list[Line]:
    """Every line of Table 6, in the paper's order, with the values of the scripts in `root` (default: this project) beside it."""
    root = root or Path(__file__).parents[1]
    datasets = next(iter(TABLE_6.values()))
    ours = {dataset: script_values(dataset.lower(), root) for dataset in datasets}
    return [Line(name, paper, {dataset: ours[dataset][name] for dataset in paper}) for name, paper in TABLE_6.items()]


def differences(lines: list[Line]) -> list[tuple[str, str, str, str]]:
    """(name, data set, the paper's value, ours) wherever the two differ."""
    return [(line.name, dataset, line.paper[dataset], line.ours[dataset]) for line in lines for dataset in line.drift]
