"""Eq. 3 to 5 and the released variants on two blocks of literal 2 x 4 states.

            teacher       student        cosine          difference         squared   length
Block 1     (3, 4, 0, 0)  (4, 3, 0, 0)   24 / 25 = 0.96  (-1, 1, 0, 0)      2         sqrt 2
            (0, 0, 2, 0)  (0, 0, 0, 5)   0               (0, 0, 2, -5)      29        sqrt 29
Block 2     (1, 0, 0, 0)  (-2, 0, 0, 0)  -1              (3, 0, 0, 0)       9         3
            (1, 1, 1, 1)  (2, 2, 2, 2)   1               (-1, -1, -1, -1)   4         2

Means over the two positions: cosine 0.48 and 0; squared distance 15.5 and 6.5; distance (sqrt 2 + sqrt 29) / 2 and 2.5.
"""

import math

import pytest
import torch

from slmrec.distillation import losses

TEACHER = [
    torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]]),
    torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]),
]
STUDENT = [
    torch.tensor([[4.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 5.0]]),
    torch.tensor([[-2.0, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]]),
]
FEATURE_TERMS = [losses.mean_cosine, losses.mean_squared_distance, losses.summed_cosine_gap, losses.summed_distance]


def test_equation_3():
    assert losses.mean_cosine(TEACHER, STUDENT).item() == pytest.approx((0.48 + 0) / 2)
    assert losses.mean_cosine(TEACHER[:1], STUDENT[:1]).item() == pytest.approx(0.48)


def test_equation_4():
    assert losses.mean_squared_distance(TEACHER, STUDENT).item() == pytest.approx((15.5 + 6.5) / 2)
    assert losses.mean_squared_distance(TEACHER[1:], STUDENT[1:]).item() == pytest.approx(6.5)


def test_equation_5():
    assert losses.mean_loss([torch.tensor(2.0), torch.tensor(3.0), torch.tensor(7.0)]).item() == pytest.approx(4.0)


def test_released_code_sums_over_blocks_and_does_not_square():
    assert losses.summed_cosine_gap(TEACHER, STUDENT).item() == pytest.approx((1 - 0.48) + (1 - 0))
    assert losses.summed_distance(TEACHER, STUDENT).item() == pytest.approx((2**0.5 + 29**0.5) / 2 + 2.5)
    assert losses.summed_loss([torch.tensor(2.0), torch.tensor(3.0), torch.tensor(7.0)]).item() == pytest.approx(12.0)


def test_identical_states_have_no_gap_and_no_distance():
    assert 1 - losses.mean_cosine(TEACHER, TEACHER).item() == pytest.approx(0, abs=1e-6)
    assert losses.mean_squared_distance(TEACHER, TEACHER).item() == 0
    assert losses.summed_cosine_gap(TEACHER, TEACHER).item() == pytest.approx(0, abs=1e-6)
    assert losses.summed_distance(TEACHER, TEACHER).item() == 0


def test_the_cosine_is_blind_to_length_and_the_distance_is_not():
    doubled = [2 * states for states in TEACHER]
    assert losses.mean_cosine(TEACHER, doubled).item() == pytest.approx(1)
    assert losses.mean_squared_distance(TEACHER, doubled).item() == pytest.approx(((25 + 4) / 2 + (1 + 4) / 2) / 2)


@pytest.mark.parametrize("term", FEATURE_TERMS)
def test_terms_are_symmetric_and_computed_in_float32(term):
    assert term(TEACHER, STUDENT).item() == pytest.approx(term(STUDENT, TEACHER).item())
    halves = [[states.bfloat16() for states in blocks] for blocks in (TEACHER, STUDENT)]  # exact: small whole numbers
    assert term(*halves).dtype == torch.float32
    assert term(*halves).item() == pytest.approx(term(TEACHER, STUDENT).item())


@pytest.mark.parametrize("term", FEATURE_TERMS)
def test_a_missing_block_is_an_error(term):
    with pytest.raises(ValueError):
        term(TEACHER, STUDENT[:1])


@pytest.mark.parametrize("term", FEATURE_TERMS)
def test_gradients_are_finite_where_student_and_teacher_agree(term):
    student = [states.clone().requires_grad_() for states in TEACHER]
    term(TEACHER, student).backward()
    assert all(states.grad.isfinite().all() for states in student)


# -- terms of other methods -----------------------------------------------------------------------------------------------------


def test_attention_divergence_by_hand():
    """One position, two heads over three slots, the last of which is masked for both: KL of (1/2, 1/2) from (1/4, 3/4), and 0."""
    teacher = torch.tensor([[[0.5, 0.5, 0.0], [0.1, 0.9, 0.0]]])
    student = torch.tensor([[[0.25, 0.75, 0.0], [0.1, 0.9, 0.0]]])
    divergence = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert losses.attention_divergence(teacher, student).item() == pytest.approx(divergence / 2)
    assert losses.attention_divergence(teacher, teacher).item() == 0


def test_attention_divergence_has_finite_gradients_at_masked_slots():
    logits = torch.tensor([[[0.3, -0.2, float("-inf")]]], requires_grad=True)
    losses.attention_divergence(torch.tensor([[[0.5, 0.5, 0.0]]]), logits.softmax(-1)).backward()
    assert logits.grad.isfinite().all() and logits.grad[0, 0, :2].abs().min() > 0


def test_contrastive_loss_by_hand():
    """Block 1: cosines (1, 0; 0, 1) at temperature 1 / log 3 give the own state the chance 3/4. Block 2: all equal, 1/2."""
    unit = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    same = torch.tensor([[2.0, 0.0], [5.0, 0.0]])
    value = losses.contrastive_loss([unit, same], [3 * unit, same], 1 / math.log(3))
    assert value.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    swapped = losses.contrastive_loss([unit], [unit.flip(0)], 1 / math.log(3))
    assert swapped.item() == pytest.approx(math.log(4))
