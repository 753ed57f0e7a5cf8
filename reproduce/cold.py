"""Metrics of users with short and long histories, and of targets that are rare and frequent in training.

Reads what `evaluate.py` wrote for the test split (ranks.npz) and the sequences that it ranked. U users.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from reproduce.summary import RANKINGS
from slmrec.artifacts import input_directory, read_manifest
from slmrec.errors import InputError
from slmrec.evaluation.metrics import UNDEFINED, hit_rate, ndcg, reciprocal_rank

HISTORY_STARTS = (1, 3, 5, 10, 20)  # items before the target
POPULARITY_STARTS = (0, 5, 10, 20, 50)  # actions on the target in the training parts
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
    """Label -> MRR, HR@10 and NDCG@10 (fractions) of a group's users, means over them and over seeds.

    `ranks` int [U], or [seeds, U]; None where no user of the group has a rank.
    """
    ranks = np.atleast_2d(ranks)
    per_user = {"MRR": reciprocal_rank(ranks), "HR@10": hit_rate(ranks, 10), "NDCG@10": ndcg(ranks, 10)}
    ranked = (ranks > UNDEFINED).all(axis=0)
    means = {name: values.mean(axis=0) for name, values in per_user.items()}
    return {
        label: {name: float(values[chosen].mean()) if chosen.any() else None for name, values in means.items()}
        for label, chosen in ((label, members & ranked) for label, members in groups.items())
    }


def cold_groups(models: list[Path]) -> dict[str, list[dict]]:
    """The groups of evaluated models that are seeds of one, by history length and by the target's popularity.

    Returns {"history": [{"group": "1-2", "users": n, "sampled": {...}, "full": {...}}, ...], "popularity": [...]}, "full" only
    where it was evaluated. Raises InputError when a test evaluation or its data are missing, the data are others by now, or the
    seeds were not evaluated in the same way.
    """
    read = [read_evaluation(model) for model in models]
    if len({(digest, *ranks) for digest, _, ranks in read}) != 1:
        raise InputError(f"{', '.join(map(str, models)) or 'no seed'}: not evaluated on the same users and in the same way")
    data, ranks = read[0][1], {name: np.stack([found[name] for _, _, found in read]) for name in read[0][2]}
    with np.load(data / "sequences.npz", allow_pickle=False) as arrays:
        items, offsets = arrays["items"], arrays["offsets"]
    kinds = {"history": history_groups(np.diff(offsets) - 1), "popularity": popularity_groups(target_counts(items, offsets))}
    return {kind: _entries(ranks, groups) for kind, groups in kinds.items()}


def read_evaluation(model: str | Path) -> tuple[str, Path, dict[str, np.ndarray]]:
    """Digest and directory of the data that a model was evaluated on, and its ranks, int [U] for each way of ranking.

    Raises InputError when there is no test evaluation, or the data are others by now.
    """
    evaluation = Path(model) / "evaluation-test"
    digest, data = read_manifest(evaluation, "evaluate")["inputs"]["data"]["digest"], input_directory(evaluation, "data")
    if read_manifest(data, "data")["digest"] != digest:
        raise InputError(f"{data}: not the data that {evaluation} was made with; evaluate the model again")
    with np.load(evaluation / "ranks.npz", allow_pickle=False) as arrays:
        return digest, data, {name: arrays[name] for name in RANKINGS if name in arrays}


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
