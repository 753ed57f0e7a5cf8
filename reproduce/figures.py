"""The figures of one experiment, drawn from its summary, with the paper's numbers where its text gives them (its curves are
pictures without numbers). No figure is drawn of a single number.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart, and every line has its own marker. The same
summaries give the same bytes with the same matplotlib.
"""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from reproduce.experiments import EXPERIMENTS
from reproduce.model_tables import paper_dataset, published_metrics, ranked
from reproduce.statistics import mean_and_deviation
from reproduce.summary import GROUP_METRICS
from reproduce.table import SYNTHETIC
from reproduce.tables import GROUPINGS, by_layer

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
LOOKS = list(zip(COLOURS, "os^DvPX*", strict=True))  # colour and marker
GREY = "#808080"
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
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "legend.frameon": False,
}
OUTLIER = 4  # times the median difference: a longer bar ends at the edge, with its number


@dataclass(frozen=True)
class Picture:
    """A figure, the end of its file name and what it shows."""

    name: str
    figure: Figure
    caption: str


def save(picture: Picture, stem: Path) -> str:
    """Write `stem`.png and `stem`.svg; returns the SVG without a background."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stream = io.StringIO()
    for panel in picture.figure.axes:
        panel.tick_params(grid_clip_on=False)  # a grid ends where the panel does; a clip for each line would be most of the file
    with matplotlib.rc_context(STYLE):
        picture.figure.savefig(f"{stem}.png", dpi=110, metadata={"Software": None})
        picture.figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    Path(f"{stem}.svg").write_text(stream.getvalue(), encoding="utf-8")
    return stream.getvalue()


def inline_svg(svg: str, name: str, description: str) -> str:
    """A figure for the page, far smaller: styles as classes, short names, no bare groups, coordinates to a tenth of a point.

    Black becomes the colour of the page's text, and names that are used become the figure's own.
    """
    svg = re.sub("<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub("<[^>]+>", lambda tag: re.sub(r"\.0\b|(\.\d)\d+\b", _tenth, tag[0]), re.sub(r"\s*\n\s*", " ", svg))
    svg = re.sub(r' transform="rotate\(-0[^"]*"', "", svg.replace("#000000", "currentColor").replace("xlink:href", "href"))
    prefix, used = f"f{_short(name)}-", dict.fromkeys(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    short = {name: f"{prefix}{number}" for number, name in enumerate(used)}
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{short[found[1]]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(href="#|url\(#)([^")]+)', lambda found: found[1] + short[found[2]], svg)
    classes = {style: f"s{_short(style)}" for style in re.findall(r'style="([^"]+)"', svg)}
    svg = re.sub(r'style="([^"]+)"', lambda found: f'class="{classes[found[1]]}"', svg)
    css = "".join(f".{name}{{{style}}}" for style, name in classes.items()).replace(
        "'DejaVu Sans', 'Arial', sans-serif", "inherit"
    )
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1).replace("</svg>", f"<style>{css}</style></svg>")
    svg = re.sub(' d="([^"]*)"', _tight, svg)
    svg = re.sub("> <|<defs> ?</defs>|<g/>", lambda found: "><" * (found[0] == "> <"), svg.strip())
    return _clipped_together(_without_bare_groups(svg))


def _tight(path: re.Match) -> str:
    """A path without the spaces beside its letters, which no reader needs."""
    commands = re.sub(" ?([A-Za-z]) ", r"\1", path[1])
    return f' d="{commands.strip()}"'


def _tenth(decimals: re.Match) -> str:
    return (decimals[1] or "").removesuffix(".0")


def _short(text: str) -> str:
    """Five letters that stand for a text; a page has thousands of them, of a hundred texts."""
    return f"{zlib.crc32(text.encode()) & 0xFFFFF:05x}"


def _without_bare_groups(svg: str) -> str:
    """Groups that have no attribute change nothing of what is inside them."""
    groups: list[bool] = []  # those that are open: whether each is bare

    def kept(tag: re.Match) -> str:
        if tag[0] != "</g>":
            groups.append(tag[0] == "<g>")
            return "" if groups[-1] else tag[0]
        return "" if groups.pop() else tag[0]

    return re.sub("<g>|<g [^>]*[^/>]>|</g>", kept, svg)


def _clipped_together(svg: str) -> str:
    """Neighbours that are clipped alike become a group that is."""
    clip = r'<path (?:(?!transform=)[^<>])*?clip-path="{}"(?:(?!transform=)[^<>])*/>'
    run = re.compile(clip.format('([^"]+)') + f"(?:{clip.format(chr(92) + '1')})+")
    return run.sub(lambda found: f'<g clip-path="{found[1]}">' + found[0].replace(f' clip-path="{found[1]}"', "") + "</g>", svg)


def panels(summary: dict, rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A figure of `rows` x `columns` panels, each `width` x `height` inches; synthetic data are named on top."""
    figure = Figure(figsize=(width * columns, height * rows + 0.4), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1)
    if summary["synthetic"]:
        figure.suptitle(f"{SYNTHETIC}: {summary['dataset']}", fontsize=10)
    return figure, figure.subplots(rows, columns, squeeze=False)


