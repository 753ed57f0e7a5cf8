"""The tables of each kind of experiment from its summary; those that compare models stand in `reproduce.model_tables`."""

from __future__ import annotations

from reproduce import published
from reproduce.efficiency_tables import efficiency_tables
from reproduce.experiments import EXPERIMENTS
from reproduce.hyperparameters import Line
from reproduce.model_tables import model_tables, paper_dataset, ranking_title, subject
from reproduce.regimes import SEARCHED
from reproduce.summary import GROUP_METRICS, RANKINGS
from reproduce.table import NONE, SYNTHETIC, Cell, Table, missing_rows, number, percent, probability, shown, spread
from slmrec.evaluation.metrics import METRICS

BEST = "Best validation MRR"
GROUPINGS = {"history": "items before the target", "popularity": "actions on the target in the training parts"}


def tables(summary: dict) -> list[Table]:
    """All tables of one experiment on one data set."""
    return BUILDERS[EXPERIMENTS[summary["experiment"]].kind](summary)


# -- data sets and settings ---------------------------------------------------------------------------------------------------


def stats_table(summaries: list[dict]) -> Table:
    """A row per data set, as Table 1."""
    with_paper = any(paper_dataset(summary) for summary in summaries)
    rows = []
    for summary in summaries:
        stats = summary["stats"]
        name = summary["dataset"] + (f" ({SYNTHETIC})" if summary["synthetic"] else "")
        ours = [number(stats.get(key)) for key in ("raw_users", "raw_items", "raw_rows", "users", "items", "interactions")]
        shape = [density(stats["density"], 3), percent(stats["mean_length"])]
        rows.append([name, *ours, *shape, *(paper_size(paper_dataset(summary)) if with_paper else [])])
    header = ["Data set", "Raw users", "Raw items", "Raw rows", "Users", "Items", "Actions", "Density", "Mean length"]
    header += ["paper users", "paper items", "paper ratings", "paper density"] if with_paper else []
    note = (
        "Raw counts are those of the file, our others are after filtering. The paper's row describes its files before the "
        "rating filter, and its density here follows from "
        "its counts. Its Sport row has fewer ratings than users and cannot be right."
        if with_paper
        else "Raw counts are those of the file, the others are after filtering."
    )
    return Table(EXPERIMENTS["stats"].title, "", header, rows, note)


def density(share: float, decimals: int) -> Cell:
    return Cell(f"{100 * share:.{decimals}f}%", share)


def paper_size(dataset: str | None) -> list[str]:
    if dataset is None:
        return [NONE] * 4
    size = published.TABLE_1[dataset]
    return [number(size.users), number(size.items), number(size.ratings), density(size.ratings / (size.users * size.items), 4)]


def rules_table(summary: dict) -> Table:
    """What each filter did."""
    rules, dropped = summary["stats"]["rules"], summary["stats"]["dropped"]
    rows = [[name, rules.get(name, NONE), number(dropped.get(name))] for name in {**rules, **dropped}]
    return Table(subject(summary), "filters", ["Filter", "Rule", "Actions dropped"], rows, file="filters")


def hyperparameter_table(lines: list[Line]) -> Table:
    """Table 6 beside the values of our scripts."""
    datasets = list(lines[0].paper)
    rows = [
        [line.name, *(cell for name in datasets for cell in (line.ours[name], line.paper[name])), ", ".join(line.drift) or "no"]
        for line in lines
    ]
    header = ["Parameter", *(cell for name in datasets for cell in (name, f"paper {name}")), "Differs"]
    note = "Ours as hyperparameters.sh sets them for these data sets. Sport's 9.999 is a misprint: AdamW needs a value below 1."
    return Table(EXPERIMENTS["hyper-parameters"].title, "", header, rows, note)


