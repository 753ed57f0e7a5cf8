"""The tables of each experiment from its summary (`reproduce.report` reads and checks it), and Tables 1 and 6."""

from __future__ import annotations

from reproduce import published
from reproduce.analysis_tables import cold_tables, depth_infer_tables, layers_tables, regime_tables, theory_tables
from reproduce.cells import NONE, PAPER_DATASETS, SYNTHETIC, TITLES, Table, number, title
from reproduce.efficiency_tables import efficiency_tables
from reproduce.experiments import MODEL_EXPERIMENTS
from reproduce.hyperparameters import Line
from reproduce.model_tables import model_tables


def stats_table(summaries: list[dict]) -> Table:
    """A row per data set, as Table 1."""
    with_paper = any(summary["dataset"] in PAPER_DATASETS for summary in summaries)
    rows = []
    for summary in summaries:
        stats = summary["stats"]
        name = summary["dataset"] + (f" ({SYNTHETIC})" if summary["synthetic"] else "")
        ours = [number(stats.get(key)) for key in ("raw_users", "raw_items", "raw_rows", "users", "items", "interactions")]
        shape = [f"{100 * stats['density']:.3f}%", f"{stats['mean_length']:.2f}"]
        rows.append([name, *ours, *shape, *(paper_size(summary["dataset"]) if with_paper else [])])
    header = ["Data set", "Raw users", "Raw items", "Raw rows", "Users", "Items", "Actions", "Density", "Mean length"]
    header += ["paper users", "paper items", "paper ratings", "paper density"] if with_paper else []
    note = (
        "Raw counts are those of the file, our others are after filtering. The paper's row describes its files before the "
        "rating filter, and its density here follows from "
        "its counts. Its Sport row has fewer ratings than users and cannot be right."
    )
    return Table(
        TITLES["stats"], header, rows, note if with_paper else "Raw counts are those of the file, the others are after filtering."
    )


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
        "regimes": regime_tables,
        "theory": theory_tables,
    }
    return builders[summary["experiment"]](summary)
