"""The tables of an experiment that compares models: metrics of each ranking, ranks, and paired comparisons."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from reproduce import published
from reproduce.cells import NONE, PAPER_DATASETS, Table, missing_rows, number, percent, probability, spread, title
from reproduce.comparison import METRICS, RANKINGS
from reproduce.encoder_tables import encoder_tables
from reproduce.mean_rank import mean_ranks
from reproduce.statistics import mean_and_deviation

PAPER_E4SREC = "E4SRec_32"  # what we call the paper's E4SRec, which has the 32 layers of LLaMA-7B


def model_tables(summary: dict) -> list[Table]:
    """Sampled and full ranking of every model, then the paired comparisons and what training took."""
    found = [name for name in RANKINGS if any(ranked(model, name) for model in summary["models"])]
    tables = [metrics_table(summary, name) for name in found or ["sampled"]]
    tables += [comparison_table(summary)] if summary.get("comparisons") else []
    return tables + (encoder_tables(summary) if summary["experiment"] == "encoders" else [])


def ranked(model: dict, ranking: str) -> list[dict]:
    """The metrics of each run of a model under one ranking."""
    return [run["metrics"][ranking] for run in model["runs"] if ranking in run["metrics"]]


def ranking_title(metrics: dict, ranking: str) -> str:
    """E.g. "ranked among 1 + 999 candidates, percent"."""
    return f"ranked among {RANKINGS[ranking].format(**metrics)}, percent"


def metrics_table(summary: dict, ranking: str) -> Table:
    """Every model under one ranking; the paper ranked sampled candidates only, so its columns stand there alone."""
    measured = {model["name"]: ranked(model, ranking) for model in summary["models"]}
    with_paper = ranking == "sampled" and summary["experiment"] in ("main", "ablation") and summary["dataset"] in PAPER_DATASETS
    ranks = metric_ranks(measured) if summary["experiment"] in ("main", "encoders") else None
    rows = []
    for model in summary["models"]:
        if measured[model["name"]]:
            paper = paper_cells(published_metrics(summary, model)) if with_paper else []
            rank = [] if ranks is None else [f"{ranks[model['name']]:.2f}"]
            rows.append([*model_cells(model, measured[model["name"]]), *paper, *rank])
        rows += missing_rows(model["missing"], model["label"])
    if with_paper and ranks is not None:
        rows += unrepeated_rows(summary["dataset"], {model["label"] for model in summary["models"] if measured[model["name"]]})
    columns = ["Model", *METRICS, "Seeds", "Parameters", *([f"paper {name}" for name in published.METRICS] if with_paper else [])]
    examples = [metrics for runs in measured.values() for metrics in runs]
    detail = ranking_title(examples[0], ranking) if examples else "nothing measured yet"
    header = columns + ([] if ranks is None else ["Rank"])
    return Table(title(summary, detail), header, rows, metrics_note(with_paper, ranks is not None))


def model_cells(model: dict, runs: list[dict]) -> list[str]:
    """Name, metrics, seeds and parameters of a model with at least one run."""
    values = [spread([run[name] for run in runs]) for name in METRICS]
    wanted = len(runs) + len(model["missing"])
    seeds = str(wanted) if len(runs) == wanted else f"{len(runs)} of {wanted}"
    return [model["label"], *values, seeds, number(model["runs"][0]["parameters"])]


def metric_ranks(measured: dict[str, list[dict]]) -> dict[str, float]:
    """Mean rank of each model over the metrics of one table, from means over seeds."""
    means = {name: metric_means(runs, METRICS) for name, runs in measured.items() if runs}
    return mean_ranks(means) if means else {}


def metric_means(runs: list[dict], metrics: Iterable[str]) -> list[float | None]:
    return [mean_and_deviation([run[name] for run in runs])[0] if runs else None for name in metrics]


def metrics_note(with_paper: bool, with_rank: bool) -> str:
    notes = ["Mean ± standard deviation over seeds."]
    notes += ["Rank: mean rank over the metrics of this table, 1 is the best."] * with_rank
    return " ".join(notes + ["Columns named paper: as printed there, for LLaMA-7B."] * with_paper)


def published_metrics(summary: dict, model: dict) -> dict[str, float | None] | None:
    """The paper's row for a model: by its loss terms in the ablation, else by its name; None where the paper has none."""
    dataset = PAPER_DATASETS[summary["dataset"]]
    words = set(re.split("[^a-z]+", model["label"].lower()))
    terms = tuple(term for term in ("cos", "norm", "ms") if term in words)
    if summary["experiment"] == "ablation" and terms in published.TABLE_4_9:
        return published.TABLE_4_9[terms][dataset]
    return published.TABLE_2_3.get(published_name(model["label"]), {}).get(dataset)


