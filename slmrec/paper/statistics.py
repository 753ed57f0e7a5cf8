"""Whether one model ranks users' targets better than another, and the spread over seeds."""

from __future__ import annotations

import numpy as np
from scipy.stats import wilcoxon

from slmrec.artifacts import InputError
from slmrec.evaluation.metrics import reciprocal_rank

TEST = "Wilcoxon signed-rank test over users, two-sided, zeros after Pratt"
DECIMALS = 14  # two sums of the same fractions in another order differ behind these; two ranks up to 10 ** 6 differ before


def paired_comparison(first: np.ndarray, second: np.ndarray) -> dict:
    """Compare two models on the same users and seeds, from int ranks [seeds, users] each (1 is the best).

    The user is the unit: a user's reciprocal ranks are averaged over the seeds, and the differences (first - second) of these
    means are tested. Users whom both models rank alike are many, and say that the models do not differ, so they keep their
    places when differences are ranked (Pratt 1959) instead of being dropped.

    Returns `users`, `seeds`, how many users the first model ranks `better`, `equal` or `worse`, the `mean_difference` of MRR as a
    fraction, `p_value` and the `test`'s name. The p value speaks of other users, with the seeds as they are, not of other seeds.

    Raises InputError when the two do not have the same shape, hold no user or no rank.
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or first.ndim != 2 or not first.size:
        raise InputError(f"ranks {first.shape} and {second.shape}: one rank per seed and user is needed of both models")
    if first.min() < 1 or second.min() < 1:
        raise InputError("a rank is below 1, which is the best")
    means = [reciprocal_rank(ranks).mean(axis=0) for ranks in (first, second)]  # [users]
    difference = np.round(means[0] - means[1], DECIMALS)
    return {
        "users": first.shape[1],
        "seeds": first.shape[0],
        "better": int((difference > 0).sum()),
        "equal": int((difference == 0).sum()),
        "worse": int((difference < 0).sum()),
        "mean_difference": float(difference.mean()),
        "p_value": float(wilcoxon(difference, zero_method="pratt").pvalue) if difference.any() else 1.0,
        "test": TEST,
    }


def mean_and_deviation(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1), the latter None for a single value. Raises InputError for none."""
    if not len(values):
        raise InputError("no value to take the mean of")
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), deviation
