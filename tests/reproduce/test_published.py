"""The copied tables: spot checks against the paper, and what must hold between numbers if none was copied wrongly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from reproduce.published import METRICS, RANK_2, RANK_3, TABLE_1, TABLE_2_3, TABLE_4_9, TABLE_6, TABLE_8

RANKS = np.arange(1, 1001)  # 1 positive and 999 negatives
GAINS = np.stack([RANKS <= 1, RANKS <= 5, (RANKS <= 5) / np.log2(RANKS + 1), 1 / RANKS])  # [metric, rank], in METRICS' order


def percents(row):
    return list(row.values())


def test_spot_checks():
    assert percents(TABLE_2_3["Caser"]["Cloth"]) == [9.66, 15.18, 12.66, 13.03]
    assert percents(TABLE_2_3["Open-P5"]["Sport"]) == [5.49, 8.50, 6.92, None]
    assert TABLE_2_3["E4SRec_8"]["Movie"]["NDCG@5"] == 17.99
    assert TABLE_2_3["SLMRec_4<-8"]["Music"]["MRR"] == 8.03
    assert (RANK_2["GRU4Rec"], RANK_2["SLMRec_4<-8"], RANK_3["Caser"], RANK_3["Open-P5"]) == (9.25, 1.50, 13.50, 5.33)
    assert percents(TABLE_4_9["cos", "norm"]["Movie"]) == [14.86, 23.89, 19.36, 19.84]
    assert percents(TABLE_4_9["cos", "ms"]["Sport"]) == [6.51, 9.39, 7.96, 8.62]
    assert percents(TABLE_6["max_steps"]) == ["1500", "-1", "800", "2000"]
    assert TABLE_6["adam_beta2"]["Sport"] == "9.999"  # as printed


def test_shapes():
    assert len(TABLE_2_3) == len(RANK_2) == len(RANK_3) == 14 and len(TABLE_4_9) == 4 and len(TABLE_6) == 17
    for row in [*TABLE_2_3.values(), *TABLE_4_9.values()]:
        assert list(row) == list(TABLE_1) == list(TABLE_6["num_blocks"])
        assert {tuple(metrics) for metrics in row.values()} == {METRICS}


def test_ablation_with_all_terms_is_the_model_of_the_main_tables():
    assert TABLE_4_9["cos", "norm", "ms"] == TABLE_2_3["SLMRec_4<-8"]


@pytest.mark.parametrize("method", TABLE_8)
def test_improvements_of_table_8_follow_from_tables_2_and_3(method):
    """Sum of all sixteen numbers over SASRec's sum; every digit of the three methods counts."""

    def total(name):
        return sum(sum(percents(row)) for row in TABLE_2_3[name].values())

    assert 100 * (total(method) / total("SASRec") - 1) == pytest.approx(TABLE_8[method][1], abs=0.005)


def possible(row):
    """Whether any distribution of ranks has these metrics to within rounding (a linear programme without an objective)."""
    known = [(gain, row[metric]) for gain, metric in zip(GAINS, METRICS, strict=True) if row[metric] is not None]
    gains = np.array([100 * gain for gain, _ in known])
    values = np.array([value for _, value in known])
    bounds = {"A_ub": np.concatenate([gains, -gains]), "b_ub": np.concatenate([values, -values]) + 0.0051}
    return linprog(np.zeros(len(RANKS)), **bounds, A_eq=np.ones((1, len(RANKS))), b_eq=[1]).status == 0


def test_possible_by_hand():
    """HR@1 10 and HR@5 20 leave NDCG@5 between 10 + 10 / log2(6) = 13.87 and 10 + 10 / log2(3) = 16.31."""
    row = {"HR@1": 10.0, "HR@5": 20.0, "MRR": None}
    assert [possible(row | {"NDCG@5": value}) for value in (13.8, 13.9, 16.3, 16.4)] == [False, True, True, False]


def test_rows_that_no_list_of_ranks_has():
    """So they are printed. Open-P5 on Cloth: NDCG@5 is at most 14.13 + (17.68 - 14.13) / log2(3) = 16.37, the paper has 17.02."""
    tables = {**TABLE_2_3, **TABLE_4_9}
    found = [(name, dataset) for name, row in tables.items() for dataset in row if not possible(row[dataset])]
    assert found == [("DuoRec", "Movie"), ("MAERec", "Music"), ("Open-P5", "Cloth"), ("Open-P5", "Music")]
