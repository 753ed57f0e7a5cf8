"""The tables of what looks into trained models (depth-infer, layers, cold), of the settings tried, and of the theory."""

from __future__ import annotations

from reproduce.cells import NONE, Table, missing_rows, number, percent, spread, title
from reproduce.comparison import METRICS, RANKINGS
from reproduce.model_tables import ranking_title

COLD_METRICS = ("MRR", "HR@10", "NDCG@10")


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


def regime_tables(summary: dict) -> list[Table]:
    """Every setting that was tried, best first, with only what the settings differ in."""
    names = list(summary["settings"][0]["setting"])
    rows = [
        [
            *(NONE if entry["setting"][name] is None else str(entry["setting"][name]) for name in names),
            *(f"{100 * entry[name]:.2f}" for name in ("best_valid_MRR", "last_valid_MRR")),
            f"{entry['best_step']} of {entry['steps']}",
            f"{entry['train_seconds']:.0f}",
        ]
        for entry in summary["settings"]
    ]
    header = [*names, "Best validation MRR", "Last", "Best step", "Seconds"]
    note = "Validation MRR in percent, among sampled candidates; the test split was not looked at to choose a setting."
    return [Table(title(summary), header, rows, note)]


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
