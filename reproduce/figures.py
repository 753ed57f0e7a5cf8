"""The figures of one experiment, drawn from its summary, with the paper's numbers where its text gives them (its curves are
pictures without numbers).

Colours are those of Okabe and Ito, which colour-blind readers can tell apart, and every line has its own marker. The same
summaries give the same bytes with the same matplotlib.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from reproduce.analysis_tables import by_layer
from reproduce.cells import PAPER_DATASETS, SYNTHETIC, TITLES
from reproduce.experiments import MODEL_EXPERIMENTS
from reproduce.model_tables import published_metrics, ranked
from reproduce.statistics import mean_and_deviation

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
BASELINE = "#555555"
CURVE_METRICS = ("HR@10", "NDCG@10", "MRR")
RANKING_NAMES = {"sampled": "sampled", "full": "all items"}
TERMS = {
    "loss": "total",
    "ce": "cross-entropy",
    "cos": "1 − D_cos",
    "norm": "D_norm",
    "ms": "L_ms",
    "teacher_ce": "teacher's cross-entropy",
    "logits": "divergence of logits",
    "attention": "divergence of attention",
    "contrastive": "InfoNCE",
}
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "slmrec",
    "font.sans-serif": ["DejaVu Sans", "Arial"],  # the default names ten fonts at every text
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "legend.frameon": False,
}
NOT_IN_PAPER = "The paper shows this as a picture without numbers, so there is nothing to draw beside ours."


@dataclass(frozen=True)
class Picture:
    """A figure, the end of its file name and what it shows."""

    name: str
    figure: Figure
    caption: str


def save(picture: Picture, stem: Path) -> str:
    """Write `stem`.png and `stem`.svg; returns the SVG."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stream = io.StringIO()
    with matplotlib.rc_context(STYLE):
        picture.figure.savefig(stream, format="svg", metadata={"Date": None})
        picture.figure.savefig(f"{stem}.png", dpi=110, metadata={"Software": None})
    Path(f"{stem}.svg").write_text(stream.getvalue(), encoding="utf-8")
    return stream.getvalue()


def panels(summary: dict, rows: int, columns: int, width: float, height: float, heading: str) -> tuple[Figure, np.ndarray]:
    """A figure of `rows` x `columns` panels, each `width` x `height` inches; its title names synthetic data."""
    figure = Figure(figsize=(width * columns, height * rows + 0.4), layout="constrained")
    mark = f"{SYNTHETIC}: " if summary["synthetic"] else ""
    figure.get_layout_engine().set(w_pad=0.1)
    figure.suptitle(f"{mark}{heading}, {summary['dataset']}", fontsize=10)
    return figure, figure.subplots(rows, columns, squeeze=False)


