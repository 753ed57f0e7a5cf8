"""Tables, figures and one page that holds them all, from the summaries of the experiments and nothing else.

python -m reproduce.report --tables_dir results/tables

Reads every `<tables_dir>/<dataset>/<experiment>.json` and writes beside it the tables as Markdown and CSV, the figures below
`<tables_dir>/figures`, and `<tables_dir>/report.html`, which needs no other file.
"""

from __future__ import annotations

import base64
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reproduce.cells import SYNTHETIC, TITLES, Table, missing_rows, title, to_csv, to_markdown
from reproduce.comparison import METRICS
from reproduce.experiments import MODEL_EXPERIMENTS
from reproduce.figures import Picture, pictures, save, training_pictures
from reproduce.hyperparameters import comparison_rows
from reproduce.model_tables import rank_table
from reproduce.tables import hyperparameter_table, rules_table, stats_table, tables
from slmrec.artifacts import read_json
from slmrec.command_line import parse_arguments
from slmrec.errors import InputError

TEMPLATE = "report.html.jinja"
FIRST_COMMAND = "bash run_tables.sh main demo"
SHORT = 12  # characters of a commit or digest that are shown
LIBRARIES = ("python", "torch", "transformers", "peft", "numpy")
NUMBER_CELL = re.compile(r"|–|(< )?[+-]?[\d,.]+(%|e[+-]?\d+)?( ± [\d.]+)?( of \d+)?")

# What a summary must hold: types, lists of one shape, and dictionaries, in which a name with a question mark may be missing.
NUMBER, MAYBE_NUMBER, MAYBE_TEXT = (int, float), (int, float, type(None)), (str, type(None))
VALUES = dict.fromkeys(METRICS, NUMBER)
RANKED = {"sampled": VALUES | {"candidates": int}, "full?": VALUES | {"items": int}}
GIT = {"commit": MAYBE_TEXT, "dirty": (bool, type(None))}
PROVENANCE = {"stage": str, "command": str, "digest": str, "device": str, "libraries": dict, "config": dict} | GIT
MISSING = [{"seed": int, "command": str, "model?": str}]
HISTORY = [{"step": NUMBER, "valid_MRR": NUMBER, "train": dict}]
RUN = {"seed": int, "metrics": RANKED, "parameters": int, "history": HISTORY, "provenance": PROVENANCE}
RUN |= {"cost?": {"epochs": int, "best_epoch": int, "seconds_per_epoch": NUMBER, "peak_memory_mib": MAYBE_NUMBER}}
MODEL = {"name": str, "label": str, "x": MAYBE_NUMBER, "runs": [RUN], "missing": MISSING}
COMPARISON = {
    "model": str,
    "against": str,
    "ranking": str,
    "metric": str,
    "test": str,
    "mean_difference": NUMBER,
    "p_value": NUMBER,
    "signed_rank_p_value": NUMBER,
    "signed_rank_sum": NUMBER,
}
COMPARISON |= dict.fromkeys(("users", "seeds", "better", "equal", "worse"), int)
COLD_VALUES = dict.fromkeys(("MRR", "HR@10", "NDCG@10"), MAYBE_NUMBER)
GROUP = {"group": str, "users": int, "sampled": COLD_VALUES, "full?": COLD_VALUES}
COLD_MODEL = {"name": str, "label": str, "groups": {"history": [GROUP], "popularity": [GROUP]}}
LAYER = {"layer": int, "final_norm": bool, "metrics": RANKED}
OF_MODEL = {"seed": int, "model": str, "provenance": PROVENANCE}
SPEED = {"seconds": dict, "speedup": NUMBER, "predicted": NUMBER}
BENCHMARK = {
    "environment": {"command": str, "device": str, "libraries": dict, "git": GIT},
    "lengths": str,
    "configuration": dict,
    "encoding?": {"forward": SPEED, "train": SPEED},
    "models?": {"forward": dict, "train": dict},
    "memory_mib?": dict,
    "parameters?": dict,
    "tables?": dict.fromkeys(("Table 5", "Table 7", "Table 8"), dict),
}
SETTING = {"name": str, "setting": dict, "best_valid_MRR": NUMBER, "last_valid_MRR": NUMBER, "best_step": int, "steps": int}
SETTING |= {"train_seconds": NUMBER, "command": str, "digest": str} | GIT
STATS = {
    "raw_users?": int,
    "raw_items?": int,
    "users": int,
    "items": int,
    "interactions": int,
    "raw_rows": int,
    "density": NUMBER,
    "mean_length": NUMBER,
}
STACK = {"layers": int, "tokens": int, "width": int, "proposition_1_error": NUMBER, "proposition_2_error": NUMBER}
DATASET = {"dataset": str, "synthetic": bool}
SHAPES = dict.fromkeys(MODEL_EXPERIMENTS, DATASET | {"models": [MODEL], "comparisons?": [COMPARISON]}) | {
    "depth-infer": DATASET | {"runs": [OF_MODEL | {"layers": [LAYER]}], "missing": MISSING},
    "layers": DATASET | {"runs": [OF_MODEL | {"block_influence": [NUMBER], "cka": [[MAYBE_NUMBER]]}], "missing": MISSING},
    "cold": DATASET | {"models": [COLD_MODEL], "missing": MISSING},
    "regimes": DATASET | {"settings": [SETTING]},
    "stats": DATASET | {"stats": STATS | {"dropped": dict, "rules": dict}},
    "efficiency": {"dataset": str, "synthetic?": bool, "benchmark": BENCHMARK},
    "theory": {"seed": int, "stacks": [STACK | {"proposition_1_error_printed_step": NUMBER}], "command": str, "libraries": dict}
    | GIT,
}


