"""One table over the evaluated models of a run directory, printed and written beside them, and what the last one recommends.

python -m reproduce.comparison --run_dir runs/demo
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

from reproduce.experiments import ENCODER_LABELS
from reproduce.summary import RANKINGS
from reproduce.table import Table, number, shown, spread, to_text, write_tables
from slmrec import progress
from slmrec.artifacts import input_directory, read_json, read_manifest
from slmrec.command_line import parse_arguments
from slmrec.errors import InputError
from slmrec.evaluation.metrics import METRICS

ROOT = Path(__file__).resolve().parent.parent
ORDER = {"encoder": 0, "finetune": 1, "distill": 2}
TITLE, READ = 60, 10  # letters of a title and items of a history that an example shows
SYNTHETIC_NOTE = "Synthetic data: these numbers say that the pipeline works, nothing about the method."

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


def tables(rows: list[Row]) -> list[Table]:
    """A table of each ranking that any model has."""
    header = ["Model", *METRICS, "Parameters", "Training seconds"]
    found = []
    for ranking, title in RANKINGS.items():
        ranked = [row.metrics[ranking] for row in rows if ranking in row.metrics]
        cells = [
            [
                row.model,
                *(spread([row.metrics[ranking][name]] if ranking in row.metrics else []) for name in METRICS),
                number(row.parameters),
                shown(row.seconds, ".0f"),
            ]
            for row in rows
        ]
        if ranked:
            title = f"Ranked among {title.format(**ranked[0])}, percent"
            note = SYNTHETIC_NOTE if rows[0].synthetic else ""
            found.append(Table(title, "", header, cells, note, facts={"ranking": ranking}, best=METRICS))
    return found


def for_the_terminal(rows: list[Row], run_dir: Path) -> str:
    """The same tables in columns, what to keep in mind when reading them, and what can be done next."""
    lines = [f"\n{table.title}:\n\n{to_text(table.header, table.rows)}" for table in tables(rows)]
    lines += ["", SYNTHETIC_NOTE] * rows[0].synthetic
    sampled = rows[0].metrics.get("sampled", {})
    if sampled.get("small_catalogue"):
        lines += ["", f"A small catalogue: users have as few as {sampled['candidates']} candidates; metrics are easier to reach."]
    return "\n".join([*lines, "", *next_commands(run_dir), ""])


def next_commands(run_dir: Path) -> list[str]:
    """What can be typed next; the model is the student, where there is one."""
    model, where = shlex.quote(str(evaluated_models(run_dir)[-1])), shlex.quote(str(run_dir))
    scripts = {name: shlex.quote(os.path.relpath(ROOT / name)) for name in ("recommend.py", "serve.py", "run_tables.sh")}
    elsewhere = "" if run_dir.parent == Path("runs") else f" --run_dir {where}"
    commands = {
        f"python {scripts['recommend.py']} --model {model} --users all --output top.csv": "ten items for each user",
        f"python {scripts['serve.py']} --model {model}": "a page to try it (pip install -e '.[serve]')",
        f"tensorboard --logdir {where}": "the curves",
        f"bash {scripts['run_tables.sh']} main {shlex.quote(run_dir.name)}{elsewhere}": "this table with all baselines",
    }
    width = max(map(len, commands))
    lines = [f"  {command.ljust(width)}  # {what}" for command, what in commands.items()]
    own = ROOT / ".venv"  # made by setup_env.sh, and not active in the user's shell
    activate = [f"  source {shlex.quote(os.path.relpath(own))}/bin/activate"]
    return ["Next:", *(activate if Path(sys.prefix) == own else []), *lines]


def example(directory: Path) -> list[str]:
    """One user's history and the ten best items after it, as the model's evaluation has written them; nothing if it has not."""
    path = directory / "evaluation-test" / "example.json"
    if not path.is_file():
        return []
    found = read_json(path)
    past, target, best = found["history"], found["target"], found["recommended"]
    width = max(len(one["item"]) for one in [*past, target, *best])

    def line(place: int | str, one: dict) -> str:
        return f"{place:>4}  {one['item'].ljust(width)}  {one['title'][:TITLE]}".rstrip()

    left_out = f", the latest {READ} of {len(past)} items" if len(past) > READ else ""
    return [
        f"One user's history{left_out}:",
        *(line("", one) for one in past[-READ:]),
        f"\nThe ten best items after it, by {display_name(directory)} (* is what came next):",
        *(line(f"*{rank}" if one["item"] == target["item"] else rank, one) for rank, one in enumerate(best, 1)),
        *([] if target["item"] in [one["item"] for one in best] else ["What came next:", line("", target)]),
        "",
    ]


@dataclass
class ComparisonArguments:
    """Which run to compare."""

    run_dir: str = field(metadata={"help": "directory whose sub-directories are evaluated models"})
    models: list[str] | None = field(default=None, metadata={"help": "names of the models; default: all that are there"})


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments(ComparisonArguments, argv, description=__doc__)
    run_dir = Path(arguments.run_dir)
    wanted = [run_dir / name for name in arguments.models] if arguments.models else evaluated_models(run_dir)
    rows = [read_row(directory) for directory in wanted]
    if not rows:
        raise InputError(f"{run_dir}: no model there has been evaluated on the test split (python evaluate.py --model ...)")
    write_tables(tables(rows), run_dir / "comparison")
    progress.say("\n".join([for_the_terminal(rows, run_dir), *example(wanted[-1])]))


if __name__ == "__main__":
    from slmrec.runtime import run_main

    run_main(main)