def regime_tables(summary: dict) -> list[Table]:
    """Every setting that was tried, best first, with only what the settings differ in; a table a stage."""
    stages: dict[str, list[dict]] = {}
    for entry in summary["settings"]:
        stages.setdefault(entry["stage"], []).append(entry)
    note = "Validation MRR in percent, among sampled candidates; the test split was not looked at to choose a setting."
    return [
        Table(
            subject(summary),
            SEARCHED[stage],
            *regime_rows(entries, "epoch" if stage == "encoder" else "step"),
            note,
            file="" if stage == "finetune" else stage,
            best=(BEST,),
        )
        for stage, entries in stages.items()
    ]


def said(value: object) -> str:
    """A setting's value in a table."""
    return NONE if value is None else " ".join(value) if isinstance(value, list) else str(value)


def regime_rows(entries: list[dict], unit: str) -> tuple[list[str], list[list]]:
    """Header and rows of one stage's settings."""
    names = list(entries[0]["setting"])
    rows = [
        [
            *(said(entry["setting"][name]) for name in names),
            *(percent(100 * entry[name]) for name in ("best_valid_MRR", "last_valid_MRR")),
            Cell(f"{entry['best_step']} of {entry['steps']}", entry["best_step"]),
            shown(entry["train_seconds"], ".0f"),
        ]
        for entry in entries
    ]
    return [*names, BEST, "Last", f"Best {unit}", "Seconds"], rows


# -- trained models -----------------------------------------------------------------------------------------------------------


def by_layer(summary: dict) -> dict[tuple[str, int, bool], list[dict]]:
    """(model, layer, after the final norm) -> the metrics of each seed."""
    groups: dict[tuple[str, int, bool], list[dict]] = {}
    for run in summary["runs"]:
        for entry in run["layers"]:
            groups.setdefault((run["model"], entry["layer"], entry["final_norm"]), []).append(entry["metrics"])
    return groups


def depth_infer_tables(summary: dict) -> list[Table]:
    """Metrics of each layer's state, for every ranking that was measured."""
    groups = by_layer(summary)
    found = [name for name in RANKINGS if any(name in metrics for seeds in groups.values() for metrics in seeds)]
    note = (
        "Only the last layer was trained for this. The paper does not say whether the final norm is applied: both are measured."
    )
    tables = []
    for ranking in found or ["sampled"]:
        rows, detail = [], "nothing measured yet"
        for (model, layer, final_norm), seeds in groups.items():
            metrics = [each[ranking] for each in seeds if ranking in each]
            detail = ranking_title(metrics[0], ranking) if metrics else detail
            values = [spread([seed[name] for seed in metrics]) for name in METRICS]
            rows.append([model, number(layer), "yes" if final_norm else "no", *values, number(len(metrics))])
        rows += missing_rows(summary["missing"], "run")
        header = ["Model", "Layer", "Final norm", *METRICS, "Seeds"]
        tables.append(Table(subject(summary), detail, header, rows, note, facts={"ranking": ranking}, best=METRICS))
    return tables


def layers_tables(summary: dict) -> list[Table]:
    """Block influence of each layer, and CKA between what goes into it and what comes out."""
    rows = []
    for model in dict.fromkeys(run["model"] for run in summary["runs"]):
        runs = [run for run in summary["runs"] if run["model"] == model]
        for layer in range(len(runs[0]["block_influence"])):
            influence = [run["block_influence"][layer] for run in runs]
            similar = [run["cka"][layer][layer + 1] for run in runs if run["cka"][layer][layer + 1] is not None]
            rows.append([model, number(layer + 1), spread(influence, 1.0), spread(similar, 1.0), number(len(runs))])
    rows += missing_rows(summary["missing"], "run")
    note = (
        "Block influence: 1 - mean cosine of a layer's input and output at the last position (Men et al. 2024). "
        "CKA: linear, over users (Kornblith et al. 2019)."
    )
    header = ["Model", "Layer", "Block influence", "CKA of input and output", "Seeds"]
    return [Table(subject(summary), "", header, rows, note)]


