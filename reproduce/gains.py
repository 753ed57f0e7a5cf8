"""Where one model gains over another: by history length and target popularity, without repeats, without near-duplicate titles.

    python -m reproduce.gains --models runs/beauty/sasrec_text --against runs/beauty/sasrec --text runs/beauty/text \
        --output runs/beauty/gains.json

Reads what `evaluate.py` wrote for the test split. U users; several models of each side are seeds, whose metrics are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy.stats import ttest_1samp

from reproduce.cold import group_metrics, history_groups, popularity_groups, read_evaluation, target_counts
from reproduce.summary import RANKINGS
from slmrec.artifacts import read_manifest, write_json
from slmrec.command_line import parse_arguments
from slmrec.errors import InputError
from slmrec.evaluation.metrics import reciprocal_rank

NEAR_DUPLICATE = 0.9  # cosine of two titles' vectors from which on they say nearly the same
SHOWN = "sampled"  # ranking that is printed
Kinds = dict[str, dict[str, np.ndarray]]


def repeats(items: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """bool [U], whether each user's test target is the item right before it."""
    last = offsets[1:] - 1
    return items[last] == items[last - 1]


def nearest_in_history(items: np.ndarray, offsets: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """float32 [U], the highest cosine of each user's test target with another item of its history; -1 where there is none.

    Args:
        vectors: float32 [N + 1, d_text], text vectors of the items.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    targets = np.repeat(items[offsets[1:] - 1], np.diff(offsets))  # [E]
    cosines = np.einsum("ed,ed->e", unit[items], unit[targets])
    cosines[items == targets] = -1  # the target itself, and repeats of it, which are another group
    return np.maximum.reduceat(cosines, offsets[:-1])


def groups_of(items: np.ndarray, offsets: np.ndarray, vectors: np.ndarray | None) -> Kinds:
    """Kind -> label -> bool [U]; near-duplicates only where there are text vectors."""
    repeated = repeats(items, offsets)
    kinds = {
        "all": {"all": np.ones(len(offsets) - 1, dtype=bool)},
        "history": history_groups(np.diff(offsets) - 1),
        "popularity": popularity_groups(target_counts(items, offsets)),
        "repeats": {"target repeats the last item": repeated, "it does not": ~repeated},
    }
    if vectors is not None:
        near = nearest_in_history(items, offsets, vectors) >= NEAR_DUPLICATE
        kinds["titles"] = {"nearly the target's title in the history": near, "no such title": ~near}
    return kinds


def p_value(differences: np.ndarray) -> float | None:
    """Of a paired two-sided t-test over the users of a group; None where there are too few, or all differ alike."""
    return float(ttest_1samp(differences, 0).pvalue) if len(differences) > 1 and np.ptp(differences) else None


def compare(models: list[str], against: list[str], text: str | None) -> list[dict]:
    """One entry a group: its users, the metrics of both sides, and the p value of the difference in MRR.

    Raises InputError where they ranked different data.
    """
    sides = [[read_evaluation(model) for model in side] for side in (models, against)]
    if len({digest for side in sides for digest, _, _ in side}) > 1:
        raise InputError("the models were evaluated on different data")
    data = sides[0][0][1]
    with np.load(data / "sequences.npz", allow_pickle=False) as arrays:
        items, offsets = arrays["items"], arrays["offsets"]
    vectors = None
    if text:
        if read_manifest(text, "text")["item_map"] != read_manifest(data)["item_map"]:
            raise InputError(f"{text} and {data} do not number the same items")
        vectors = load_file(Path(text) / "text_vectors.safetensors")["text_vector"]
    rankings = [name for name in RANKINGS if all(name in ranks for side in sides for _, _, ranks in side)]
    stacked = [{name: np.stack([ranks[name] for _, _, ranks in side]) for name in rankings} for side in sides]  # [seeds, U]
    means = [{name: reciprocal_rank(ranks).mean(axis=0) for name, ranks in side.items()} for side in stacked]  # [U]
    differences = {name: means[0][name] - means[1][name] for name in rankings}
    entries = []
    for kind, groups in groups_of(items, offsets, vectors).items():
        measured = [{name: group_metrics(ranks, groups) for name, ranks in side.items()} for side in stacked]
        ours, theirs = ({label: {name: found[name][label] for name in found} for label in groups} for found in measured)
        entries += [
            {"kind": kind, "group": label, "users": int(members.sum()), "model": ours[label], "against": theirs[label]}
            | {"p_value": {ranking: p_value(difference[members]) for ranking, difference in differences.items()}}
            for label, members in groups.items()
        ]
    return entries


@dataclass
class GainArguments:
    """Two sides of a comparison."""

    models: list[str] = field(metadata={"help": "models with a test evaluation: the seeds of one side"})
    against: list[str] = field(metadata={"help": "those of the other side"})
    output: str = field(metadata={"help": "JSON file"})
    text: str | None = field(default=None, metadata={"help": "text vectors (embed_titles.py), for near-duplicate titles"})


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments((GainArguments,), argv, description=__doc__)
    entries = compare(arguments.models, arguments.against, arguments.text)
    Path(arguments.output).parent.mkdir(parents=True, exist_ok=True)
    sides = {"models": len(arguments.models), "against": len(arguments.against)}
    names = {"model": Path(arguments.models[0]).name, "against": Path(arguments.against[0]).name}
    write_json(Path(arguments.output), {"experiment": "gains", **names, "seeds": sides, "groups": entries})
    print(f"{'group':<48}{'users':>7}{names['model'][:14]:>16}{names['against'][:14]:>16}{'p':>9}   MRR in percent, {SHOWN}")
    for entry in entries:
        values = [entry[side].get(SHOWN, {}).get("MRR") for side in ("model", "against")]
        shown = "".join(f"{'-' if value is None else format(100 * value, '.2f'):>16}" for value in values)
        found = entry["p_value"].get(SHOWN)
        chance = "-" if found is None else f"{found:.3f}"
        print(f"{entry['kind'] + ': ' + entry['group']:<48}{entry['users']:>7}{shown}{chance:>9}")


if __name__ == "__main__":
    from slmrec.runtime import run_main

    run_main(main)