def check(value: object, shape: object, where: str) -> None:
    """Raise InputError, naming the place, unless a JSON value has a shape as in SHAPES; numbers must be finite."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise InputError(f"{where}: an object is needed, not {value!r:.80}")
        for name, inner in shape.items():
            key = name.removesuffix("?")
            if key in value:
                check(value[key], inner, f"{where}.{key}")
            elif key == name:
                raise InputError(f"{where}: has no {key!r}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise InputError(f"{where}: a list is needed, not {value!r:.80}")
        for index, inner in enumerate(value):
            check(inner, shape[0], f"{where}[{index}]")
    elif not isinstance(value, shape) or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(f"{where}: {value!r:.80} is not what belongs here")


def read_summary(path: Path, tables_dir: Path) -> dict:
    """One summary. Raises InputError when it is malformed, of no known experiment, or not where its names say."""
    summary = read_json(path)
    experiment = summary.get("experiment") if isinstance(summary, dict) else None
    if not isinstance(experiment, str) or experiment not in SHAPES:
        raise InputError(f"{path}: no summary of a known experiment ({', '.join(SHAPES)})")
    check(summary, SHAPES[experiment], f"{path}: {experiment}")
    expected = tables_dir / summary.get("dataset", "") / f"{experiment}.json"
    if path != expected:
        raise InputError(f"{path}: holds what belongs in {expected}")
    return summary


def read_summaries(tables_dir: Path) -> list[dict]:
    """All summaries below a directory in the report's order: by experiment, within one real data before synthetic."""
    if not tables_dir.is_dir():
        raise InputError(f"{tables_dir}: no summary of an experiment there ({FIRST_COMMAND} makes the first)")
    summaries = [read_summary(path, tables_dir) for path in sorted(tables_dir.rglob("*.json"))]
    invented = {summary["dataset"] for summary in summaries if summary.get("synthetic")}
    for summary in summaries:  # a benchmark does not know what its histories are
        summary["synthetic"] = summary.get("dataset") in invented
    return sorted(summaries, key=lambda summary: (list(TITLES).index(summary["experiment"]), summary["synthetic"]))


# -- what the page holds ------------------------------------------------------------------------------------------------------


