"""Metrics of users with short and long histories, and of targets that are rare and frequent in training.

Reads what `evaluate.py` wrote for the test split (ranks.npz) and the sequences that it ranked. U users.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from slmrec.artifacts import input_directory, read_manifest
from slmrec.errors import InputError
from slmrec.evaluation.metrics import UNDEFINED, hit_rate, ndcg, reciprocal_rank

HISTORY_STARTS = (1, 3, 5, 10, 20)  # items before the target
POPULARITY_STARTS = (0, 5, 10, 20, 50)  # actions on the target in the training parts
RANKINGS = ("sampled", "full")
HELD_OUT = 2  # the last two actions of a user are the targets of validation and test; what comes before is the training part

Groups = dict[str, np.ndarray]


def history_groups(lengths: np.ndarray) -> Groups:
    """Label -> bool [U], from how many items each user has before the target, int [U] (not cut to what a model reads)."""
    return _ranges(lengths, HISTORY_STARTS)


def popularity_groups(counts: np.ndarray) -> Groups:
    """Label -> bool [U], from how often each user's target occurs in the training parts of all users, int [U]."""
    return _ranges(counts, POPULARITY_STARTS)


def _ranges(values: np.ndarray, starts: tuple[int, ...]) -> Groups:
    """A group from each start up to below the next, the last one open: labels "1-2" ... "20+"."""
    values = np.asarray(values)
    if len(values) and values.min() < starts[0]:
        raise InputError(f"a user has {values.min()} where the groups begin at {starts[0]}")
    groups = {f"{low}-{high - 1}": (values >= low) & (values < high) for low, high in pairwise(starts)}
    return groups | {f"{starts[-1]}+": values >= starts[-1]}


def group_metrics(ranks: np.ndarray, groups: Groups) -> dict[str, dict[str, float | None]]:
    """Label -> MRR, HR@10 and NDCG@10 (fractions) of the group's users, from int ranks [U]; None where none has a rank."""
    per_user = {"MRR": reciprocal_rank(ranks), "HR@10": hit_rate(ranks, 10), "NDCG@10": ndcg(ranks, 10)}
    ranked = ranks > UNDEFINED
    return {
        label: {
            name: float(values[members & ranked].mean()) if (members & ranked).any() else None
            for name, values in per_user.items()
        }
        for label, members in groups.items()
    }


def cold_groups(model_directory: str | Path) -> dict[str, list[dict]]:
    """The groups of one evaluated model, by history length and by the target's popularity.

    Returns {"history": [{"group": "1-2", "users": n, "sampled": {...}, "full": {...}}, ...], "popularity": [...]}, "full" only
    where it was evaluated. Raises InputError when the test evaluation or its data are missing, or the data are others by now.
    """
    evaluation = Path(model_directory) / "evaluation-test"
    sequences, offsets = _read_sequences(evaluation)
    with np.load(evaluation / "ranks.npz", allow_pickle=False) as arrays:
        ranks = {name: arrays[name] for name in RANKINGS if name in arrays}
    kinds = {
        "history": history_groups(np.diff(offsets) - 1),
        "popularity": popularity_groups(target_counts(sequences, offsets)),
    }
    return {kind: _entries(ranks, groups) for kind, groups in kinds.items()}


def _read_sequences(evaluation: Path) -> tuple[np.ndarray, np.ndarray]:
    """Items int [E] of the users back to back, and where each user's begin, int [U + 1], of the data that were evaluated."""
    recorded = read_manifest(evaluation, "evaluate")["inputs"]["data"]
    data = input_directory(evaluation, "data")
    if read_manifest(data, "data")["digest"] != recorded["digest"]:
        raise InputError(f"{data}: not the data that {evaluation} was made with; evaluate the model again")
    with np.load(data / "sequences.npz", allow_pickle=False) as arrays:
        return arrays["items"], arrays["offsets"]


def target_counts(items: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """How often each user's test target occurs in the training parts of all users, int64 [U]."""
    in_training = np.ones(len(items), dtype=bool)
    for back in range(1, HELD_OUT + 1):
        in_training[offsets[1:] - back] = False
    counts = np.bincount(items[in_training], minlength=items.max() + 1)
    return counts[items[offsets[1:] - 1]]


def _entries(ranks: dict[str, np.ndarray], groups: Groups) -> list[dict]:
    measured = {ranking: group_metrics(values, groups) for ranking, values in ranks.items()}
    return [
        {"group": label, "users": int(members.sum())} | {ranking: by_label[label] for ranking, by_label in measured.items()}
        for label, members in groups.items()
    ]


def mean_over_seeds(seeds: list[dict]) -> dict[str, list[dict]]:
    """The means of what `cold_groups` returned for each seed, in the same form.

    Raises InputError when there is none, or the seeds differ in their groups, users or rankings.
    """
    if not seeds:
        raise InputError("no seed to take the mean of")
    shapes = [
        {kind: [(entry["group"], entry["users"], *sorted(entry)) for entry in seed[kind]] for kind in seed} for seed in seeds
    ]
    if any(shape != shapes[0] for shape in shapes):
        raise InputError("the seeds were not evaluated on the same users and in the same way")
    return {kind: [_mean_entry(entries) for entries in zip(*(seed[kind] for seed in seeds))] for kind in seeds[0]}


def _mean_entry(entries: tuple[dict, ...]) -> dict:
    """One group over the seeds; an empty one stays without metrics."""
    first = entries[0]
    means = {
        ranking: {
            name: None if value is None else float(np.mean([entry[ranking][name] for entry in entries]))
            for name, value in first[ranking].items()
        }
        for ranking in RANKINGS
        if ranking in first
    }
    return {"group": first["group"], "users": first["users"]} | means