def published_name(label: str) -> str:
    """The paper's name of one of our models: its E4SRec without a number has 32 layers."""
    return "E4SRec" if label == PAPER_E4SREC else label


def paper_cells(values: dict[str, float | None] | None) -> list[str]:
    return [percent((values or {}).get(name)) for name in published.METRICS]


def unrepeated_rows(dataset: str, labels: set[str]) -> list[list[str]]:
    """The paper's other methods, which were not run here: dashes on our side."""
    others = published.TABLE_2_3.keys() - {published_name(label) for label in labels}
    ours = [NONE] * (len(METRICS) + 2)
    return [
        [method, *ours, *paper_cells(row[PAPER_DATASETS[dataset]]), NONE]
        for method, row in published.TABLE_2_3.items()
        if method in others
    ]


def comparison_table(summary: dict) -> Table:
    """Paired comparisons over users."""
    labels = {model["name"]: model["label"] for model in summary["models"]}
    rows = [
        [
            f"{labels.get(entry['model'], entry['model'])} against {labels.get(entry['against'], entry['against'])}",
            f"{entry['metric']}, {entry['ranking']}",
            f"{100 * entry['mean_difference']:+.2f}",
            probability(entry["p_value"]),
            *(number(entry[name]) for name in ("better", "equal", "worse")),
            {1: "first", -1: "second", 0: "neither"}[int(np.sign(entry["signed_rank_sum"]))],
            probability(entry["signed_rank_p_value"]),
            number(entry["seeds"]),
        ]
        for entry in summary["comparisons"]
    ]
    header = ["Comparison", "Metric", "Mean difference (points)", "p", "Users better", "equal", "worse"]
    header += ["Signed ranks favour", "p of signed ranks", "Seeds"]
    tests = sorted({entry["test"] for entry in summary["comparisons"]})
    note = (
        f"{'; '.join(tests)}. A p value is for one comparison, not adjusted for their number, and does not speak of other seeds."
    )
    return Table(title(summary, "paired over users"), header, rows, note)


def rank_table(summaries: list[dict]) -> Table | None:
    """Mean rank over the paper's four metrics of every data set that has `main`, as in Tables 2 and 3.

    Synthetic data are left out. None where nothing has been measured.
    """
    real = [summary for summary in summaries if summary["experiment"] == "main" and not summary["synthetic"]]
    labels = list(dict.fromkeys(model["label"] for summary in real for model in summary["models"] if ranked(model, "sampled")))
    if not labels:
        return None
    columns = {label: [value for summary in real for value in _labelled_means(summary, label)] for label in labels}
    ranks = mean_ranks(columns)
    printed = printed_ranks({summary["dataset"] for summary in real})
    rows = [
        [label, f"{ranks[label]:.2f}", *(percent(column.get(published_name(label))) for column in printed.values())]
        for label in sorted(labels, key=ranks.get)
    ]
    note = f"Over {', '.join(published.METRICS)} among sampled candidates of {', '.join(summary['dataset'] for summary in real)}."
    return Table("Mean rank over data sets", ["Model", "Rank", *printed], rows, f"{note} The paper ranked 14 methods.")


def _labelled_means(summary: dict, label: str) -> list[float | None]:
    runs = [metrics for model in summary["models"] if model["label"] == label for metrics in ranked(model, "sampled")]
    return metric_means(runs, published.METRICS)


def printed_ranks(datasets: set[str]) -> dict[str, dict[str, float]]:
    """Column name -> method -> the paper's Rank, for those of its tables that have one of these data sets."""
    columns = {("cloth", "movie"): published.RANK_2, ("music", "sport"): published.RANK_3}
    return {f"paper Rank ({' and '.join(pair)})": ranks for pair, ranks in columns.items() if datasets & set(pair)}
