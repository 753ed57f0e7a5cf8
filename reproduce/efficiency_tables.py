"""The tables of the benchmark: speed, memory, parameters, and the hours of Tables 5, 7 and 8 beside the paper's."""

from __future__ import annotations

import re

from reproduce import published
from reproduce.cells import Table, number, printed, title
from reproduce.model_tables import published_name


def efficiency_tables(summary: dict) -> list[Table]:
    """What the benchmark measured: speed-ups, memory, parameters, and the hours of Tables 5, 7 and 8."""
    benchmark = summary["benchmark"]
    builders = {"encoding": speed_table, "memory_mib": memory_table, "parameters": parameter_table}
    found = [build(summary) for part, build in builders.items() if part in benchmark]
    return found + (hours_tables(summary) if "tables" in benchmark else [])


def speed_table(summary: dict) -> Table:
    """Seconds of two sides that ran in turns, and what their arithmetic predicts."""
    benchmark = summary["benchmark"]
    entries = [(mode, benchmark["encoding"][mode]) for mode in ("forward", "train")]
    models = benchmark.get("models", {})
    entries += [(mode, entry) for mode in ("forward", "train") for entry in models.get(mode, {}).values()]
    rows = []
    for mode, entry in entries:
        (slow, slow_seconds), (fast, fast_seconds) = entry["seconds"].items()
        speed = [f"{entry['speedup']:.2f}", f"{entry['predicted']:.2f}"]
        rows.append([mode, slow, number(slow_seconds), fast, number(fast_seconds), *speed])
    header = ["Pass", "Side", "Seconds per batch", "Other side", "Seconds per batch", "Speed-up", "Predicted"]
    note = f"Predicted: ratio of the arithmetic. Measured on {benchmark['environment']['device']}, {benchmark['lengths']}."
    return Table(title(summary, "speed"), header, rows, note)


def memory_table(summary: dict) -> Table:
    memory = summary["benchmark"]["memory_mib"]
    rows = [[name, f"{entry['peak']:,.1f}", f"{entry['step']:,.1f}"] for name, entry in memory.items()]
    return Table(title(summary, "memory"), ["Step", "Peak (MiB)", "Added by the step (MiB)"], rows)


def parameter_table(summary: dict) -> Table:
    counts = summary["benchmark"]["parameters"]
    rows = [[name, number(entry["parameters"]), number(entry["trained_parameters"])] for name, entry in counts.items()]
    return Table(title(summary, "parameters"), ["Model", "Parameters", "Trained"], rows)


def hours_tables(summary: dict) -> list[Table]:
    """Tables 5, 7 and 8: ours extrapolated to the paper's data sets, the paper's printed."""
    five, seven, eight = (_ours(summary, f"Table {index}") for index in (5, 7, 8))
    detailed, printed = (
        {f"{m}, {d}": hours for m, row in table.items() for d, hours in row.items()} for table in (seven, published.TABLE_7)
    )
    hours = ["training hours per epoch", "inference hours"]
    parameters = ["trained parameters (billions)", "parameters at inference (billions)"]
    return [
        beside_paper(title(summary, "means over the paper's data sets (Table 5)"), five, published.TABLE_5, hours + parameters),
        beside_paper(title(summary, "each of the paper's data sets (Table 7)"), detailed, printed, hours),
        beside_paper(
            title(summary, "inference (Table 8)"), eight, {name: row[:1] for name, row in published.TABLE_8.items()}, hours[1:]
        ),
    ]


def _ours(summary: dict, name: str) -> dict:
    """The benchmark's side of one of its tables; the other side is the paper's."""
    (found,) = (table for key, table in summary["benchmark"]["tables"][name].items() if key.startswith("ours"))
    return found


def beside_paper(name: str, ours: dict, paper: dict, columns: list[str]) -> Table:
    """Methods with our numbers and, where the paper has the method, its own; the paper's other methods follow."""
    matched = {method: published_method(method) for method in ours}
    dashes = [None] * len(columns)
    pairs = [(method, values, paper.get(matched[method], dashes)) for method, values in ours.items()]
    pairs += [(method, dashes, values) for method, values in paper.items() if method not in matched.values()]
    rows = [[method, *map(number, measured), *map(printed, theirs)] for method, measured, theirs in pairs]
    note = (
        "Ours: seconds per row on this machine, extrapolated to the users, items and mean lengths of Table 1. "
        "Paper: one A100 and LLaMA-7B, so ratios between methods can be compared, hours cannot. Its E4SRec has 32 layers."
    )
    header = ["Method", *columns, *(f"paper {column}" for column in columns)]
    return Table(name, header, rows, note)


def published_method(method: str) -> str:
    """The paper's name of a benchmarked method: without the encoding, e.g. "SLMRec_4<-8 exact, Cloth" is "SLMRec_4<-8, Cloth"."""
    name, comma, dataset = re.sub(" (reference|exact)", "", method).partition(", ")
    return published_name(name) + comma + dataset