def points(values: Iterable[list[float]], scale: float = 100.0) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations over seeds, nan where there is one seed: matplotlib then draws no error bar."""
    pairs = [mean_and_deviation([scale * value for value in row]) for row in values]
    return np.array([mean for mean, _ in pairs]), np.array([np.nan if spread is None else spread for _, spread in pairs])


def measured(models: list[dict], ranking: str) -> list[tuple[dict, list[dict]]]:
    """Models with the metrics of their runs under one ranking, those without a run left out."""
    return [(model, ranked(model, ranking)) for model in models if ranked(model, ranking)]


def shared_legend(figure: Figure, panel: Axes) -> None:
    """One legend below all panels."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), fontsize=8)


# -- models -------------------------------------------------------------------------------------------------------------------


def model_picture(summary: dict, main: dict | None) -> Picture | None:
    """Curves where the models stand for numbers, else their differences to one of them; None below two models."""
    if axis := EXPERIMENTS[summary["experiment"]].axis:
        return curves(summary, main, axis)
    found = {ranking: differences(summary, ranking) for ranking in RANKING_NAMES}
    found = {ranking: pair for ranking, pair in found.items() if pair[1]}
    if not found:
        return None
    most = max(len(others) for _, others in found.values())
    figure, axes = panels(summary, 1, len(found), 4.6, 0.27 * most + 1.2)
    with_paper = False
    for panel, (ranking, (reference, others)) in zip(axes[0], found.items(), strict=True):
        means, deviations = points(values for _, values in others)
        draw_bars(panel, means, deviations)
        panel.set_yticks(range(len(others)), [model["label"] for model, _ in others])
        panel.set_ylim(len(others) - 0.5, -0.5)
        panel.grid(axis="y", visible=False)
        mean = 100 * np.mean([run["MRR"] for run in ranked(reference, ranking)])
        panel.set_title(f"{RANKING_NAMES[ranking]}, minus {reference['label']}'s {mean:.2f}", fontsize=9, loc="right")
        panel.set_xlabel("difference in MRR (points)")
        with_paper |= ranking == "sampled" and draw_paper(panel, summary, reference, [model for model, _ in others])
    paper = " Open diamonds: the same differences in the paper, for LLaMA-7B." if with_paper else ""
    caption = f"Difference in test MRR, seed by seed: mean and standard deviation over seeds.{paper}"
    return Picture(summary["experiment"], figure, caption)


def differences(summary: dict, ranking: str) -> tuple[dict, list[tuple[dict, list[float]]]]:
    """The experiment's reference, and every other model with its MRR minus the reference's for each seed that both have."""
    models = [model for model, _ in measured(summary["models"], ranking)]
    wanted = EXPERIMENTS[summary["experiment"]].reference
    reference = next((model for model in models if model["name"] == wanted), models[0] if models else {"runs": []})
    own = {run["seed"]: run["metrics"][ranking]["MRR"] for run in reference["runs"] if ranking in run["metrics"]}
    others = [
        (model, [run["metrics"][ranking]["MRR"] - own[run["seed"]] for run in runs if run["seed"] in own])
        for model, runs in ((m, [run for run in m["runs"] if ranking in run["metrics"]]) for m in models)
        if model is not reference
    ]
    return reference, [(model, values) for model, values in others if values]


