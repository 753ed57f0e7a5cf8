"""Whether one model ranks users' targets better than another, and the spread over seeds."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata, ttest_1samp, wilcoxon

from slmrec.errors import InputError
from slmrec.evaluation.metrics import reciprocal_rank

TEST = "Paired t-test of the mean difference; Wilcoxon signed-rank test with zeros after Pratt; both over users and two-sided"
DECIMALS = 14  # two sums of the same fractions in another order differ behind these; two ranks up to 10 ** 6 differ before


def paired_comparison(first: np.ndarray, second: np.ndarray) -> dict:
    """Compare two models on the same users and seeds, from int ranks [seeds, users] each (1 is the best).

    The user is the unit: a user's reciprocal ranks are averaged over the seeds, and the differences (first - second) of these
    means are tested, in two ways that can disagree: the t-test asks whether MRR, a mean that a few users near the top decide,
    differs; the signed-rank test asks whether the differences lean to one side, and many users far down weigh as much there.
    Users whom both models rank alike are many, and say that the models do not differ, so they keep their places when
    differences are ranked (Pratt 1959) instead of being dropped.

    Returns `users`, `seeds`, how many users the first model ranks `better`, `equal` or `worse`, the `mean_difference` of MRR as a
    fraction with its `p_value`, the `signed_rank_p_value`, whom the signed ranks favour (`signed_rank_sum` above 0: the first),
    and the `test`'s name. The p values speak of other users, with the seeds as they are, not of other seeds.

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
        "p_value": float(ttest_1samp(difference, 0).pvalue) if np.ptp(difference) else float(not difference.any()),
        "signed_rank_p_value": float(wilcoxon(difference, zero_method="pratt").pvalue) if difference.any() else 1.0,
        "signed_rank_sum": float(rankdata(np.abs(difference)) @ np.sign(difference)),
        "test": TEST,
    }


def mean_and_deviation(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1), the latter None for a single value. Raises InputError for none."""
    if not len(values):
        raise InputError("no value to take the mean of")
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), deviation