def points(values: Iterable[list[float]], scale: float = 100.0) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations over seeds, nan where there is one seed: matplotlib then draws no error bar."""
    pairs = [mean_and_deviation([scale * value for value in row]) for row in values]
    return np.array([mean for mean, _ in pairs]), np.array([np.nan if spread is None else spread for _, spread in pairs])


def measured(models: list[dict], ranking: str) -> list[tuple[dict, list[dict]]]:
    """Models with the metrics of their runs under one ranking, those without a run left out."""
    return [(model, ranked(model, ranking)) for model in models if ranked(model, ranking)]


def rankings_of(summary: dict) -> list[str]:
    return [ranking for ranking in RANKING_NAMES if measured(summary["models"], ranking)]


# -- models -------------------------------------------------------------------------------------------------------------------


def mrr_picture(
    summary: dict, draw: Callable[[Axes, np.ndarray, np.ndarray], None], row_height: float, from_zero: bool
) -> Picture:
    """MRR of every model in a row of its own, one panel per ranking; `draw` puts means and deviations into a panel."""
    rankings = rankings_of(summary)
    most = max(len(measured(summary["models"], ranking)) for ranking in rankings)
    figure, axes = panels(summary, 1, len(rankings), 4.2, row_height * most + 0.8, TITLES[summary["experiment"]])
    for panel, ranking in zip(axes[0], rankings, strict=True):
        models = measured(summary["models"], ranking)
        means, deviations = points([run["MRR"] for run in runs] for _, runs in models)
        draw(panel, means, deviations)
        paper = draw_paper(panel, summary, [model for model, _ in models], ranking)
        if from_zero:
            panel.set_xlim(0, 1.2 * max([*(means + np.nan_to_num(deviations)), *paper]))
        else:
            panel.xaxis.set_major_locator(MaxNLocator(3))
        label_rows(panel, [model["label"] for model, _ in models])
        panel.set_xlabel(f"MRR, {RANKING_NAMES[ranking]} (%)")
    start = "" if from_zero else " The axis does not begin at 0."
    caption = f"Test MRR, mean and standard deviation over seeds.{start}{paper_caption(summary)}"
    return Picture(summary["experiment"], figure, caption)


def draw_dots(panel: Axes, means: np.ndarray, deviations: np.ndarray) -> None:
    for height, (mean, deviation) in enumerate(zip(means, deviations, strict=True)):
        panel.errorbar(mean, height, xerr=deviation, fmt="o", color=COLOURS[0], capsize=3)


def draw_bars(panel: Axes, means: np.ndarray, deviations: np.ndarray) -> None:
    """Each with its mean written behind it."""
    panel.barh(np.arange(len(means)), means, xerr=deviations, height=0.6, color=COLOURS[5], capsize=3)
    for height, end in enumerate(means + np.nan_to_num(deviations)):
        panel.annotate(f"{means[height]:.2f}", (end, height), xytext=(4, 0), textcoords="offset points", va="center")


def draw_paper(panel: Axes, summary: dict, models: list[dict], ranking: str) -> list[float]:
    """The paper's MRR of the models in this order as open diamonds, where its tables have them; returns those in percent."""
    if ranking != "sampled" or not has_paper(summary):
        return []
    printed = {height: (published_metrics(summary, model) or {}).get("MRR") for height, model in enumerate(models)}
    shown = {height: value for height, value in printed.items() if value is not None}
    panel.plot(list(shown.values()), list(shown), "D", markerfacecolor="none", color=BASELINE, linestyle="none", zorder=3)
    return list(shown.values())


def has_paper(summary: dict) -> bool:
    return summary["experiment"] in ("main", "ablation") and summary["dataset"] in PAPER_DATASETS


def paper_caption(summary: dict) -> str:
    return " Open diamonds: the paper's numbers, for LLaMA-7B." if has_paper(summary) else ""


def label_rows(panel: Axes, labels: list[str]) -> None:
    """Names of the rows of a horizontal plot, the first on top."""
    panel.set_yticks(range(len(labels)), labels)
    panel.set_ylim(len(labels) - 0.5, -0.5)
    panel.grid(axis="y", visible=False)


def curves(summary: dict, main: dict | None, axis: str, caption: str) -> Picture:
    """Metrics over the number that each model stands for (its x), SASRec of `main` as a line across."""
    rankings = rankings_of(summary)
    figure, axes = panels(summary, len(rankings), len(CURVE_METRICS), 3.0, 2.4, TITLES[summary["experiment"]])
    for row, ranking in zip(axes, rankings, strict=True):
        models = sorted(measured([model for model in summary["models"] if model["x"] is not None], ranking), key=_position)
        positions = [model["x"] for model, _ in models]
        for panel, metric in zip(row, CURVE_METRICS, strict=True):
            means, deviations = points([run[metric] for run in runs] for _, runs in models)
            panel.errorbar(
                positions, means, yerr=deviations, marker="o", color=COLOURS[0], capsize=3, label="a model at each point"
            )
            panel.set_xscale("log", base=2)
            panel.set_xticks(positions, [str(position) for position in positions], fontsize=8)
            panel.xaxis.set_minor_locator(NullLocator())
            draw_baseline(panel, main, ranking, metric)
            panel.set_xlabel(axis)
            panel.set_ylabel(f"{metric}, {RANKING_NAMES[ranking]} (%)")
    shared_legend(figure, axes[0, 0])
    return Picture(summary["experiment"], figure, caption)


def _position(entry: tuple[dict, list[dict]]) -> float:
    return entry[0]["x"]


def draw_baseline(panel: Axes, main: dict | None, ranking: str, metric: str) -> None:
    """SASRec's mean over seeds as a labelled line across, where `main` has it."""
    for model, runs in measured(main["models"] if main else [], ranking):
        if model["name"] == "sasrec":
            (mean,), _ = points([[run[metric] for run in runs]])
            panel.axhline(mean, color=BASELINE, linestyle="--", label=model["label"])


# -- analyses of trained models -----------------------------------------------------------------------------------------------