def draw_bars(panel: Axes, means: np.ndarray, deviations: np.ndarray) -> None:
    """Bars from zero, gains and losses in their own colours, with their numbers in a column beside the panel."""
    ends = np.abs(means) + np.nan_to_num(deviations)
    limit = 1.1 * min(ends.max(), OUTLIER * max(np.median(ends), 1e-3))
    colours = [COLOURS[int(mean < 0)] for mean in means]
    panel.barh(np.arange(len(means)), means, xerr=deviations, height=0.6, color=colours, capsize=3)
    panel.axvline(0, color="#000000", linewidth=0.8)
    for height, (mean, deviation) in enumerate(zip(means, deviations, strict=True)):
        text = f"{mean:+.2f}" + ("" if np.isnan(deviation) else f" ± {deviation:.2f}")
        panel.annotate(text, (1.02, height), xycoords=panel.get_yaxis_transform(), va="center", annotation_clip=False)
    low, high = (means - np.nan_to_num(deviations)).min(), (means + np.nan_to_num(deviations)).max()
    panel.set_xlim(max(-limit, 1.1 * min(low, -0.1 * limit)), min(limit, 1.1 * max(high, 0.1 * limit)))
    panel.xaxis.set_major_locator(MaxNLocator(4))


def draw_paper(panel: Axes, summary: dict, reference: dict, models: list[dict]) -> bool:
    """The paper's differences of the models in this order as open diamonds; whether it has any."""
    if "paper" not in EXPERIMENTS[summary["experiment"]].shows or paper_dataset(summary) is None:
        return False
    base, *printed = (published_metrics(summary, model["name"]).get("MRR") for model in (reference, *models))
    shown = {height: value - base for height, value in enumerate(printed) if None not in (value, base)}
    panel.plot(list(shown.values()), list(shown), "D", markerfacecolor="none", color=GREY, linestyle="none", zorder=3)
    low, high = panel.get_xlim()
    ends = [1.1 * value for value in shown.values()]
    panel.set_xlim(min([low, *ends]), max([high, *ends]))
    return bool(shown)


def metric_grid(
    summary: dict, main: dict | None, rankings: list[str], axis: str, draw: Callable[[Axes, str, str], None]
) -> Figure:
    """A panel per ranking (down) and metric (across), in which `draw` draws and SASRec of `main` is a line across."""
    figure, axes = panels(summary, len(rankings), len(GROUP_METRICS), 3.0, 2.2)
    for row, ranking in zip(axes, rankings, strict=True):
        for panel, metric in zip(row, GROUP_METRICS, strict=True):
            draw(panel, ranking, metric)
            draw_baseline(panel, main, ranking, metric)
            panel.set(xlabel=axis, ylabel=f"{metric}, {RANKING_NAMES[ranking]} (%)")
    shared_legend(figure, axes[0, 0])
    return figure


def curves(summary: dict, main: dict | None, axis: str) -> Picture | None:
    """Metrics over the number that each model stands for (its x); None below two models."""
    models = sorted((model for model in summary["models"] if model["x"] is not None), key=lambda model: model["x"])
    rankings = [name for name in RANKING_NAMES if len(measured(models, name)) > 1]
    if not rankings:
        return None

    def draw(panel: Axes, ranking: str, metric: str) -> None:
        shown = measured(models, ranking)
        positions = [model["x"] for model, _ in shown]
        values = points([run[metric] for run in runs] for _, runs in shown)
        panel.errorbar(positions, *values, marker="o", color=COLOURS[0], capsize=3, label="a model at each point")
        panel.set_xscale("log", base=2)
        panel.set_xticks(positions, [f"{position:g}" for position in positions], fontsize=8)
        for label, (low, high) in zip(panel.get_xticklabels()[1:], pairwise(positions), strict=True):
            if high < 1.5 * low:  # else 24 and 30 run into each other
                label.set_horizontalalignment("left")
        panel.xaxis.set_minor_locator(NullLocator())

    figure = metric_grid(summary, main, rankings, axis, draw)
    return Picture(summary["experiment"], figure, "Mean and standard deviation over seeds. The paper's curves have no numbers.")


