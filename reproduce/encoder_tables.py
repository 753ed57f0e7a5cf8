"""What the conventional models have beside the tables of every comparison: public numbers to hold them against, and their costs."""

from __future__ import annotations

import numpy as np

from reproduce.cells import NONE, Table, number, percent, spread, title
from reproduce.public_numbers import PUBLIC_NUMBERS

PUBLIC_HEADER = ["Model", "Metric", "Public", "Ours", "Difference", "Source"]
PUBLIC_NOTE = (
    "Test metrics at the best validation epoch, seen items masked. Others use mostly d = 64 and length 50, we d = 128 and 30."
)


def encoder_tables(summary: dict) -> list[Table]:
    """Public numbers, where there are some for the data set, and what training took."""
    public = [public_table(summary)] if summary["dataset"] in PUBLIC_NUMBERS else []
    return [*public, cost_table(summary)]


def public_table(summary: dict) -> Table:
    """Our full ranking beside what others have published."""
    measured = {model["name"]: model for model in summary["models"]}
    rows = []
    for name, public in PUBLIC_NUMBERS[summary["dataset"]].items():
        runs = [run["metrics"]["full"] for run in measured[name]["runs"] if "full" in run["metrics"]] if name in measured else []
        ours = [100 * metrics[public.metric] for metrics in runs]
        difference = f"{np.mean(ours) - public.value:+.2f}" if ours else NONE
        label = measured[name]["label"] if name in measured else name
        rows.append([label, public.metric, percent(public.value), spread(ours, 1.0), difference, public.source])
    return Table(title(summary, "beside public numbers, full ranking, percent"), PUBLIC_HEADER, rows, PUBLIC_NOTE)


def cost_table(summary: dict) -> Table:
    """What training each conventional model took."""
    rows = []
    for model in summary["models"]:
        costs = [run["cost"] for run in model["runs"]]
        if costs:
            epochs = ", ".join(f"{cost['epochs']} ({cost['best_epoch']})" for cost in costs)
            seconds, memory = ([cost[name] for cost in costs] for name in ("seconds_per_epoch", "peak_memory_mib"))
            peak = max((round(mib) for mib in memory if mib is not None), default=None)
            rows.append([model["label"], epochs, f"{np.mean(seconds):.1f}", number(peak)])
    note = (
        "Epochs of each seed, in brackets the one that validation chose. Seconds: wall time of an epoch without validation, "
        "the median over epochs, the mean over seeds; runs that shared a machine slow each other down, so these are no comparison "
        "of models (reproduce.efficiency.encoder_costs is). Memory: all that the process held at its peak, libraries included."
    )
    return Table(title(summary, "training"), ["Model", "Epochs", "Seconds an epoch", "Peak memory (MiB)"], rows, note)
