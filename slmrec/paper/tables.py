"""The tables of one experiment: our numbers from its summary, the paper's beside them in columns of their own.

A summary is the JSON of one experiment on one data set (`slmrec.paper.report` reads and checks it). Metrics are fractions there
and percent here. A number of the paper comes from `slmrec.paper.published` alone and stands in a column whose name begins
with "paper"; only data sets that the paper has get such columns. Numbers with more digits are in the summaries.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass

from slmrec.paper import published
from slmrec.paper.comparison import METRICS, RANKINGS
from slmrec.paper.hyperparameters import Line
from slmrec.paper.mean_rank import mean_ranks
from slmrec.paper.statistics import mean_and_deviation

# Experiment -> what its tables are called, in the order of the report.
TITLES = {
    "stats": "Data sets (Table 1)",
    "main": "Models compared (Tables 2 and 3)",
    "ablation": "Terms of the loss (Tables 4 and 9)",
    "depth-train": "Depth: a model trained at each depth (Figures 2 and 5, d to f)",
    "depth-infer": "Depth: the layers of one trained model (Figures 2 and 5, a to c)",
    "blocks": "Number of blocks B (Figure 4)",
    "online": "Teacher and student trained together (RQ4)",
    "kd-kinds": "Kinds of distillation",
    "teacher-size": "Depth of the teacher",
    "layers": "What each layer changes",
    "cold": "Short histories and rare targets",
    "efficiency": "Efficiency (Tables 5, 7 and 8)",
    "theory": "Propositions 1 and 2 (Section 6)",
}
MODEL_EXPERIMENTS = ("main", "ablation", "depth-train", "blocks", "online", "kd-kinds", "teacher-size")
PAPER_DATASETS = {name.lower(): name for name in published.TABLE_1}  # our names -> the paper's
COLD_METRICS = ("MRR", "HR@10", "NDCG@10")
SYNTHETIC = "SYNTHETIC data"
NONE = "–"
PAPER_E4SREC = "E4SRec_32"  # what we call the paper's E4SRec, which has the 32 layers of LLaMA-7B


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


# -- models -------------------------------------------------------------------------------------------------------------------


def model_tables(summary: dict) -> list[Table]:
    """Sampled and full ranking of every model, then the paired comparisons."""
    found = [name for name in RANKINGS if any(ranked(model, name) for model in summary["models"])]
    tables = [metrics_table(summary, name) for name in found or ["sampled"]]
    return tables + ([comparison_table(summary)] if summary.get("comparisons") else [])


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
    ranks = metric_ranks(measured) if summary["experiment"] == "main" else None
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
    words = set(re.split("[^a-z]+", model["name"].lower()))
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
            *(number(entry[name]) for name in ("better", "equal", "worse", "seeds")),
            probability(entry["p_value"]),
        ]
        for entry in summary["comparisons"]
    ]
    header = ["Comparison", "Metric", "Mean difference (points)", "Users better", "equal", "worse", "Seeds", "p"]
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


# -- analyses of trained models -----------------------------------------------------------------------------------------------


def depth_infer_tables(summary: dict) -> list[Table]:
    """Metrics of each layer's state, for every ranking that was measured."""
    found = [
        name for name in RANKINGS if any(name in entry["metrics"] for entries in by_layer(summary).values() for entry in entries)
    ]
    return [depth_infer_table(summary, ranking) for ranking in found or ["sampled"]]


def by_layer(summary: dict) -> dict[tuple[str, int, bool], list[dict]]:
    """(model, layer, after the final norm) -> the entry of each seed."""
    groups: dict[tuple[str, int, bool], list[dict]] = {}
    for run in summary["runs"]:
        for entry in run["layers"]:
            groups.setdefault((run["model"], entry["layer"], entry["final_norm"]), []).append(entry)
    return groups


def depth_infer_table(summary: dict, ranking: str) -> Table:
    rows, detail = [], "nothing measured yet"
    for (model, layer, final_norm), entries in by_layer(summary).items():
        metrics = [entry["metrics"][ranking] for entry in entries if ranking in entry["metrics"]]
        detail = ranking_title(metrics[0], ranking) if metrics else detail
        values = [spread([seed[name] for seed in metrics]) for name in METRICS]
        rows.append([model, str(layer), "yes" if final_norm else "no", *values, str(len(metrics))])
    rows += missing_rows(summary["missing"], "run")
    note = (
        "Only the last layer was trained for this. The paper does not say whether the final norm is applied: both are measured."
    )
    return Table(title(summary, detail), ["Model", "Layer", "Final norm", *METRICS, "Seeds"], rows, note)


def layers_tables(summary: dict) -> list[Table]:
    """Block influence of each layer, and CKA between what goes into it and what comes out."""
    rows = []
    for model in dict.fromkeys(run["model"] for run in summary["runs"]):
        runs = [run for run in summary["runs"] if run["model"] == model]
        for layer in range(len(runs[0]["block_influence"])):
            influence = [run["block_influence"][layer] for run in runs]
            similar = [run["cka"][layer][layer + 1] for run in runs if run["cka"][layer][layer + 1] is not None]
            rows.append([model, str(layer + 1), spread(influence, 1.0), spread(similar, 1.0), str(len(runs))])
    rows += missing_rows(summary["missing"], "run")
    header = ["Model", "Layer", "Block influence", "CKA of input and output", "Seeds"]
    note = (
        "Block influence: 1 - mean cosine of a layer's input and output at the last position (Men et al. 2024). "
        "CKA: linear, over users (Kornblith et al. 2019)."
    )
    return [Table(title(summary), header, rows, note)]