def draw_baseline(panel: Axes, main: dict | None, ranking: str, metric: str) -> None:
    """SASRec's mean over seeds as a labelled line across, where `main` has it."""
    for model, runs in measured(main["models"] if main else [], ranking):
        if model["name"] == "sasrec":
            (mean,), _ = points([[run[metric] for run in runs]])
            panel.axhline(mean, color=GREY, linestyle="--", label=model["label"])


# -- trained models -----------------------------------------------------------------------------------------------------------


def layer_curves(summary: dict, main: dict | None) -> Picture:
    """Metrics of each layer's state, with and without the final norm."""
    groups = by_layer(summary)
    rankings = [name for name in RANKING_NAMES if all(name in metrics for seeds in groups.values() for metrics in seeds)]
    lines = sorted({(model, final_norm) for model, _, final_norm in groups})

    def draw(panel: Axes, ranking: str, metric: str) -> None:
        for (model, final_norm), (colour, marker) in zip(lines, cycle(LOOKS), strict=False):
            layers = sorted(layer for name, layer, norm in groups if (name, norm) == (model, final_norm))
            seeds = ([seed[ranking][metric] for seed in groups[model, layer, final_norm]] for layer in layers)
            label = f"{model}, {'after the final norm' if final_norm else 'as it is'}"
            panel.errorbar(layers, *points(seeds), color=colour, marker=marker, capsize=3, label=label)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))

    figure = metric_grid(summary, main, rankings, "layer that is read", draw)
    caption = "Each layer's state read by the trained projection without further training, over seeds."
    return Picture("depth-infer", figure, f"{caption} The paper's curves have no numbers.")


