"""Metrics by history length and by the target's popularity, on five users worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reproduce.cold import cold_groups, group_metrics, history_groups, popularity_groups, target_counts
from slmrec.artifacts import Stage, stage_input
from slmrec.errors import InputError

SEQUENCES = [[1, 2, 3], [1, 1, 1, 2, 1], [1, 1, 1, 4, 3], [1] * 11 + [2], [3, 4, 2, 2]]  # histories of 2, 4, 4, 11, 3 items
SAMPLED, FULL = [1, 2, 12, 4, 3], [2, 4, 24, 8, 6]
EMPTY = {"MRR": None, "HR@10": None, "NDCG@10": None}


def write_data(directory, sequences=SEQUENCES):
    offsets = np.cumsum([0] + [len(sequence) for sequence in sequences])
    with Stage("data", directory, {"sequences": sequences}, {}) as stage:
        np.savez(stage.path / "sequences.npz", items=np.concatenate(sequences).astype(np.int32), offsets=offsets)
    return directory


def write_evaluation(model, data, **ranks):
    with Stage("evaluate", model / "evaluation-test", {}, {"data": stage_input(data)}) as stage:
        np.savez(stage.path / "ranks.npz", users=np.arange(5), **{name: np.array(values) for name, values in ranks.items()})
    return model


@pytest.fixture
def model(tmp_path):
    return write_evaluation(tmp_path / "model", write_data(tmp_path / "data"), sampled=SAMPLED, full=FULL)


def members(groups):
    return {label: np.flatnonzero(mask).tolist() for label, mask in groups.items()}


def test_group_borders():
    lengths, counts = [1, 2, 3, 4, 5, 9, 10, 19, 20, 400], [0, 4, 5, 9, 10, 19, 20, 49, 50, 9999]
    pairs = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert members(history_groups(lengths)) == dict(zip(["1-2", "3-4", "5-9", "10-19", "20+"], pairs))
    assert members(popularity_groups(counts)) == dict(zip(["0-4", "5-9", "10-19", "20-49", "50+"], pairs))


def test_a_user_without_history_has_no_group():
    with pytest.raises(InputError, match="a user has 0 where the groups begin at 1"):
        history_groups([3, 0])


def test_metrics_of_a_group_by_hand():
    """Ranks 1 and 12: MRR (1 + 1/12) / 2, one hit of two, NDCG (1 + 0) / 2. Rank 3: NDCG 1 / log2(4)."""
    groups = {"a": np.array([True, True, False]), "b": np.array([False, False, True]), "c": np.zeros(3, dtype=bool)}
    assert group_metrics(np.array([1, 12, 3]), groups) == {
        "a": {"MRR": pytest.approx(13 / 24), "HR@10": 0.5, "NDCG@10": 0.5},
        "b": {"MRR": pytest.approx(1 / 3), "HR@10": 1.0, "NDCG@10": 0.5},
        "c": EMPTY,
    }


def test_targets_are_counted_in_the_training_parts():
    """Training parts: [1], [1 1 1], [1 1 1], [1] * 10, [3 4]; item 1 is in them 17 times, 2 never, 3 once, 4 once."""
    offsets = np.cumsum([0] + [len(sequence) for sequence in SEQUENCES])
    assert target_counts(np.concatenate(SEQUENCES), offsets).tolist() == [1, 17, 1, 0, 0]


def test_groups_of_an_evaluated_model(model):
    groups = cold_groups([model])
    history = {entry["group"]: entry for entry in groups["history"]}
    assert [(entry["group"], entry["users"]) for entry in groups["history"]] == [
        ("1-2", 1),
        ("3-4", 3),
        ("5-9", 0),
        ("10-19", 1),
        ("20+", 0),
    ]
    assert history["1-2"]["sampled"] == {"MRR": 1, "HR@10": 1, "NDCG@10": 1}
    assert history["3-4"]["sampled"] == {
        "MRR": pytest.approx((1 / 2 + 1 / 12 + 1 / 3) / 3),
        "HR@10": pytest.approx(2 / 3),
        "NDCG@10": pytest.approx((1 / math.log2(3) + 1 / 2) / 3),
    }
    assert history["10-19"]["full"] == {"MRR": 1 / 8, "HR@10": 1, "NDCG@10": pytest.approx(1 / math.log2(9))}
    assert history["20+"] == {"group": "20+", "users": 0, "sampled": EMPTY, "full": EMPTY}
    popularity = {entry["group"]: entry for entry in groups["popularity"]}
    assert {label: entry["users"] for label, entry in popularity.items()} == {
        "0-4": 4,
        "5-9": 0,
        "10-19": 1,
        "20-49": 0,
        "50+": 0,
    }
    assert popularity["10-19"]["sampled"]["MRR"] == 1 / 2  # user 1, whose target is item 1


def test_without_full_ranking_there_is_none(tmp_path):
    model = write_evaluation(tmp_path / "model", write_data(tmp_path / "data"), sampled=SAMPLED)
    assert {tuple(entry) for entry in cold_groups([model])["history"]} == {("group", "users", "sampled")}


def test_data_that_changed_since_are_refused(model):
    stage = Stage("data", model.parent / "data", {"sequences": []}, {}, overwrite=True)
    with stage:
        pass
    with pytest.raises(InputError, match="not the data that .* was made with"):
        cold_groups([model])


def test_a_model_that_was_not_evaluated_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="evaluation-test: no such directory"):
        cold_groups([tmp_path])


def test_mean_over_seeds_by_hand(model, tmp_path):
    other = write_evaluation(tmp_path / "other", model.parent / "data", sampled=[2, 2, 12, 4, 3], full=FULL)
    mean = cold_groups([model, other])
    assert mean["history"][0] == {
        "group": "1-2",
        "users": 1,
        "sampled": {"MRR": 0.75, "HR@10": 1, "NDCG@10": pytest.approx((1 + 1 / math.log2(3)) / 2)},
        "full": {"MRR": 0.5, "HR@10": 1, "NDCG@10": pytest.approx(1 / math.log2(3))},
    }
    assert mean["history"][2] == {"group": "5-9", "users": 0, "sampled": EMPTY, "full": EMPTY}


def test_seeds_that_do_not_fit_together_are_refused(model, tmp_path):
    unlike = write_evaluation(tmp_path / "unlike", write_data(tmp_path / "longer", [*SEQUENCES[:4], [1] * 30]), sampled=SAMPLED)
    partial = write_evaluation(tmp_path / "partial", model.parent / "data", sampled=SAMPLED)
    for other in (unlike, partial):
        with pytest.raises(InputError, match="not evaluated on the same users"):
            cold_groups([model, other])
    with pytest.raises(InputError, match="no seed"):
        cold_groups([])
