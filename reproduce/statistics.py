"""Whether one model ranks users' targets better than another, the spread over seeds, and the paper's mean ranks."""

from __future__ import annotations

import numpy as np

from slmrec.errors import InputError
from slmrec.evaluation.metrics import reciprocal_rank

TEST = "Paired t-test of the mean difference; Wilcoxon signed-rank test with zeros after Pratt; both over users and two-sided"
DECIMALS = 14  # two sums of the same fractions in another order differ behind these; two ranks up to 10 ** 6 differ before


def paired_test(first: np.ndarray, second: np.ndarray) -> dict:
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
    from scipy.stats import rankdata, ttest_1samp, wilcoxon  # seconds, which a table of one run has no need of

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


def mean_ranks(values: dict[str, list[float | None]], ties: str = "average") -> dict[str, float]:
    """Mean rank per model, 1 is the best, in the order given: the Rank column of Tables 2 and 3.

    From the paper's numbers its Rank follows, to the last digit and for all 28 rows, where of two equal numbers the one in the
    higher row gets the better rank (`ties="ordinal"`), and where Open-P5, which has no MRR, is averaged over its six columns and
    left out of the ranking of the other two. An order of rows says nothing about a model, so in our own tables ties share their
    mean rank. That moves four printed ranks by 0.06: HGN and LightSANs in Table 2 (both NDCG@5 17.30 on Cloth), LightSANs and
    E4SRec_4 in Table 3 (both MRR 7.72 on Sport).

    Args:
        values: model -> one number per column, higher is better; None leaves the model out of that column's ranking.
        ties: a method of scipy.stats.rankdata.

    Raises InputError when models have different numbers of columns, a number is not finite, or a model has no number at all.
    """
    if len({len(row) for row in values.values()}) > 1:
        raise InputError(f"mean rank: not the same number of columns: { {model: len(row) for model, row in values.items()} }")
    from scipy.stats import rankdata

    for model, row in values.items():
        known = [value for value in row if value is not None]
        if not known or not np.isfinite(known).all():
            raise InputError(f"mean rank: {model} needs at least one number and only finite ones, not {row}")
    table = np.array(list(values.values()), dtype=np.float64)  # [models, columns], None becomes NaN
    ranks = rankdata(-table, method=ties, axis=0, nan_policy="omit")
    return dict(zip(values, np.nanmean(ranks, axis=1).tolist(), strict=True))
