"""Paired comparison and spread over seeds, with answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reproduce.statistics import TEST, mean_and_deviation, paired_test
from slmrec.errors import InputError


def test_three_users_by_hand():
    """Differences 1/2, 3/8 and 1/20: of the 8 ways to sign them, the two one-sided ones are as extreme, so p = 2/8.

    Their mean is 0.925 / 3 and t is it over its standard error; with 2 degrees of freedom p is 1 - t / sqrt(t^2 + 2).
    """
    differences = np.array([0.5, 0.375, 0.05])
    t = differences.mean() / (differences.std(ddof=1) / 3**0.5)
    assert paired_test([[1, 2, 4]], [[2, 8, 5]]) == {
        "users": 3,
        "seeds": 1,
        "better": 3,
        "equal": 0,
        "worse": 0,
        "mean_difference": pytest.approx(0.925 / 3, abs=1e-12),
        "p_value": pytest.approx(1 - t / (t**2 + 2) ** 0.5, abs=1e-12),
        "signed_rank_p_value": pytest.approx(0.25, abs=1e-12),
        "signed_rank_sum": 6,
        "test": TEST,
    }


def test_seeds_are_averaged_before_users_are_compared():
    """User 0: (1 + 1/4) / 2 = 5/8 against 1/2; user 1: the same ranks in both; user 2: 1/10 against 1/5."""
    found = paired_test([[1, 2, 10], [4, 5, 10]], [[2, 5, 5], [2, 2, 5]])
    assert (found["seeds"], found["better"], found["equal"], found["worse"]) == (2, 1, 1, 1)
    assert found["mean_difference"] == pytest.approx((1 / 8 - 1 / 10) / 3, abs=1e-12)


def test_equal_means_are_equal_whatever_the_rounding():
    """1/2 + 1/6 + 1/5 = 1/3 + 1/3 + 1/5, but not when they are added up in floating point in any order."""
    found = paired_test([[2, 10], [6, 15], [5, 7]], [[5, 7], [3, 12], [3, 12]])
    assert (found["better"], found["equal"], found["worse"]) == (0, 2, 0)


def test_zeros_keep_their_places_in_the_ranking():
    """Differences 0, -1/20, -1/12, +1/6, +1/2 have ranks 1 to 5. The negative ones sum to 5, and of the 16 ways to sign the last
    four, 6 give at most that: none, 2, 3, 4, 5 and 2 + 3. So p = 12/16; were the zero dropped, it would be 10/16."""
    found = paired_test([[9, 5, 4, 2, 1]], [[9, 4, 3, 3, 2]])
    assert (found["better"], found["equal"], found["worse"]) == (2, 1, 2)
    assert found["signed_rank_p_value"] == pytest.approx(0.75, abs=1e-12)
    assert found["signed_rank_sum"] == 4 + 5 - 2 - 3


def test_many_small_gains_and_few_great_losses():
    """Nine users rise a little far down, one falls from the top: signed ranks favour the first model, MRR the second."""
    found = paired_test([[50] * 9 + [10]], [[60] * 9 + [1]])
    assert found["mean_difference"] < 0 < found["signed_rank_sum"]


def test_models_that_rank_alike_do_not_differ():
    found = paired_test([[3, 1], [5, 9]], [[3, 1], [5, 9]])
    assert (found["equal"], found["mean_difference"], found["p_value"], found["signed_rank_p_value"]) == (2, 0, 1.0, 1.0)


def test_the_same_difference_for_everybody_is_certain():
    assert paired_test([[1, 1, 1]], [[2, 2, 2]])["p_value"] == 0.0


def test_a_real_difference_is_found_and_a_shuffled_one_is_not():
    random = np.random.default_rng(3)
    second = random.integers(2, 200, (2, 500))
    better = np.maximum(1, second - random.integers(0, 40, second.shape))
    swapped = random.random(500) < 0.5  # whose ranks are whose is a coin flip
    real = paired_test(better, second)
    shuffled = paired_test(np.where(swapped, better, second), np.where(swapped, second, better))
    for name in ("p_value", "signed_rank_p_value"):
        assert real[name] < 1e-3 and shuffled[name] > 0.05


def test_exchange_mirrors_the_comparison():
    random = np.random.default_rng(0)
    first, second = random.integers(1, 30, (2, 3, 100))
    one, other = paired_test(first, second), paired_test(second, first)
    assert one["p_value"] == other["p_value"] and one["mean_difference"] == -other["mean_difference"]
    assert one["signed_rank_p_value"] == other["signed_rank_p_value"] and one["signed_rank_sum"] == -other["signed_rank_sum"]
    assert (one["better"], one["equal"], one["worse"]) == (other["worse"], other["equal"], other["better"])


@pytest.mark.parametrize(
    "first, second, message",
    [
        ([[1, 2]], [[1, 2, 3]], "one rank per seed and user is needed of both"),
        ([[1, 2]], [[1, 2], [1, 2]], "one rank per seed and user is needed of both"),
        ([1, 2], [1, 2], "one rank per seed and user is needed of both"),
        ([[]], [[]], "one rank per seed and user is needed of both"),
        ([[1, 0]], [[1, 2]], "a rank is below 1"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(first, second, message):
    with pytest.raises(InputError, match=message):
        paired_test(first, second)


def test_mean_and_deviation_by_hand():
    """2, 4, 9: mean 5, squared deviations 9 + 1 + 16 = 26, over n - 1 = 2."""
    assert mean_and_deviation([2, 4, 9]) == (5, pytest.approx(13**0.5))
    assert mean_and_deviation([0.25]) == (0.25, None)
    with pytest.raises(InputError, match="no value"):
        mean_and_deviation([])
