"""The Rank column of Tables 2 and 3: a model's rank in each column (metric of a data set), averaged over its columns.

From the printed numbers the printed Rank follows, to its last digit and for all 28 rows, where of two equal numbers the one in
the higher row gets the better rank (`ties="ordinal"`), and where Open-P5, which has no MRR, is averaged over its six columns and
left out of the ranking of the other two. An order of rows says nothing about a model, so our own tables let
ties share their mean rank (`ties="average"`). That moves four printed ranks by 0.06: HGN and LightSANs in Table 2 (both NDCG@5
17.30 on Cloth), LightSANs and E4SRec_4 in Table 3 (both MRR 7.72 on Sport).
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from reproduce.published import METRICS, TABLE_2_3
from slmrec.errors import InputError


def mean_ranks(values: dict[str, list[float | None]], ties: str = "average") -> dict[str, float]:
    """Mean rank per model, 1 is the best, in the order given.

    Args:
        values: model -> one number per column, higher is better; None leaves the model out of that column's ranking.
        ties: a method of scipy.stats.rankdata; `ordinal` ranks equal numbers by the order of the models.

    Raises InputError when models have different numbers of columns, a number is not finite, or a model has no number at all.
    """
    if len({len(row) for row in values.values()}) > 1:
        raise InputError(f"mean rank: not the same number of columns: { {model: len(row) for model, row in values.items()} }")
    for model, row in values.items():
        known = [value for value in row if value is not None]
        if not known or not np.isfinite(known).all():
            raise InputError(f"mean rank: {model} needs at least one number and only finite ones, not {row}")
    table = np.array(list(values.values()), dtype=np.float64)  # [models, columns], None becomes NaN
    ranks = rankdata(-table, method=ties, axis=0, nan_policy="omit")
    return dict(zip(values, np.nanmean(ranks, axis=1).tolist(), strict=True))


def published_columns(data_sets: tuple[str, ...]) -> dict[str, list[float | None]]:
    """The numbers of Tables 2 and 3 as `mean_ranks` takes them: method -> percent for each metric of each data set."""
    return {method: [row[name][metric] for name in data_sets for metric in METRICS] for method, row in TABLE_2_3.items()}