def layer_curves(summary: dict, main: dict | None) -> Picture:
    """Metrics of each layer's state, with and without the final norm."""
    groups = by_layer(summary)
    rankings = [name for name in RANKING_NAMES if all(name in entry["metrics"] for group in groups.values() for entry in group)]
    figure, axes = panels(summary, len(rankings), len(CURVE_METRICS), 3.0, 2.4, TITLES["depth-infer"])
    lines = sorted({(model, final_norm) for model, _, final_norm in groups})
    for row, ranking in zip(axes, rankings, strict=True):
        for panel, metric in zip(row, CURVE_METRICS, strict=True):
            for (model, final_norm), colour, marker in zip(lines, cycle(COLOURS), cycle(MARKERS), strict=False):
                layers = sorted(layer for name, layer, norm in groups if (name, norm) == (model, final_norm))
                values = ([entry["metrics"][ranking][metric] for entry in groups[model, layer, final_norm]] for layer in layers)
                means, deviations = points(values)
                label = f"{model}, {'after the final norm' if final_norm else 'as it is'}"
                panel.errorbar(layers, means, yerr=deviations, color=colour, marker=marker, capsize=3, label=label)
            draw_baseline(panel, main, ranking, metric)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.set_xlabel("layer that is read")
            panel.set_ylabel(f"{metric}, {RANKING_NAMES[ranking]} (%)")
    shared_legend(figure, axes[0, 0])
    caption = f"Each layer's state read by the trained projection without further training, over seeds. {NOT_IN_PAPER}"
    return Picture("depth-infer", figure, caption)


def shared_legend(figure: Figure, panel: Axes) -> None:
    """One legend below all panels."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), fontsize=8)


def layer_maps(summary: dict) -> Picture:
    """Block influence of each layer and CKA between all of them, means over seeds, one row per model."""
    models = list(dict.fromkeys(run["model"] for run in summary["runs"]))
    figure, axes = panels(summary, len(models), 2, 3.8, 3.0, TITLES["layers"])
    for (left, right), model in zip(axes, models, strict=True):
        runs = [run for run in summary["runs"] if run["model"] == model]
        means, deviations = points(zip(*(run["block_influence"] for run in runs), strict=True), 1.0)
        left.bar(np.arange(1, len(means) + 1), means, yerr=deviations, color=COLOURS[5], capsize=3)
        left.grid(axis="x", visible=False)
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.set(xlabel="layer", ylabel="block influence", title=model)
        similarity = np.mean([np.array(run["cka"], dtype=float) for run in runs], axis=0)  # null is nan
        draw_heat_map(figure, right, similarity)
        right.set_title(model)
    caption = (
        "Left: 1 - mean cosine of each layer's input and output. Right: linear CKA; 0 is the decoder's input, grey is undefined."
    )
    return Picture("layers", figure, caption)


def draw_heat_map(figure: Figure, panel: Axes, similarity: np.ndarray) -> None:
    """CKA [L + 1, L + 1] from 0 to 1, nan in grey."""
    colours = matplotlib.colormaps["viridis"].with_extremes(bad="#CCCCCC")
    image = panel.imshow(similarity, cmap=colours, vmin=0, vmax=1, origin="lower")
    panel.grid(visible=False)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    panel.set(xlabel="layer", ylabel="layer")
    figure.colorbar(image, ax=panel, label="CKA")


def cold_curves(summary: dict) -> Picture:
    """MRR per group for every model: by history length, and by the target's popularity."""
    axis = {"history": "items before the target (users)", "popularity": "actions on the target in training (users)"}
    figure, axes = panels(summary, 1, 2, 4.4, 3.0, TITLES["cold"])
    for panel, (kind, label) in zip(axes[0], axis.items(), strict=True):
        for model, colour, marker in zip(summary["models"], cycle(COLOURS), cycle(MARKERS), strict=False):
            values = [entry["sampled"]["MRR"] for entry in model["groups"][kind]]
            shown = np.array([np.nan if value is None else 100 * value for value in values])
            panel.plot(shown, color=colour, marker=marker, label=model["label"])
        groups = summary["models"][0]["groups"][kind]
        panel.set_xticks(range(len(groups)), [f"{entry['group']}\n({entry['users']:,})" for entry in groups])
        panel.set_xlabel(label)
        panel.set_ylabel("MRR, sampled (%)")
    shared_legend(figure, axes[0, 0])
    return Picture("cold", figure, "Test MRR by group, means over seeds; below each group the number of its users.")


# -- training -----------------------------------------------------------------------------------------------------------------


def stage(model: dict) -> str:
    return model["runs"][0]["provenance"]["stage"]


