"""One table over the evaluated models of a run directory, printed and written beside them.

python -m reproduce.comparison --run_dir runs/demo
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from reproduce.experiments import ENCODER_LABELS
from reproduce.summary import RANKINGS
from reproduce.table import markdown_rows, write_csv
from slmrec.artifacts import input_directory, read_json, read_manifest
from slmrec.command_line import parse_arguments
from slmrec.errors import InputError
from slmrec.evaluation.metrics import METRICS

ORDER = {"encoder": 0, "finetune": 1, "distill": 2}

# Of a model that was given texts, by the control that stood in their place; models from before there were texts have none
TEXT_LABELS = {None: "", "none": " from titles", "shuffled": " from shuffled titles", "gaussian": " from noise"}


@dataclass
class Row:
    """One evaluated model: its name in the paper's notation, metrics as fractions, parameters and training seconds."""

    model: str
    metrics: dict[str, dict]
    parameters: int
    seconds: float
    synthetic: bool


def display_name(directory: Path) -> str:
    """The paper's name of a model: SASRec, E4SRec_l, or SLMRec_n<-m for a student of n layers with a teacher of m."""
    manifest = read_manifest(directory)
    config = manifest["config"]
    if manifest["stage"] == "finetune":
        return f"E4SRec_{config['num_layers']}"
    if manifest["stage"] == "distill" and config.get("online"):
        return f"SLMRec_{config['num_layers']}<-{config['teacher_layers']} online"
    if manifest["stage"] == "distill":
        teacher = read_json(input_directory(directory, "teacher") / "recommender.json")
        return f"SLMRec_{config['num_layers']}<-{teacher['num_layers']}"
    return ENCODER_LABELS[config["model"]] + TEXT_LABELS[config.get("text", {}).get("text_control")]


def read_row(directory: Path) -> Row:
    """Raises InputError when the model has not been evaluated on the test split."""
    evaluation = directory / "evaluation-test"
    read_manifest(evaluation, "evaluate")
    training = read_json(directory / "metrics.json")
    stats = read_json(input_directory(directory, "data") / "stats.json")
    metrics = read_json(evaluation / "metrics.json")["test"]
    return Row(display_name(directory), metrics, training["parameters"], training_seconds(training), bool(stats.get("synthetic")))


def training_seconds(training: dict) -> float:
    """Wall time of a training run from its metrics.json; encoders record it per epoch, without validation."""
    if "train_seconds" in training:
        return training["train_seconds"]
    return sum(epoch["train_seconds"] for epoch in training["history"])


def evaluated_models(run_dir: Path) -> list[Path]:
    """The model directories of a run that have a test evaluation: encoders, then by falling depth, distilled ones last."""

    def order(directory: Path) -> tuple:
        manifest = read_manifest(directory)
        return ORDER[manifest["stage"]], -manifest["config"].get("num_layers", 0), directory.name

    return sorted((path.parent for path in run_dir.glob("*/evaluation-test") if path.is_dir()), key=order)


def render(rows: list[Row]) -> str:
    """A Markdown table of each ranking that every model has, metrics in percent, with a note where the data are synthetic."""
    lines = ["Synthetic data: these numbers say that the pipeline works, nothing about the method.", ""] * rows[0].synthetic
    for ranking, title in RANKINGS.items():
        if all(ranking in row.metrics for row in rows):
            cells = [
                [
                    row.model,
                    *(f"{100 * row.metrics[ranking][name]:.2f}" for name in METRICS),
                    f"{row.parameters:,}",
                    f"{row.seconds:.0f}",
                ]
                for row in rows
            ]
            lines += [f"Ranked among {title.format(**rows[0].metrics[ranking])}, percent:", ""]
            lines += [*markdown_rows(["Model", *METRICS, "Parameters", "Training seconds"], cells), ""]
    return "\n".join(lines)


def records(rows: list[Row]) -> list[dict[str, object]]:
    """A dictionary per model and ranking, metrics as fractions."""
    return [
        {"model": row.model, "ranking": ranking}
        | {name: metrics[name] for name in METRICS}
        | {"parameters": row.parameters, "train_seconds": row.seconds, "synthetic": row.synthetic}
        for row in rows
        for ranking, metrics in row.metrics.items()
    ]


@dataclass
class ComparisonArguments:
    """Which run to compare."""

    run_dir: str = field(metadata={"help": "directory whose sub-directories are evaluated models"})


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments(ComparisonArguments, argv, description=__doc__)
    run_dir = Path(arguments.run_dir)
    rows = [read_row(directory) for directory in evaluated_models(run_dir)]
    if not rows:
        raise InputError(f"{run_dir}: no model there has been evaluated on the test split (python evaluate.py --model ...)")
    text = render(rows)
    (run_dir / "comparison.md").write_text(text, encoding="utf-8")
    write_csv(run_dir / "comparison.csv", records(rows))
    print(text)
    print(f"Written to {run_dir / 'comparison.md'} and {run_dir / 'comparison.csv'}")


if __name__ == "__main__":
    from slmrec.runtime import run_main

    run_main(main)
