"""Propositions 1 and 2: the parts by hand, the errors of random stacks, and that a wrong gradient is noticed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from reproduce import theory
from slmrec.errors import InputError

STACK = np.array([[[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]])  # two layers of attention over two tokens
INPUTS = np.array([[1.0], [3.0]])


def test_layer_outputs_by_hand():
    """First layer adds (1, 2), the second doubles."""
    assert [state.ravel().tolist() for state in theory.layer_outputs(STACK, INPUTS)] == [[1, 3], [2, 5], [4, 10]]


def test_attention_is_causal_and_its_rows_sum_to_one():
    attention = theory.causal_attention(np.random.default_rng(0), layers=3, tokens=5)
    assert attention.shape == (3, 5, 5) and np.allclose(attention.sum(axis=-1), 1) and not np.triu(attention, 1).any()
    assert (attention[:, np.tri(5, dtype=bool)] > 0).all()


def test_gradient_by_finite_differences():
    rng = np.random.default_rng(0)
    states, target, direction = rng.normal(size=(3, 4, 2))

    def energy(at):
        return np.sum((at - target) ** 2)

    slope = (energy(states + 1e-4 * direction) - energy(states - 1e-4 * direction)) / 2e-4
    assert np.sum(theory.gradient(states, target) * direction) == pytest.approx(slope, rel=1e-6)


def test_proposition_1_holds_with_step_a_half_and_not_as_printed():
    """One token attends to itself alone: H(1) = 2 H(0), and a step of size 1 ends at H(0) - 2 (H(0) - 2 H(0)) = 3 H(0)."""
    attention = np.ones((1, 1, 1))
    states = theory.layer_outputs(attention, np.array([[5.0]]))
    assert theory.proposition_1_error(attention, states, step=0.5) == 0
    assert theory.proposition_1_error(attention, states, step=1.0) == 0.5


def test_proposition_2_on_the_stack_by_hand():
    """With mu = 1/2, C* H(0) = 2 A* H(0) - H(0) = (7, 17); a quarter of the gradient's 2 (6, 14) leads from (1, 3) to (4, 10)."""
    states = theory.layer_outputs(STACK, INPUTS)
    assert theory.proposition_2_error(STACK, states, mu=0.5) == pytest.approx(0, abs=1e-15)
    wrong = [states[0], states[1], np.array([[4.0], [9.0]])]
    assert theory.proposition_2_error(STACK, wrong, mu=0.5) == pytest.approx(1 / np.sqrt(97))


def test_c_star_sums_as_the_docstring_says():
    """Its rows sum to (2^K - 1 + mu) / mu = 3.5 / 0.5 = 7 for K = 2, mu = 1/2: so it maps ones to sevens."""
    ones = np.ones((2, 1))
    c_star_ones = (theory.layer_outputs(STACK, ones)[-1] - 0.5 * ones) / 0.5
    assert c_star_ones.ravel().tolist() == [7, 7]


def test_the_command(tmp_path, capsys):
    output = tmp_path / "tables" / "theory.json"
    theory.main(["--output", str(output)])
    found = json.loads(output.read_text())
    assert found["experiment"] == "theory" and found["seed"] == 0 and found["holds"]
    assert [(stack["layers"], stack["tokens"], stack["width"]) for stack in found["stacks"]] == theory.STACKS
    for stack in found["stacks"]:
        assert max(stack["proposition_1_error"], stack["proposition_2_error"]) < 1e-14
        assert stack["proposition_1_error_printed_step"] > 0.2
        assert stack["proposition_2_error"] == max(stack["proposition_2_error_by_mu"].values())
    assert "largest relative error" in capsys.readouterr().out
    assert str(tmp_path) not in output.read_text()


def test_another_seed_gives_other_stacks():
    first, again, other = (theory.measure(seed, 4, 12, 16)["proposition_1_error_printed_step"] for seed in (0, 0, 1))
    assert first == again != other


def test_a_wrong_gradient_fails_with_exit_code_1(tmp_path, monkeypatch, capsys):
    """The gradient of Eq. 14, without the factor 2."""
    monkeypatch.setattr(theory, "gradient", lambda states, target: states - target)
    with pytest.raises(SystemExit) as caught:
        theory.main(["--output", str(tmp_path / "theory.json")])
    assert caught.value.code == 1
    assert "does not hold within" in capsys.readouterr().err
    assert not json.loads((tmp_path / "theory.json").read_text())["holds"]


def test_a_negative_seed_is_an_input_error():
    with pytest.raises(InputError, match="--seed -1"):
        theory.main(["--seed", "-1"])
