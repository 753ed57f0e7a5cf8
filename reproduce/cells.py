"""A table as text cells, and how numbers are written in them.

Metrics are fractions in the summaries and percent in tables. A number of the paper comes from `reproduce.published` alone and
stands in a column whose name begins with "paper"; only data sets that the paper has get such columns.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass

from reproduce import published
from reproduce.statistics import mean_and_deviation

# Experiment -> what its tables are called, in the order of the report.
TITLES = {
    "stats": "Data sets (Table 1)",
    "main": "Models compared (Tables 2 and 3)",
    "encoders": "Conventional models",
    "ablation": "Terms of the loss (Tables 4 and 9)",
    "depth-train": "Depth: a model trained at each depth (Figures 2 and 5, d to f)",
    "depth-infer": "Depth: the layers of one trained model (Figures 2 and 5, a to c)",
    "blocks": "Number of blocks B (Figure 4)",
    "online": "Teacher and student trained together (RQ4)",
    "kd-kinds": "Kinds of distillation",
    "student-size": "Depth of the student",
    "teacher-size": "Depth and width of the teacher",
    "regimes": "Training settings that were tried",
    "layers": "What each layer changes",
    "cold": "Short histories and rare targets",
    "efficiency": "Efficiency (Tables 5, 7 and 8)",
    "theory": "Propositions 1 and 2 (Section 6)",
}
PAPER_DATASETS = {name.lower(): name for name in published.TABLE_1}  # our names -> the paper's
SYNTHETIC = "SYNTHETIC data"
NONE = "–"


@dataclass(frozen=True)
class Table:
    """Text cells; the last cell of a row that is shorter than the header reaches over the rest."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def to_markdown(table: Table) -> str:
    """Title, GitHub table and note; short rows are filled up with empty cells."""
    lines = [f"**{table.title}**", "", _markdown_row(table.header), "|" + "---|" * len(table.header)]
    lines += [_markdown_row(row + [""] * (len(table.header) - len(row))) for row in table.rows]
    return "\n".join([*lines, *(["", table.note] if table.note else []), ""])


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def to_csv(table: Table) -> str:
    """A line with the title, one with the header, one per row; no thousands separators, short rows filled up with empty cells."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([table.title])
    writer.writerow(table.header)
    for row in table.rows:
        plain = [cell.replace(",", "") if re.fullmatch(r"[\d,]+(\.\d+)?", cell) else cell for cell in row]
        writer.writerow(plain + [""] * (len(table.header) - len(row)))
    return stream.getvalue()


# -- cells --------------------------------------------------------------------------------------------------------------------


def spread(values: list[float], scale: float = 100.0) -> str:
    """Mean ± standard deviation over seeds (n - 1) with two decimals; one seed has its value alone, none a dash."""
    if not values:
        return NONE
    mean, deviation = mean_and_deviation([scale * value for value in values])
    return f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"


def number(value: float | None) -> str:
    """Counts in full, other numbers with four digits, a dash for None."""
    if value is None:
        return NONE
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def percent(value: float | None) -> str:
    """A number that is in percent already, as the paper's are."""
    return NONE if value is None else f"{value:.2f}"


def printed(value: float | None) -> str:
    """A number of the paper with all its digits."""
    return NONE if value is None else f"{value:,}"


def probability(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def title(summary: dict, detail: str = "") -> str:
    """What a table is about; synthetic data are named so first."""
    mark = f"{SYNTHETIC}: " if summary.get("synthetic") else ""
    where = f", {summary['dataset']}" if "dataset" in summary else ""
    return f"{mark}{TITLES[summary['experiment']]}{where}{detail and ': ' + detail}"


def missing_rows(missing: Iterable[dict], label: str) -> list[list[str]]:
    """A row per command that makes runs which are not there, with their seeds; `label` where an entry names no model."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for entry in missing:
        seeds.setdefault((entry.get("model", label), entry["command"]), []).append(str(entry["seed"]))
    return [[f"{model}, seed {', '.join(found)}", f"missing: {command}"] for (model, command), found in seeds.items()]
