"""Telling attributes: against values by hand and against loops over every vector and every attribute."""

import math

import pytest
import torch

from slmrec.encoders import attribute_prediction
from slmrec.encoders.attribute_prediction import AttributePrediction, attribute_loss, attributes_of

# Items 1 to 4: attributes {2, 0}, none, {1}, {0, 1, 2}
IDS, OFFSETS = torch.tensor([2, 0, 1, 0, 1, 2]), torch.tensor([0, 2, 2, 3, 6])
HELD = {1: {0, 2}, 2: set(), 3: {1}, 4: {0, 1, 2}}


def loop_loss(vectors, table, weight, items):
    """One vector and one attribute at a time."""
    losses = []
    for vector, item in zip(vectors, items.tolist(), strict=True):
        terms = []
        for number, attribute in enumerate(table):
            probability = torch.sigmoid(attribute @ weight @ vector)
            terms.append(-torch.log(probability if number in HELD[item] else 1 - probability))
        if HELD[item]:
            losses.append(sum(terms))
    return sum(losses) / len(losses)


def test_pairs_of_items_and_their_attributes():
    row, attribute = attributes_of(torch.tensor([4, 2, 1, 4]), IDS, OFFSETS)
    assert row.tolist() == [0, 0, 0, 2, 2, 3, 3, 3] and attribute.tolist() == [0, 1, 2, 2, 0, 0, 1, 2]
    row, attribute = attributes_of(torch.tensor([2]), IDS, OFFSETS)
    assert len(row) == len(attribute) == 0


def test_loss_by_hand():
    vectors, table = torch.tensor([[math.log(3)], [7.0], [0.0]]), torch.tensor([[1.0], [-1.0]])
    # row 0 has attribute 0 (probability 3/4) and not 1 (1/4); row 1 none, so it is left out; row 2 has both, 1/2 each
    loss = attribute_loss(vectors, table, torch.tensor([0, 2, 2]), torch.tensor([0, 0, 1]))
    assert loss.item() == pytest.approx((-2 * math.log(3 / 4) - 2 * math.log(1 / 2)) / 2)


@pytest.mark.parametrize("items", [torch.zeros(0, dtype=torch.int64), torch.tensor([2, 2])])
def test_nothing_to_tell_costs_nothing(items):
    vectors, table = torch.ones(len(items), 2, requires_grad=True), torch.ones(3, 2)
    loss = attribute_loss(vectors, table, *attributes_of(items, IDS, OFFSETS))
    assert loss == 0.0
    loss.backward()
    assert vectors.grad.abs().sum() == 0.0


@pytest.mark.parametrize("logits_at_a_time", [1, 7, 2**22])  # 1, 2 and all vectors a chunk
def test_loss_and_gradients_equal_loops(monkeypatch, logits_at_a_time):
    monkeypatch.setattr(attribute_prediction, "CHUNK_LOGITS", logits_at_a_time)
    torch.manual_seed(0)
    model, vectors = AttributePrediction(3, 4, IDS, OFFSETS).double(), torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    for weight in model.parameters():
        torch.nn.init.normal_(weight)
    items = torch.tensor([1, 4, 2, 3, 1, 4])
    for loss_of, projection in (
        (model.associated, model.associated_projection),
        (model.masked, model.masked_projection),
    ):
        inputs = [vectors, model.attribute_embedding.weight, projection.weight]
        loss, expected = loss_of(vectors, items), loop_loss(*inputs, items)
        torch.testing.assert_close(loss, expected)
        for gradient, other in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
            torch.testing.assert_close(gradient, other)


def test_the_maps_start_as_plain_products():
    model, vectors = AttributePrediction(3, 4, IDS, OFFSETS), torch.randn(2, 4)
    plain = attribute_loss(vectors, model.attribute_embedding.weight, *attributes_of(torch.tensor([1, 3]), IDS, OFFSETS))
    assert model.associated(vectors, torch.tensor([1, 3])) == model.masked(vectors, torch.tensor([1, 3])) == plain
