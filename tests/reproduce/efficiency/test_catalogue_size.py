import pytest

from reproduce.efficiency.catalogue_size import CatalogueArguments, Problem, as_text


def test_every_case_makes_a_turn_and_the_whole_loss_is_the_plain_one():
    problem = Problem(2000, CatalogueArguments(batch_size=8, width=4))
    values = {case: getattr(problem, case)() for case in ("plain", "loss", "sampled", "validation", "full_ranking")}
    assert values["loss"] == pytest.approx(values["plain"], rel=1e-6)
    assert values["sampled"] == pytest.approx(values["plain"], rel=0.1)
    assert 0 < values["full_ranking"] <= values["validation"] <= 1


def test_a_case_that_was_not_measured_is_a_dash():
    entry = {"items": 10_000_000, "case": "loss", "seconds": 1.5, "mib": 300.0, "value": 1.0}
    text = as_text([entry | {"items": 1000, "case": "sampled"}, entry])
    assert text.splitlines()[-1].split() == ["10,000,000", "1.50", "s,", "300", "MiB", "-"]
