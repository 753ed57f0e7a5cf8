"""The tables of an experiment that compares models: metrics of each ranking, ranks, paired tests, costs of training."""

from __future__ import annotations

import numpy as np

from reproduce import published
from reproduce.experiments import EXPERIMENTS, paper_rows
from reproduce.statistics import mean_and_deviation, mean_ranks
from reproduce.summary import RANKINGS
from reproduce.table import NONE, SYNTHETIC, Cell, Table, missing_rows, number, percent, probability, shown, spread
from slmrec.evaluation.metrics import METRICS

PAPER_DATASETS = {name.lower(): name for name in published.TABLE_1}  # our names -> the paper's
EPOCHS = {"Epochs": "epochs", "Best epoch": "best_epoch"}


def subject(summary: dict) -> str:
    """What the tables of a summary are about; synthetic data are named so first."""
    mark = f"{SYNTHETIC}: " if summary.get("synthetic") else ""
    where = f", {summary['dataset']}" if "dataset" in summary else ""
    return f"{mark}{EXPERIMENTS[summary['experiment']].title}{where}"


def model_tables(summary: dict) -> list[Table]:
    """Sampled and full ranking of every model, then the paired tests and, of conventional models, what training took."""
    found = [name for name in RANKINGS if any(ranked(model, name) for model in summary["models"])]
    tables = [metrics_table(summary, name) for name in found or ["sampled"]]
    tables += [paired_table(summary)] if summary.get("comparisons") else []
    shows = EXPERIMENTS[summary["experiment"]].shows
    if "public" in shows and summary["dataset"] in published.PUBLIC:
        tables += [public_table(summary)]
    if "training" in shows:
        tables += [cost_table(summary)]
    return tables


def ranked(model: dict, ranking: str) -> list[dict]:
    """The metrics of each run of a model under one ranking."""
    return [run["metrics"][ranking] for run in model["runs"] if ranking in run["metrics"]]


def ranking_title(metrics: dict, ranking: str) -> str:
    """E.g. "ranked among 1 + 999 candidates, percent"."""
    return f"ranked among {RANKINGS[ranking].format(**metrics)}, percent"


def paper_dataset(summary: dict) -> str | None:
    """The paper's name of the data set, which may be that of a run with another backbone (see `reproduce.summarise`)."""
    return PAPER_DATASETS.get(summary.get("data", summary["dataset"]))


def metrics_table(summary: dict, ranking: str) -> Table:
    """Every model under one ranking; the paper ranked sampled candidates only, so its columns stand there alone."""
    measured = {model["name"]: ranked(model, ranking) for model in summary["models"]}
    shows = EXPERIMENTS[summary["experiment"]].shows
    with_paper = ranking == "sampled" and "paper" in shows and paper_dataset(summary) is not None
    ranks = metric_ranks(measured) if "rank" in shows else None
    rows = []
    for model in summary["models"]:
        if measured[model["name"]]:
            paper = paper_cells(published_metrics(summary, model["name"])) if with_paper else []
            rank = [] if ranks is None else [percent(ranks[model["name"]])]
            rows.append([*model_cells(model, measured[model["name"]]), *paper, *rank])
        rows += missing_rows(model["missing"], model["label"])
    if with_paper and "others" in shows:
        rows += unrepeated_rows(summary, [name for name in measured if measured[name]])
    columns = ["Model", *METRICS, "Seeds", "Parameters", *([f"paper {name}" for name in published.METRICS] if with_paper else [])]
    notes = ["Mean ± standard deviation over seeds."]
    notes += ["Rank: mean rank over the metrics of this table, 1 is the best."] * (ranks is not None)
    notes += ["Columns named paper: as printed there, for LLaMA-7B."] * with_paper
    notes += without_rivals(measured)
    examples = [metrics for runs in measured.values() for metrics in runs]
    detail = ranking_title(examples[0], ranking) if examples else "nothing measured yet"
    header = columns + ([] if ranks is None else ["Rank"])
    return Table(subject(summary), detail, header, rows, " ".join(notes), facts={"ranking": ranking}, best=METRICS)


