"""Tables, figures and one page that holds them all, from the summaries of the experiments and nothing else.

    python -m reproduce.report --tables_dir results/tables --findings docs/findings.md --output docs/report.html

Reads every `<tables_dir>/<dataset>/<experiment>.json` and writes beside it the tables as Markdown and CSV, the figures below
`<tables_dir>/figures`, and the page, which needs no other file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import markdown
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reproduce.experiments import EXPERIMENTS, Backbone, models_of, run_command
from reproduce.figures import Picture, inline_svg, pictures, save, training_pictures
from reproduce.hyperparameters import comparison_rows
from reproduce.model_tables import rank_table
from reproduce.summary import read_summaries
from reproduce.table import SYNTHETIC, Cell, Table, write_tables
from reproduce.tables import hyperparameter_table, rules_table, stats_table, tables
from slmrec.command_line import parse_arguments
from slmrec.errors import InputError

TEMPLATE = "report.html.jinja"
LONG = 24  # rows of a table above which it is folded
SHORT = 12  # characters of a commit or digest that are shown
LIBRARIES = ("python", "torch", "transformers", "peft", "numpy")
Draw = Callable[[Picture, Path], str]


@dataclass
class Part:
    """The tables and figures of one experiment on one data set; figures as (SVG, caption)."""

    heading: str
    synthetic: bool = False
    tables: list[Table] = field(default_factory=list)
    figures: list[tuple[Markup, str]] = field(default_factory=list)


@dataclass
class Section:
    title: str
    anchor: str
    parts: list[Part]


# -- what the page holds ------------------------------------------------------------------------------------------------------


def is_new(summary: dict) -> bool:
    """Whether an experiment shows a model that `main` does not; its others say nothing without that."""
    if EXPERIMENTS[summary["experiment"]].kind != "models" or summary["experiment"] == "main":
        return True
    shared = {model.name for model in models_of("main", Backbone()) if not model.optional}
    return any(model["runs"] for model in summary["models"] if model["name"] not in shared)


def not_run(summaries: list[dict]) -> list[tuple[str, str, str]]:
    """(data set, experiment, command) of every experiment that has nothing new on a data set which has others."""
    datasets = {summary["dataset"]: summary for summary in summaries if "dataset" in summary}
    shown = {(summary.get("dataset"), summary["experiment"]) for summary in summaries if is_new(summary)}
    wanted = [name for name, experiment in EXPERIMENTS.items() if experiment.models or experiment.kind in ("stats", "efficiency")]
    return [
        (dataset, EXPERIMENTS[name].title, run_command(name, summary))
        for dataset, summary in datasets.items()
        for name in wanted
        if (dataset, name) not in shown and not (EXPERIMENTS[name].pretrained and "base_model" not in summary)
    ]


def experiment_sections(summaries: list[dict], tables_dir: Path, draw: Draw) -> list[Section]:
    """Write the files of every summary; a section per experiment that has something new, with a part per data set."""
    mains = {summary["dataset"]: summary for summary in summaries if summary["experiment"] == "main"}
    parts: dict[str, list[Part]] = {}
    for summary in summaries:
        experiment, dataset = summary["experiment"], summary.get("dataset", "")
        found = tables(summary)
        write_tables(found, tables_dir / dataset / experiment)
        if is_new(summary):
            figures = draw_all(pictures(summary, mains.get(dataset)), summary, tables_dir, draw)
            parts.setdefault(experiment, []).append(Part(dataset, summary["synthetic"], found, figures))
    if "stats" in parts:
        stats = [summary for summary in summaries if summary["experiment"] == "stats"]
        filters = [Part(summary["dataset"], summary["synthetic"], [rules_table(summary)]) for summary in stats]
        parts["stats"] = [Part("all data sets", tables=[stats_table(stats)]), *filters]
    ranks = rank_table(summaries)
    if ranks:
        write_tables([ranks], tables_dir / "rank")
        parts["main"].append(Part("all data sets", tables=[ranks]))
    sections = [Section(EXPERIMENTS[name].title, name, found) for name, found in parts.items()]
    settings = hyperparameter_table(comparison_rows())
    write_tables([settings], tables_dir / "hyperparameters")
    sections.append(Section(EXPERIMENTS["hyper-parameters"].title, "hyper-parameters", [Part("", tables=[settings])]))
    training = [(main, draw_all(training_pictures(main), main, tables_dir, draw)) for main in mains.values()]
    curves = [Part(main["dataset"], main["synthetic"], figures=figures) for main, figures in training if figures]
    return sections + ([Section("Training curves and loss terms", "training", curves)] if curves else [])


def draw_all(found: list[Picture], summary: dict, tables_dir: Path, draw: Draw) -> list[tuple[Markup, str]]:
    """Figures for the page, each with its caption."""
    mark = f"{SYNTHETIC}. " if summary["synthetic"] else ""
    drawn = []
    for picture in found:
        name = f"{summary['dataset']}_{picture.name}"
        svg = inline_svg(draw(picture, tables_dir / "figures" / name), name, f"{picture.name}, {summary['dataset']}")
        drawn.append((Markup(svg), mark + picture.caption))
    return drawn


# -- where the numbers come from ----------------------------------------------------------------------------------------------

PROVENANCE = ["Model", "Seed", "Stage", "Command", "Commit", "Uncommitted changes", "Digest", "Made on"]


def provenance_tables(summaries: list[dict]) -> list[Table]:
    """What made each number: a table per data set, each run once. Machines have numbers, which the note explains."""
    rows: dict[str, dict[tuple, list[str]]] = {}
    machines: dict[str, dict[str, str]] = {}
    for summary in summaries:
        dataset = summary.get("dataset", "random attention stacks")
        found, numbers = rows.setdefault(dataset, {}), machines.setdefault(dataset, {})
        for label, seed, made in sources(summary):
            row = provenance_row(label, seed, made)
            number = numbers.setdefault(machine(made), str(len(numbers) + 1))
            found.setdefault((row[3], row[6]), [*row, number])
    notes = {name: "; ".join(f"{number}: {text}" for text, number in numbers.items()) for name, numbers in machines.items()}
    return [
        Table(name, "", PROVENANCE, list(found.values()), note=f"Made on {notes[name]}.") for name, found in rows.items() if found
    ]


def sources(summary: dict) -> list[tuple[str, object, dict]]:
    """(model, seed, provenance) of everything that is recorded."""
    found = [
        (model["label"], run["seed"], run["provenance"]) for model in summary.get("models", []) for run in model.get("runs", [])
    ]
    found += [(run["model"], run["seed"], run["provenance"]) for run in summary.get("runs", [])]
    if "benchmark" in summary:
        environment = summary["benchmark"]["environment"]
        found.append(("all", "", environment | environment["git"] | {"stage": "benchmark"}))
    if "stacks" in summary:
        found.append(("all", summary["seed"], summary | {"stage": "theory", "device": "cpu"}))
    return found


def provenance_row(label: str, seed: object, made: dict) -> list[str]:
    """Digests and commits are shortened, and a run outside of a checkout has no commit."""
    dirty = {True: "yes", False: "no", None: "unknown"}[made["dirty"]]
    commit, digest = ((made.get(name) or "–")[:SHORT] for name in ("commit", "digest"))
    return [label, str(seed), made["stage"], made["command"], commit, dirty, digest]


def machine(made: dict) -> str:
    """Device and libraries of a run."""
    libraries = (f"{name} {made['libraries'][name]}" for name in LIBRARIES if name in made["libraries"])
    return ", ".join([made["device"], *libraries])


# -- the page -----------------------------------------------------------------------------------------------------------------


def numeric_columns(table: Table) -> list[bool]:
    """Which columns hold numbers alone and are set flush right."""
    return [
        bool(table.full_rows)
        and all(isinstance(row[column], Cell) and not isinstance(row[column].value, dict) for row in table.full_rows)
        for column in range(len(table.header))
    ]


def page(sections: list[Section], summaries: list[dict], findings: str) -> str:
    """The report as HTML; `findings` is Markdown."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found = environment.get_template(TEMPLATE).render(
        findings=Markup(markdown.markdown(findings)),
        sections=sections,
        missing=not_run(summaries),
        provenance=provenance_tables(summaries),
        datasets={summary["dataset"]: summary["synthetic"] for summary in summaries if "dataset" in summary},
        mark=SYNTHETIC,
        long=LONG,
        numeric_columns=numeric_columns,
    )
    return re.sub(r"^[ \t]+", "", found, flags=re.MULTILINE)  # indentation is a tenth of the page