def quantise_tables(summary: dict) -> list[Table]:
    """Size, memory, speed and quality of each kind of each model; what was refused, and why."""
    rows = []
    for run in summary["runs"]:
        for kind, entry in run["kinds"].items():
            speeds = [number(entry["users_per_second"][size]) for size in ("1", "512")]
            ratio, test = shown(entry["speed_over_fp32"]["512"], ".2f"), entry["test"]
            quality = [percent(100 * entry["MRR"]), *([NONE] * 2 if test is None else compared(test))]
            size = [shown(entry["bytes_on_disk"] / 2**20, ".2f"), shown(entry["memory_mib"], ".1f")]
            rows.append([run["model"], number(run["seed"]), kind, *size, *speeds, ratio, *quality])
        rows += [
            [run["model"], number(run["seed"]), kind, f"refused: {why}", *[NONE] * 7] for kind, why in run["refused"].items()
        ]
    rows += missing_rows(summary["missing"], "run")
    header = ["Model", "Seed", "Kind", "MiB on disk", "MiB held", "Users a second, batch 1", "batch 512", "over fp32, batch 512"]
    header += ["MRR", "MRR against fp32", "p"]
    share = min(run["processor_share"] for run in summary["runs"])
    note = (
        "MRR in percent, among sampled candidates, with a paired t-test over users. Disk: decoder, heads and item table. Held: "
        "resident memory above a process without the model, after batches of 512. int4 values take a byte each on a CPU. pruned: "
        "half of each weight's entries zero; neurons: half of each MLP's taken out; neither was trained again. The runs had "
        f"{share:.0%} or more of their processors: well below 100% compare the ratios only."
    )
    return [Table(subject(summary), "", header, rows, note)]


def compared(test: dict) -> list[Cell]:
    return [shown(100 * test["mean_difference"], "+.2f"), probability(test["p_value"])]


def cold_tables(summary: dict) -> list[Table]:
    """Metrics by length of the history, and by how often the target occurs in training."""
    return [cold_table(summary, kind, detail) for kind, detail in GROUPINGS.items()]


def cold_table(summary: dict, kind: str, detail: str) -> Table:
    entries = [(model["label"], entry) for model in summary["models"] for entry in model["groups"][kind]]
    found = [name for name in RANKINGS if any(name in entry for _, entry in entries)]
    columns = [(ranking, name) for ranking in found for name in GROUP_METRICS]
    rows = [
        [label, entry["group"], number(entry["users"]), *(group_cell(entry, ranking, name) for ranking, name in columns)]
        for label, entry in entries
    ]
    header = ["Model", detail.capitalize(), "Users", *(f"{name}, {ranking}" for ranking, name in columns)]
    rows += missing_rows(summary["missing"], "run")
    return Table(subject(summary), detail, header, rows, "Percent, means over seeds.", file=kind)


def group_cell(entry: dict, ranking: str, name: str) -> Cell:
    fraction = entry.get(ranking, {}).get(name)
    return percent(None if fraction is None else 100 * fraction)


def theory_tables(summary: dict) -> list[Table]:
    """Largest relative errors of the gradient steps on random attention stacks."""
    errors = ("proposition_1_error", "proposition_1_error_printed_step", "proposition_2_error")
    rows = [
        [*(Cell(str(stack[name]), stack[name]) for name in ("layers", "tokens", "width"))]
        + [shown(stack[name], ".1e") for name in errors]
        for stack in summary["stacks"]
    ]
    header = ["Layers", "Tokens", "Width", "Proposition 1, step 1/2", "Proposition 1, step 1 as printed", "Proposition 2"]
    note = (
        "Relative errors in float64. Eq. 14 drops the factor 2 of Eq. 12, so Proposition 1 holds with step size 1/2, not with 1."
    )
    return [Table(subject(summary), "relative errors", header, rows, note)]


BUILDERS = {
    "models": model_tables,
    "stats": lambda summary: [stats_table([summary]), rules_table(summary)],
    "regimes": regime_tables,
    "depth-infer": depth_infer_tables,
    "layers": layers_tables,
    "quantise": quantise_tables,
    "cold": cold_tables,
    "efficiency": efficiency_tables,
    "theory": theory_tables,
}