def without_rivals(measured: dict[str, list[dict]]) -> list[str]:
    """A note on the users who are left out of every metric because they have touched the whole catalogue."""
    most = max((metrics.get("users_without_rivals", 0) for runs in measured.values() for metrics in runs), default=0)
    return [f"{most} users have touched every item: nothing to rank their target against, so they are left out."] if most else []


def model_cells(model: dict, runs: list[dict]) -> list[str]:
    """Name, metrics, seeds and parameters of a model with at least one run."""
    values = [spread([run[name] for run in runs]) for name in METRICS]
    wanted = len(runs) + len(model["missing"])
    seeds = Cell(str(wanted) if len(runs) == wanted else f"{len(runs)} of {wanted}", len(runs))
    return [model["label"], *values, seeds, number(model["runs"][0]["parameters"])]


def metric_ranks(measured: dict[str, list[dict]]) -> dict[str, float]:
    """Mean rank of each model over the metrics of one table, from means over seeds."""
    means = {name: metric_means(runs, METRICS) for name, runs in measured.items() if runs}
    return mean_ranks(means) if means else {}


def metric_means(runs: list[dict], metrics: tuple[str, ...]) -> list[float | None]:
    return [mean_and_deviation([run[name] for run in runs])[0] if runs else None for name in metrics]


def published_metrics(summary: dict, name: str) -> dict[str, float | None]:
    """The paper's row for a model of ours, empty where it has none."""
    row = paper_rows(summary["experiment"]).get(name)
    rows = published.TABLE_4_9 if isinstance(row, tuple) else published.TABLE_2_3
    return rows.get(row, {}).get(paper_dataset(summary), {})


def paper_cells(values: dict[str, float | None]) -> list[str]:
    return [percent(values.get(name)) for name in published.METRICS]


def unrepeated_rows(summary: dict, names: list[str]) -> list[list[str]]:
    """The paper's other methods, which were not run here: dashes on our side."""
    repeated = [paper_rows(summary["experiment"]).get(name) for name in names]
    ours = [NONE] * (len(METRICS) + 2)
    return [
        [method, *ours, *paper_cells(row[paper_dataset(summary)]), NONE]
        for method, row in published.TABLE_2_3.items()
        if method not in repeated
    ]