@dataclass
class Part:
    """The tables and figures of one experiment on one data set; figures as (data URI, alternative text, caption)."""

    heading: str
    synthetic: bool = False
    tables: list[Table] = field(default_factory=list)
    figures: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass
class Section:
    title: str
    anchor: str
    parts: list[Part]


def section(name: str, parts: list[Part]) -> Section:
    return Section(name, re.sub("[^a-z0-9]+", "-", name.lower()).strip("-"), parts)


def write_tables(found: list[Table], stem: Path) -> None:
    """`stem`.md and `stem`.csv."""
    Path(f"{stem}.md").write_text("\n".join(map(to_markdown, found)), encoding="utf-8")
    Path(f"{stem}.csv").write_text("\n".join(map(to_csv, found)), encoding="utf-8")


def draw(found: list[Picture], summary: dict, tables_dir: Path) -> list[tuple[str, str, str]]:
    """Write figures as PNG and SVG, and return them for the page."""
    mark = f"{SYNTHETIC}. " if summary["synthetic"] else ""
    drawn = []
    for picture in found:
        svg = save(picture, tables_dir / "figures" / f"{summary['dataset']}_{picture.name}")
        drawn.append((data_uri(svg), f"{picture.name}, {summary['dataset']}", mark + picture.caption))
    return drawn


