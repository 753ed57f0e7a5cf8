"""A table and how it is written: Markdown, tidy CSV, aligned text; and cells, which know the number that they show.

Metrics are fractions in the summaries and percent in tables. A number of the paper comes from `reproduce.published` alone and
stands in a column whose name begins with "paper"; only data sets that the paper has get such columns.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from reproduce.statistics import mean_and_deviation

SYNTHETIC = "SYNTHETIC data"


class Cell(str):
    """Text that shows a number, with that number in full, and its deviation over seeds where there is one.

    A `value` that is a dictionary takes several columns of a CSV instead of the cell's own.
    """

    value: float | dict | None
    deviation: float | None

    def __new__(cls, text: str, value: float | dict | None = None, deviation: float | None = None) -> Cell:
        cell = super().__new__(cls, text)
        cell.value, cell.deviation = value, deviation
        return cell


NONE = Cell("–")


@dataclass(frozen=True)
class Table:
    """Rows of cells; the last cell of a row that is shorter than the header reaches over the rest.

    Attributes:
        subject: what it is about, e.g. the experiment and the data set.
        detail: what it shows of that; "" for a subject's only table.
        file: ending of its CSV file's name. Tables with the same one share the file, told apart by `facts`.
        facts: column -> value, the same in all rows; in the CSV alone.
        best: columns in which the highest number is the best.
    """

    subject: str
    detail: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    file: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    best: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return self.subject + (f": {self.detail}" if self.detail else "")

    @property
    def full_rows(self) -> list[list[str]]:
        """The rows without those that only say what is missing."""
        return [row for row in self.rows if len(row) == len(self.header)]

    def highest(self, column: int) -> float | None:
        """The best number of a column, None where nothing is compared."""
        values = [row[column].value for row in self.full_rows if isinstance(row[column], Cell) and row[column].value is not None]
        return max(values) if self.header[column] in self.best and len(set(values)) > 1 else None

    def records(self) -> list[dict[str, object]]:
        """A dictionary per full row: numbers as numbers, in a further column their deviation where the column has any."""
        spread = {name for row in self.full_rows for name, cell in zip(self.header, row) if getattr(cell, "deviation", None)}
        records = []
        for row in self.full_rows:
            record: dict[str, object] = dict(self.facts)
            for name, cell in zip(self.header, row):
                value = cell.value if isinstance(cell, Cell) else cell
                record |= value if isinstance(value, dict) else {name: value}
                if name in spread:
                    record[f"{name} sd"] = getattr(cell, "deviation", None)
            records.append(record)
        return records


# -- formats ------------------------------------------------------------------------------------------------------------------


# What Markdown takes for more than a character: marks of emphasis, code, links and tables, and the beginning of an HTML tag
MARKS = re.compile(r"[\\`*\[\]|]|<(?=[A-Za-z/!?])|(?<!\w)_|_(?!\w)")


def escaped(text: str) -> str:
    """A name, which may come from anywhere, as Markdown that shows it as it is, in one line."""
    return MARKS.sub(lambda mark: "\\" + mark.group(), " ".join(text.split()))


def markdown_rows(header: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a GitHub table; short rows are filled up with empty cells."""
    filled = [row + [""] * (len(header) - len(row)) for row in rows]
    lines = ["| " + " | ".join(map(escaped, row)) + " |" for row in [header, *filled]]
    return [lines[0], "|" + "---|" * len(header), *lines[1:]]


def to_markdown(table: Table) -> str:
    """Title, GitHub table and note."""
    note = ["", table.note] if table.note else []
    return "\n".join([f"**{escaped(table.title)}**", "", *markdown_rows(table.header, table.rows), *note, ""])


def to_text(header: list[str], rows: list[list[str]]) -> str:
    """Columns aligned for a terminal, the first to the left, the others to the right."""
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def write_csv(path: Path, records: list[dict[str, object]]) -> None:
    """One table with all the columns that any record has; what a record lacks, and None, stays empty."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for record in records for name in record)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def write_tables(tables: list[Table], stem: Path) -> None:
    """`stem`.md with all tables, and `stem`.csv or `stem`-FILE.csv with each one (or those that share a file)."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{stem}.md").write_text("\n".join(map(to_markdown, tables)), encoding="utf-8")
    for file in dict.fromkeys(table.file for table in tables):
        records = [record for table in tables if table.file == file for record in table.records()]
        if records:
            write_csv(Path(f"{stem}-{file}.csv" if file else f"{stem}.csv"), records)


# -- cells --------------------------------------------------------------------------------------------------------------------


def spread(values: list[float], scale: float = 100.0) -> Cell:
    """Mean ± standard deviation over seeds (n - 1) with two decimals; one seed has its value alone, none a dash."""
    if not values:
        return NONE
    mean, deviation = mean_and_deviation([scale * value for value in values])
    return Cell(f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}", mean, deviation)


def shown(value: float | None, form: str) -> Cell:
    """A number in a format of Python's, a dash for None."""
    return NONE if value is None else Cell(f"{value:{form}}", value)


def number(value: float | None) -> Cell:
    """Counts in full, other numbers with four digits, from ten thousand on without decimals."""
    large = isinstance(value, float) and abs(value) >= 1e4
    return shown(value, "," if isinstance(value, int) else ",.0f" if large else ",.4g")


def percent(value: float | None) -> Cell:
    """A number that is in percent already, as the paper's are."""
    return shown(value, ".2f")


def probability(value: float) -> Cell:
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}", value)


def missing_rows(missing: Iterable[dict], label: str) -> list[list[str]]:
    """A row per command that makes runs which are not there, with their seeds; `label` where an entry names no model."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for entry in missing:
        seeds.setdefault((entry.get("model", label), entry["command"]), []).append(str(entry["seed"]))
    return [[f"{model}, seed {', '.join(found)}", f"missing: {command}"] for (model, command), found in seeds.items()]