def paired_table(summary: dict) -> Table:
    """Paired tests over users."""
    labels = {model["name"]: model["label"] for model in summary["models"]}

    def compared(entry: dict) -> Cell:
        both = {column: labels.get(entry[key], entry[key]) for column, key in (("Model", "model"), ("Against", "against"))}
        return Cell(" against ".join(both.values()), both)

    rows = [
        [
            compared(entry),
            Cell(f"{entry['metric']}, {entry['ranking']}", {"Metric": entry["metric"], "ranking": entry["ranking"]}),
            shown(100 * entry["mean_difference"], "+.2f"),
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
    tests = "; ".join(sorted({entry["test"] for entry in summary["comparisons"]}))
    note = f"{tests}. A p value is for one comparison, not adjusted for their number, and does not speak of other seeds."
    return Table(subject(summary), "paired over users", header, rows, note, file="paired")


def public_table(summary: dict) -> Table:
    """Our full ranking beside what others have published."""
    measured = {model["name"]: model for model in summary["models"]}
    rows = []
    for name, (metric, value, source) in published.PUBLIC[summary["dataset"]].items():
        if name not in measured and "others" not in EXPERIMENTS[summary["experiment"]].shows:
            continue
        model = measured.get(name, {"label": name, "runs": []})
        ours = [100 * metrics[metric] for metrics in ranked(model, "full")]
        difference = shown(float(np.mean(ours)) - value, "+.2f") if ours else NONE
        rows.append([model["label"], metric, percent(value), spread(ours, 1.0), difference, source])
    for metric, (value, source) in published.HIGHEST.get(summary["dataset"], {}).items():
        label, ours = chosen_on_validation(summary["models"], metric)
        difference = shown(float(np.mean(ours)) - value, "+.2f") if ours else NONE
        rows.append([f"highest found / {label}", metric, percent(value), spread(ours, 1.0), difference, source])
    header = ["Model", "Metric", "Public", "Ours", "Difference", "Source"]
    note = (
        "Test metrics at the best validation epoch, seen items masked. Others use mostly d = 64 and length 50, we d = 128 "
        "and 30. Beside the highest found stands ours with the highest MRR on validation."
    )
    return Table(subject(summary), "beside public numbers, full ranking, percent", header, rows, note, file="public")


def chosen_on_validation(models: list[dict], metric: str) -> tuple[str, list[float]]:
    """Label, and percent of each seed in full ranking, of the model with the highest validation MRR; none where none has run."""

    def validation(model: dict) -> float:
        return float(np.mean([max(point["valid_MRR"] for point in run["history"]) for run in model["runs"]]))

    best = max((model for model in models if ranked(model, "full")), key=validation, default={"label": "ours", "runs": []})
    return best["label"], [100 * metrics[metric] for metrics in ranked(best, "full")]


def cost_table(summary: dict) -> Table:
    """What training each conventional model took."""
    rows = []
    for model in summary["models"]:
        costs = [run["cost"] for run in model["runs"]]
        if costs:
            means = {name: float(np.mean([cost[key] for cost in costs])) for name, key in EPOCHS.items()}
            epochs = Cell(", ".join(f"{cost['epochs']} ({cost['best_epoch']})" for cost in costs), means)
            peak = max((round(cost["peak_memory_mib"]) for cost in costs if cost["peak_memory_mib"] is not None), default=None)
            seconds = float(np.mean([cost["seconds_per_epoch"] for cost in costs]))
            rows.append([model["label"], epochs, shown(seconds, ".1f"), number(peak)])
    note = (
        "Epochs of each seed, in brackets the one that validation chose. Seconds: wall time of an epoch without validation, "
        "the median over epochs, the mean over seeds; runs that shared a machine slow each other down, so these are no "
        "comparison of models (reproduce.efficiency.encoder_costs is). Memory: all that the process held at its peak, "
        "libraries included."
    )
    header = ["Model", "Epochs", "Seconds an epoch", "Peak memory (MiB)"]
    return Table(subject(summary), "training", header, rows, note, file="training")


def rank_table(summaries: list[dict]) -> Table | None:
    """Mean rank over the paper's four metrics of every data set that has `main`, as in Tables 2 and 3.

    Synthetic data are left out. None where nothing has been measured.
    """
    real = [summary for summary in summaries if summary["experiment"] == "main" and not summary["synthetic"]]
    labels = {model["name"]: model["label"] for summary in real for model in summary["models"] if ranked(model, "sampled")}
    if not labels:
        return None
    columns: dict[str, list[float | None]] = {name: [] for name in labels}
    for summary in real:
        runs = {model["name"]: ranked(model, "sampled") for model in summary["models"]}
        for name, column in columns.items():
            column += metric_means(runs.get(name, []), published.METRICS)
    ranks, printed = mean_ranks(columns), printed_ranks({summary["dataset"] for summary in real})
    rows = [
        [labels[name], percent(ranks[name]), *(percent(column.get(paper_rows("main").get(name))) for column in printed.values())]
        for name in sorted(labels, key=ranks.get)
    ]
    note = f"Over {', '.join(published.METRICS)} among sampled candidates of {', '.join(summary['dataset'] for summary in real)}."
    return Table("Mean rank over data sets", "", ["Model", "Rank", *printed], rows, f"{note} The paper ranked 14 methods.")


def printed_ranks(datasets: set[str]) -> dict[str, dict[str, float]]:
    """Column name -> method -> the paper's Rank, for those of its tables that have one of these data sets."""
    columns = {("cloth", "movie"): published.RANK_2, ("music", "sport"): published.RANK_3}
    return {f"paper Rank ({' and '.join(pair)})": ranks for pair, ranks in columns.items() if datasets & set(pair)}