def render(tables_dir: Path, output: Path | None = None, findings: Path | None = None, draw: Draw = save) -> Path:
    """Write all tables, figures and the page; returns the page's path. Raises InputError for what cannot be read."""
    summaries = read_summaries(tables_dir)
    if findings is not None and not findings.is_file():
        raise InputError(f"{findings}: no such file")
    text = findings.read_text(encoding="utf-8") if findings else ""
    sections = experiment_sections(summaries, tables_dir, draw)
    target = output or tables_dir / "report.html"
    target.write_text(page(sections, summaries, text), encoding="utf-8")
    return target


@dataclass
class ReportArguments:
    """Which summaries to render."""

    tables_dir: str = field(
        metadata={"help": "directory of <dataset>/<experiment>.json; tables and figures are written there too"}
    )
    findings: str | None = field(default=None, metadata={"help": "Markdown file that the page begins with"})
    output: str | None = field(default=None, metadata={"help": "the page; default: report.html in --tables_dir"})


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments(ReportArguments, argv, description=__doc__)
    paths = [Path(value) if value else None for value in (arguments.output, arguments.findings)]
    print(f"Written to {render(Path(arguments.tables_dir), *paths)}, tables and figures below {arguments.tables_dir}")


if __name__ == "__main__":
    from slmrec.runtime import run_main

    run_main(main)
