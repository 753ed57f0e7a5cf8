"""What an experiment showed on one data set, as the JSON files that tables, figures and the report are made from.

`reproduce.summarise` writes them as <tables>/<data set>/<experiment>.json. They hold metrics (fractions), training histories,
provenance, paired tests over users, and what is missing with the command that makes it; nothing else is needed to render them, so
they can be committed. The types below say what a file must hold; what else it holds is left alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from reproduce.experiments import EXPERIMENTS
from slmrec.artifacts import read_json
from slmrec.errors import InputError
from slmrec.evaluation.metrics import METRICS

RANKINGS = {"sampled": "1 + {candidates} candidates", "full": "all {items} items"}
GROUP_METRICS = ("MRR", "HR@10", "NDCG@10")


def record(name: str, keys: dict[str, Any]) -> type:
    """The type of a JSON object: exact types, finite numbers."""
    kind = TypedDict(name, keys)
    kind.__pydantic_config__ = ConfigDict(strict=True, allow_inf_nan=False)
    return kind


Metrics = dict.fromkeys(METRICS, float)
Sampled = record("Sampled", Metrics | {"candidates": int})
Full = record("Full", Metrics | {"items": int})
Ranked = record("Ranked", {"sampled": Sampled, "full": NotRequired[Full]})
Code = {"commit": str | None, "dirty": bool | None, "libraries": dict[str, str], "command": str}
Provenance = record("Provenance", Code | {"stage": str, "digest": str, "device": str, "config": dict[str, Any]})
Missing = record("Missing", {"seed": int, "command": str, "model": NotRequired[str]})

# An experiment that compares models. A history has a point per validation: per epoch, or per optimiser step of an LLM stage.
Point = record("Point", {"step": float, "valid_MRR": float, "train": dict[str, float]})
Cost = record("Cost", {"epochs": int, "best_epoch": int, "seconds_per_epoch": float, "peak_memory_mib": float | None})
Run = record(
    "Run",
    {
        "seed": int,
        "metrics": Ranked,
        "parameters": int,
        "history": list[Point],
        "provenance": Provenance,
        "cost": NotRequired[Cost],
    },
)
Model = record("Model", {"name": str, "label": str, "x": float | None, "runs": list[Run], "missing": list[Missing]})
PairedTest = record(
    "PairedTest",
    dict.fromkeys(("model", "against", "ranking", "metric", "test"), str)
    | dict.fromkeys(("users", "seeds", "better", "equal", "worse"), int)
    | dict.fromkeys(("mean_difference", "p_value", "signed_rank_p_value", "signed_rank_sum"), float),
)

# The others
Kind = record(
    "Kind",
    {"bytes_on_disk": int, "memory_mib": float, "MRR": float, "test": dict[str, Any] | None}
    | dict.fromkeys(("users_per_second", "speed_over_fp32"), dict[str, float]),
)
Quantised = record(
    "Quantised",
    {"seed": int, "model": str, "provenance": Provenance, "kinds": dict[str, Kind], "refused": dict[str, str]}
    | {"processor_share": float, "items": int, "users": int, "threads": int},
)
Layer = record("Layer", {"layer": int, "final_norm": bool, "metrics": Ranked})
ReadModel = record("ReadModel", {"seed": int, "model": str, "provenance": Provenance, "layers": list[Layer]})
Similarity = list[list[float | None]]
ComparedLayers = record(
    "ComparedLayers", {"seed": int, "model": str, "provenance": Provenance, "block_influence": list[float], "cka": Similarity}
)
GroupMetrics = record("GroupMetrics", dict.fromkeys(GROUP_METRICS, float | None))
Group = record("Group", {"group": str, "users": int, "sampled": GroupMetrics, "full": NotRequired[GroupMetrics]})
Groups = record("Groups", {"history": list[Group], "popularity": list[Group]})
GroupedModel = record("GroupedModel", {"name": str, "label": str, "groups": Groups})
Setting = record(
    "Setting",
    {"stage": str, "setting": dict[str, Any], "best_step": int, "steps": int}
    | dict.fromkeys(("best_valid_MRR", "last_valid_MRR", "train_seconds"), float),
)
Stats = record(
    "Stats",
    dict.fromkeys(("users", "items", "interactions", "raw_rows"), int)
    | dict.fromkeys(("raw_users", "raw_items"), NotRequired[int | None])
    | {"density": float, "mean_length": float, "dropped": dict, "rules": dict},
)
Speed = record("Speed", {"seconds": dict[str, float], "speedup": float, "predicted": float})
Speeds = record("Speeds", {"forward": Speed, "train": Speed})
ModelSpeeds = record("ModelSpeeds", {"forward": dict[str, Speed], "train": dict[str, Speed]})
Environment = record("Environment", {"command": str, "device": str, "libraries": dict[str, str], "git": dict[str, Any]})
Benchmark = record(
    "Benchmark",
    {
        "environment": Environment,
        "lengths": str,
        "configuration": dict[str, Any],
        "encoding": NotRequired[Speeds],
        "models": NotRequired[ModelSpeeds],
        "memory_mib": NotRequired[dict[str, dict[str, float]]],
        "parameters": NotRequired[dict[str, dict[str, int]]],
        "tables": NotRequired[dict[str, dict[str, dict]]],
    },
)
Stack = record(
    "Stack",
    dict.fromkeys(("layers", "tokens", "width"), int)
    | dict.fromkeys(("proposition_1_error", "proposition_1_error_printed_step", "proposition_2_error"), float),
)

# `data` and `base_model` where `dataset` names runs that have their own base model
ORIGIN = {"data": NotRequired[str], "base_model": NotRequired[str]}
HEAD = ORIGIN | {"experiment": str, "dataset": str, "synthetic": NotRequired[bool]}
SUMMARIES = {  # by kind of experiment
    "models": HEAD | {"models": list[Model], "comparisons": NotRequired[list[PairedTest]]},
    "depth-infer": HEAD | {"runs": list[ReadModel], "missing": list[Missing]},
    "layers": HEAD | {"runs": list[ComparedLayers], "missing": list[Missing]},
    "quantise": HEAD | {"runs": list[Quantised], "missing": list[Missing]},
    "cold": HEAD | {"models": list[GroupedModel], "missing": list[Missing]},
    "regimes": HEAD | {"settings": list[Setting]},
    "stats": HEAD | {"stats": Stats},
    "efficiency": HEAD | {"benchmark": Benchmark},
    "theory": Code | {"experiment": str, "seed": int, "stacks": list[Stack]},  # of no data set
}


def check_summary(summary: object, where: str) -> None:
    """Raise InputError, naming the place, unless a JSON value is the summary of a known experiment; numbers must be finite."""
    name = summary.get("experiment") if isinstance(summary, dict) else None
    kind = EXPERIMENTS[name].kind if isinstance(name, str) and name in EXPERIMENTS else None
    if kind not in SUMMARIES:
        raise InputError(f"{where}: no summary of a known experiment ({', '.join(EXPERIMENTS)})")
    try:
        TypeAdapter(record(name, SUMMARIES[kind])).validate_python(summary)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise InputError(f"{where}: {name}{place}: {first['msg']}, not {first['input']!r:.80}") from None


def read_summary(path: Path, tables_dir: Path) -> dict:
    """One summary. Raises InputError when it is malformed, of no known experiment, or not where its names say."""
    summary = read_json(path)
    check_summary(summary, str(path))
    expected = tables_dir / summary.get("dataset", "") / f"{summary['experiment']}.json"
    if path != expected:
        raise InputError(f"{path}: holds what belongs in {expected}")
    return summary


def read_summaries(tables_dir: Path) -> list[dict]:
    """All summaries below a directory by experiment; within one real data before synthetic, pretrained decoders first."""
    if not tables_dir.is_dir():
        raise InputError(f"{tables_dir}: no summary of an experiment there (bash run_tables.sh main demo makes the first)")
    summaries = [read_summary(path, tables_dir) for path in sorted(tables_dir.rglob("*.json"))]
    invented = {summary["dataset"] for summary in summaries if summary.get("synthetic")}
    for summary in summaries:  # a benchmark does not know what its histories are
        summary["synthetic"] = summary.get("dataset") in invented
    experiments = list(EXPERIMENTS)
    place = lambda summary: (experiments.index(summary["experiment"]), summary["synthetic"], "base_model" not in summary)
    return sorted(summaries, key=place)