def layer_maps(summary: dict, _main: dict | None) -> Picture:
    """Block influence of each layer and CKA between all of them, means over seeds, one row per model."""
    models = list(dict.fromkeys(run["model"] for run in summary["runs"]))
    figure, axes = panels(summary, len(models), 2, 3.8, 3.0)
    for (left, right), model in zip(axes, models, strict=True):
        runs = [run for run in summary["runs"] if run["model"] == model]
        means, deviations = points(zip(*(run["block_influence"] for run in runs), strict=True), 1.0)
        left.bar(np.arange(1, len(means) + 1), means, yerr=deviations, color=COLOURS[5], capsize=3)
        left.grid(axis="x", visible=False)
        left.set(xlabel="layer", ylabel="block influence", title=model)
        similarity = np.mean([np.array(run["cka"], dtype=float) for run in runs], axis=0)  # null is nan
        colours = matplotlib.colormaps["viridis"].with_extremes(bad="#CCCCCC")
        places = np.arange(len(similarity))
        image = right.pcolormesh(places, places, np.ma.masked_invalid(similarity), cmap=colours, vmin=0, vmax=1, rasterized=True)
        right.grid(visible=False)
        right.set(xlabel="layer", ylabel="layer", title=model)
        figure.colorbar(image, ax=right, label="CKA")
        for axis in (left.xaxis, right.xaxis, right.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
    caption = (
        "Left: 1 - mean cosine of each layer's input and output. Right: linear CKA; 0 is the decoder's input, grey is undefined."
    )
    return Picture("layers", figure, caption)


def cold_curves(summary: dict, _main: dict | None) -> Picture:
    """MRR per group for every model: by history length, and by the target's popularity."""
    figure, axes = panels(summary, 1, 2, 4.4, 3.0)
    for panel, (kind, label) in zip(axes[0], GROUPINGS.items(), strict=True):
        for model, (colour, marker) in zip(summary["models"], cycle(LOOKS), strict=False):
            values = [entry["sampled"]["MRR"] for entry in model["groups"][kind]]
            shown = np.array([np.nan if value is None else 100 * value for value in values])
            panel.plot(shown, color=colour, marker=marker, label=model["label"])
        groups = summary["models"][0]["groups"][kind]
        panel.set_xticks(range(len(groups)), [f"{entry['group']}\n({entry['users']:,})" for entry in groups])
        panel.set(xlabel=f"{label} (users)", ylabel="MRR, sampled (%)")
    shared_legend(figure, axes[0, 0])
    return Picture("cold", figure, "Test MRR by group, means over seeds; below each group the number of its users.")


# -- training -----------------------------------------------------------------------------------------------------------------


def stage(model: dict) -> str:
    return model["runs"][0]["provenance"]["stage"]


def training_curves(main: dict) -> Picture:
    """Validation MRR of every run: conventional models over epochs, E-LLMRecs over optimiser steps."""
    looked = [(model, look) for model, look in zip([m for m in main["models"] if m["runs"]], cycle(LOOKS), strict=False)]
    kinds = {
        "epoch": [pair for pair in looked if stage(pair[0]) == "encoder"],
        "optimiser step": [pair for pair in looked if stage(pair[0]) != "encoder"],
    }
    kinds = {axis: models for axis, models in kinds.items() if models}
    figure, axes = panels(main, 1, len(kinds), 4.4, 3.0)
    for panel, (axis, models) in zip(axes[0], kinds.items(), strict=True):
        for model, look in models:
            draw_runs(panel, model, look, lambda entry: 100 * entry["valid_MRR"])
        panel.set(xlabel=axis, ylabel="validation MRR, sampled (%)")
        panel.legend(fontsize=8)
    return Picture("training-curves", figure, "One line per seed. The checkpoint with the best value is the one that is tested.")


def draw_runs(panel: Axes, model: dict, look: tuple[str, str], value: Callable[[dict], float]) -> None:
    """One line per seed over the steps of its history, one name and one look (colour, marker) for all of them."""
    for index, run in enumerate(model["runs"]):
        steps = [entry["step"] for entry in run["history"]]
        label = model["label"] if index == 0 else None
        values = [value(entry) for entry in run["history"]]
        panel.plot(steps, values, color=look[0], marker=look[1], markersize=3, label=label, alpha=0.8)


def loss_terms(main: dict) -> Picture | None:
    """Every term of the training loss of the distilled models, a panel per term; None without them."""
    distilled = [model for model in main["models"] if model["runs"] and stage(model) == "distill"]
    histories = [entry["train"] for model in distilled for run in model["runs"] for entry in run["history"]]
    names = list(dict.fromkeys(name for train in histories for name in train))
    if not names:
        return None
    columns = min(3, len(names))
    figure, axes = panels(main, math.ceil(len(names) / columns), columns, 3.0, 2.2)
    for panel in axes.flat[len(names) :]:
        panel.remove()
    for panel, name in zip(axes.flat, names, strict=False):
        for model, look in zip(distilled, cycle(LOOKS), strict=False):
            draw_runs(panel, model, look, lambda entry, name=name: entry["train"].get(name, np.nan))
        panel.set(xlabel="optimiser step", ylabel=TERMS.get(name, name))
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    shared_legend(figure, axes[0, 0])
    caption = "Each term before its weight, a mean over the steps since the value before; one line per seed."
    return Picture("loss-terms", figure, caption)


KINDS = {"models": model_picture, "depth-infer": layer_curves, "layers": layer_maps, "cold": cold_curves}


def pictures(summary: dict, main: dict | None) -> list[Picture]:
    """The figures of one experiment, none of a single number; `main`: the same data set's main experiment, or None."""
    draw = KINDS.get(EXPERIMENTS[summary["experiment"]].kind)
    with matplotlib.rc_context(STYLE):
        picture = draw(summary, main) if draw and (summary.get("runs") or summary.get("models")) else None
        return [picture] if picture else []


def training_pictures(main: dict) -> list[Picture]:
    """Validation curves and loss terms of the models of a main experiment; nothing before one is trained."""
    if not any(model["runs"] for model in main["models"]):
        return []
    with matplotlib.rc_context(STYLE):
        return [picture for picture in (training_curves(main), loss_terms(main)) if picture]