def cold_tables(summary: dict) -> list[Table]:
    """Metrics by length of the history, and by how often the target occurs in training."""
    kinds = {"history": "items before the target", "popularity": "actions on the target in the training parts"}
    return [cold_table(summary, kind, detail) for kind, detail in kinds.items()]


def cold_table(summary: dict, kind: str, detail: str) -> Table:
    entries = [(model["label"], entry) for model in summary["models"] for entry in model["groups"][kind]]
    found = [name for name in RANKINGS if any(name in entry for _, entry in entries)]
    rows = [
        [label, entry["group"], number(entry["users"])]
        + [percent(_hundredfold(entry.get(ranking, {}).get(name))) for ranking in found for name in COLD_METRICS]
        for label, entry in entries
    ]
    header = ["Model", detail.capitalize(), "Users", *(f"{name}, {ranking}" for ranking in found for name in COLD_METRICS)]
    return Table(title(summary, detail), header, rows + missing_rows(summary["missing"], "run"), "Percent, means over seeds.")


def _hundredfold(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


# -- data sets, efficiency, theory, hyper-parameters --------------------------------------------------------------------------


def stats_table(summaries: list[dict]) -> Table:
    """A row per data set, as Table 1."""
    with_paper = any(summary["dataset"] in PAPER_DATASETS for summary in summaries)
    rows = []
    for summary in summaries:
        stats = summary["stats"]
        name = summary["dataset"] + (f" ({SYNTHETIC})" if summary["synthetic"] else "")
        ours = [number(stats[key]) for key in ("raw_rows", "users", "items", "interactions")]
        shape = [f"{100 * stats['density']:.3f}%", f"{stats['mean_length']:.2f}"]
        rows.append([name, *ours, *shape, *(paper_size(summary["dataset"]) if with_paper else [])])
    header = ["Data set", "Raw rows", "Users", "Items", "Actions", "Density", "Mean length"]
    header += ["paper users", "paper items", "paper ratings", "paper density"] if with_paper else []
    note = (
        "Ours after filtering. The paper's row describes its files before the rating filter, and its density here follows from "
        "its counts. Its Sport row has fewer ratings than users and cannot be right."
    )
    return Table(TITLES["stats"], header, rows, note if with_paper else "After filtering; raw rows are those of the file.")


def paper_size(dataset: str) -> list[str]:
    size = published.TABLE_1.get(PAPER_DATASETS.get(dataset))
    if size is None:
        return [NONE] * 4
    density = size.ratings / (size.users * size.items)
    return [number(size.users), number(size.items), number(size.ratings), f"{100 * density:.4f}%"]


def rules_table(summary: dict) -> Table:
    """What each filter did."""
    stats = summary["stats"]
    names = {**stats["rules"], **stats["dropped"]}
    rows = [[name, stats["rules"].get(name, NONE), number(stats["dropped"].get(name))] for name in names]
    return Table(title(summary, "filters"), ["Filter", "Rule", "Actions dropped"], rows)


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


def theory_tables(summary: dict) -> list[Table]:
    """Largest relative errors of the gradient steps on random attention stacks."""
    sizes, errors = (
        ("layers", "tokens", "width"),
        ("proposition_1_error", "proposition_1_error_printed_step", "proposition_2_error"),
    )
    rows = [[*(str(stack[name]) for name in sizes), *(f"{stack[name]:.1e}" for name in errors)] for stack in summary["stacks"]]
    header = ["Layers", "Tokens", "Width", "Proposition 1, step 1/2", "Proposition 1, step 1 as printed", "Proposition 2"]
    note = (
        "Relative errors in float64. Eq. 14 drops the factor 2 of Eq. 12, so Proposition 1 holds with step size 1/2, not with 1."
    )
    return [Table(title(summary, "relative errors"), header, rows, note)]


def hyperparameter_table(lines: list[Line]) -> Table:
    """Table 6 beside the values of our scripts."""
    datasets = list(lines[0].paper)
    rows = [
        [line.name, *(cell for name in datasets for cell in (line.ours[name], line.paper[name])), ", ".join(line.drift) or "no"]
        for line in lines
    ]
    header = ["Parameter", *(cell for name in datasets for cell in (name, f"paper {name}")), "Differs"]
    note = "Ours as hyperparameters.sh sets them for these data sets. Sport's 9.999 is a misprint: AdamW needs a value below 1."
    return Table("Hyper-parameters (Table 6)", header, rows, note)


def tables(summary: dict) -> list[Table]:
    """All tables of one experiment on one data set."""
    if summary["experiment"] in MODEL_EXPERIMENTS:
        return model_tables(summary)
    builders = {
        "stats": lambda stats: [stats_table([stats]), rules_table(stats)],
        "depth-infer": depth_infer_tables,
        "layers": layers_tables,
        "cold": cold_tables,
        "efficiency": efficiency_tables,
        "theory": theory_tables,
    }
    return builders[summary["experiment"]](summary)