def training_curves(main: dict) -> Picture:
    """Validation MRR of every run: encoders over epochs, backbones over optimiser steps."""
    trained = [model for model in main["models"] if model["runs"]]
    looks = dict(zip([model["name"] for model in trained], zip(cycle(COLOURS), cycle(MARKERS)), strict=False))
    kinds = {
        "epoch": [m for m in trained if stage(m) == "encoder"],
        "optimiser step": [m for m in trained if stage(m) != "encoder"],
    }
    shown = {axis: models for axis, models in kinds.items() if models}
    figure, axes = panels(main, 1, len(shown), 4.4, 3.0, "Validation MRR during training")
    for panel, (axis, models) in zip(axes[0], shown.items(), strict=True):
        for model in models:
            draw_runs(panel, model, looks[model["name"]], lambda entry: 100 * entry["valid_MRR"])
        panel.set(xlabel=axis, ylabel="validation MRR, sampled (%)")
        panel.legend(fontsize=8)
    return Picture("training-curves", figure, "One line per seed. The checkpoint with the best value is the one that is tested.")


def draw_runs(panel: Axes, model: dict, look: Sequence[str], value: Callable[[dict], float]) -> None:
    """One line per seed over the steps of its history, one name and one look (colour, marker) for all of them."""
    for index, run in enumerate(model["runs"]):
        steps = [entry["step"] for entry in run["history"]]
        label = model["label"] if index == 0 else None
        values = [value(entry) for entry in run["history"]]
        panel.plot(steps, values, color=look[0], marker=look[1], markersize=3, label=label, alpha=0.8)


def terms_of(model: dict) -> list[str]:
    return list(dict.fromkeys(name for run in model["runs"] for entry in run["history"] for name in entry["train"]))


def loss_terms(main: dict) -> Picture | None:
    """Every term of the training loss of the distilled models, a panel per term; None without them."""
    distilled = [model for model in main["models"] if terms_of(model) and stage(model) == "distill"]
    if not distilled:
        return None
    names = list(dict.fromkeys(name for model in distilled for name in terms_of(model)))
    columns = min(3, len(names))
    figure, axes = panels(main, math.ceil(len(names) / columns), columns, 3.0, 2.2, "Terms of the training loss")
    for panel in axes.flat[len(names) :]:
        panel.remove()
    for panel, name in zip(axes.flat, names, strict=False):
        for model, *look in zip(distilled, cycle(COLOURS), cycle(MARKERS), strict=False):
            draw_runs(panel, model, look, lambda entry, name=name: entry["train"].get(name, np.nan))
        panel.set(xlabel="optimiser step", ylabel=TERMS.get(name, name))
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    shared_legend(figure, axes[0, 0])
    return Picture(
        "loss-terms", figure, "Each term before its weight, a mean over the steps since the value before; one line per seed."
    )


def pictures(summary: dict, main: dict | None) -> list[Picture]:
    """The figures of one experiment, none where nothing was measured; `main`: the same data set's main experiment, or None."""
    experiment = summary["experiment"]
    with matplotlib.rc_context(STYLE):
        if experiment in MODEL_EXPERIMENTS:
            return [model_picture(summary, main)] if rankings_of(summary) else []
        drawn = {"depth-infer": lambda: layer_curves(summary, main), "layers": lambda: layer_maps(summary)}
        drawn["cold"] = lambda: cold_curves(summary)
        return [drawn[experiment]()] if experiment in drawn and (summary.get("runs") or summary.get("models")) else []


def model_picture(summary: dict, main: dict | None) -> Picture:
    """The kind of figure that fits a model experiment."""
    over_seeds = "Mean and standard deviation over seeds."
    if summary["experiment"] == "depth-train":
        return curves(summary, main, "decoder layers", f"{over_seeds} {NOT_IN_PAPER}")
    if summary["experiment"] == "blocks":
        return curves(summary, main, "blocks B", f"{over_seeds} {NOT_IN_PAPER}")
    if summary["experiment"] == "ablation":
        return mrr_picture(summary, draw_bars, row_height=0.36, from_zero=True)
    return mrr_picture(summary, draw_dots, row_height=0.32, from_zero=False)


def training_pictures(main: dict) -> list[Picture]:
    """Validation curves and loss terms of the models of a main experiment; nothing before one is trained."""
    if not any(model["runs"] for model in main["models"]):
        return []
    with matplotlib.rc_context(STYLE):
        return [picture for picture in (training_curves(main), loss_terms(main)) if picture]
