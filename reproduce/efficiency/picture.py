"""The picture behind exact encoding: how many tokens each row of a batch costs, reference against exact."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from reproduce.efficiency.work import RowShape

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"prompt before the items": "#9aa5b1", "padding": "#e3e7eb", "real items": "#1f77b4", "closing prompt": "#5c6b7a"}


def plot_tokens(lengths: np.ndarray, shape: RowShape, file: str | Path) -> None:
    """Stack each row's tokens by kind, rows sorted by history length [B]; writes a PNG."""
    lengths = np.sort(lengths)[::-1]
    rows, ones = np.arange(len(lengths)), np.ones(len(lengths))
    reference = [shape.before * ones, shape.max_length - lengths, lengths, shape.after * ones]
    exact = [shape.before / len(lengths) * ones, 0 * ones, lengths, shape.after * ones]
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
    for panel, name, parts in zip(panels, ("reference", "exact"), (reference, exact), strict=True):
        panel.stackplot(rows, *parts, labels=list(COLOURS), colors=list(COLOURS.values()), step="mid", linewidth=0)
        panel.set_title(f"{name}: {sum(parts).mean():.1f} tokens per row")
        panel.set_xlabel(f"the {len(rows)} rows of one batch")
        panel.set_xlim(0, len(rows) - 1)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("tokens")
    handles, labels = panels[0].get_legend_handles_labels()
    panels[1].legend(handles[::-1], labels[::-1], loc="upper right", frameon=False)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=90)
    plt.close(figure)