def data_uri(svg: str) -> str:
    """An SVG for the page, made smaller: no metadata, no indentation, coordinates to a hundredth of a point."""
    svg = re.sub("<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"(\.\d\d)\d{4}\b", r"\1", re.sub(r"\s*\n\s*", " ", svg))  # matplotlib writes coordinates with six decimals
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def write_part(summary: dict, main: dict | None, tables_dir: Path) -> Part:
    """Write the files of one summary; returns what the page shows of it."""
    found = tables(summary)
    write_tables(found, tables_dir / summary.get("dataset", "") / summary["experiment"])
    figures = draw(pictures(summary, main), summary, tables_dir)
    return Part(summary.get("dataset", "random attention stacks"), summary["synthetic"], found, figures)


def experiment_sections(summaries: list[dict], tables_dir: Path) -> list[Section]:
    """A section per experiment with a part per data set; the first is one table of all data sets."""
    mains = {summary["dataset"]: summary for summary in summaries if summary["experiment"] == "main"}
    parts: dict[str, list[Part]] = {}
    for summary in summaries:
        part = write_part(summary, mains.get(summary.get("dataset")), tables_dir)
        parts.setdefault(summary["experiment"], []).append(part)
    if "stats" in parts:
        stats = [summary for summary in summaries if summary["experiment"] == "stats"]
        parts["stats"] = [Part("All data sets", False, [stats_table(stats), *map(rules_table, stats)])]
    ranks = rank_table(summaries)
    if ranks:
        write_tables([ranks], tables_dir / "rank")
        parts["main"].append(Part("All data sets", False, [ranks]))
    return [section(TITLES[experiment], found) for experiment, found in parts.items()]


def training_section(summaries: list[dict], tables_dir: Path) -> list[Section]:
    """Training curves and loss terms of every data set with a main experiment; no section before one is trained."""
    mains = [summary for summary in summaries if summary["experiment"] == "main"]
    parts = [
        Part(main["dataset"], main["synthetic"], figures=draw(training_pictures(main), main, tables_dir))
        for main in mains
        if any(model["runs"] for model in main["models"])
    ]
    return [section("Training curves and loss terms", parts)] if parts else []


# -- where the numbers come from ----------------------------------------------------------------------------------------------


def provenance_tables(summaries: list[dict]) -> list[Table]:
    """What made each number: one table per summary that records runs."""
    header = [
        "Model",
        "Seed",
        "Stage",
        "Command",
        "Commit",
        "Uncommitted changes",
        "Digest",
        "Device",
        "Libraries",
        "Configuration",
    ]
    found = [(summary, provenance_rows(summary)) for summary in summaries]
    return [Table(title(summary), header, rows) for summary, rows in found if rows]


def provenance_rows(summary: dict) -> list[list[str]]:
    rows = [provenance_row(model["label"], run) for model in summary.get("models", []) for run in model.get("runs", [])]
    rows += [provenance_row(run["model"], run) for run in summary.get("runs", [])]
    rows += [row for model in summary.get("models", []) for row in missing_rows(model.get("missing", []), model["label"])]
    rows += missing_rows(summary.get("missing", []), "run")
    if "benchmark" in summary:
        environment = summary["benchmark"]["environment"]
        rows.append(
            provenance_cells(
                "all",
                "",
                {**environment, **environment["git"], "stage": "benchmark", "config": summary["benchmark"]["configuration"]},
            )
        )
    if "stacks" in summary:
        rows.append(provenance_cells("all", str(summary["seed"]), {**summary, "stage": "theory", "device": "cpu"}))
    return rows


def provenance_row(label: str, run: dict) -> list[str]:
    return provenance_cells(label, str(run["seed"]), run["provenance"])


def provenance_cells(label: str, seed: str, made: dict) -> list[str]:
    """One row; digests and commits are shortened, and a run outside of a checkout has no commit."""
    dirty = {True: "yes", False: "no", None: "unknown"}[made["dirty"]]
    libraries = ", ".join(f"{name} {made['libraries'][name]}" for name in LIBRARIES if name in made["libraries"])
    commit, digest = (made.get(name) or "–" for name in ("commit", "digest"))
    place = [commit[:SHORT], dirty, digest[:SHORT], made["device"], libraries]
    return [label, seed, made["stage"], made["command"], *place, settings(made.get("config", {}))]


def settings(config: dict, prefix: str = "") -> str:
    """A configuration as one line, nested names joined by dots."""
    parts = [
        settings(value, f"{prefix}{name}.") if isinstance(value, dict) else f"{prefix}{name} {value}"
        for name, value in config.items()
    ]
    return ", ".join(part for part in parts if part)


# -- the page -----------------------------------------------------------------------------------------------------------------


def numeric_columns(table: Table) -> list[bool]:
    """Which columns hold numbers alone and are set flush right."""
    full = [row for row in table.rows if len(row) == len(table.header)]
    return [bool(full) and all(NUMBER_CELL.fullmatch(row[index]) for row in full) for index in range(len(table.header))]


def page(sections: list[Section], provenance: list[Table], datasets: dict[str, bool]) -> str:
    """The report as HTML; `datasets` says of each data set whether it is synthetic."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.get_template(TEMPLATE)
    return template.render(
        sections=sections, provenance=provenance, datasets=datasets, mark=SYNTHETIC, numeric_columns=numeric_columns
    )


def render(tables_dir: Path) -> Path:
    """Write all tables, figures and the page; returns the page's path. Raises InputError for a summary that cannot be read."""
    summaries = read_summaries(tables_dir)
    datasets = {summary["dataset"]: summary["synthetic"] for summary in summaries if "dataset" in summary}
    sections = experiment_sections(summaries, tables_dir)
    hyperparameters = hyperparameter_table(comparison_rows())
    write_tables([hyperparameters], tables_dir / "hyperparameters")
    sections += [section("Hyper-parameters", [Part("The paper's data sets", tables=[hyperparameters])])]
    sections += training_section(summaries, tables_dir)
    target = tables_dir / "report.html"
    target.write_text(page(sections, provenance_tables(summaries), datasets), encoding="utf-8")
    return target


@dataclass
class ReportArguments:
    """Which summaries to render."""

    tables_dir: str = field(metadata={"help": "directory of <dataset>/<experiment>.json; everything is written there too"})


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments(ReportArguments, argv, description=__doc__)
    print(f"Written to {render(Path(arguments.tables_dir))}, tables and figures beside it")


if __name__ == "__main__":
    from slmrec.runtime import run_main

    run_main(main)
