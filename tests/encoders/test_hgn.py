import math

import pytest
import torch

from slmrec.encoders.hgn import by_distance, gate_weights


@pytest.fixture
def model(make_encoder, stirred):
    return stirred(make_encoder("hgn"))


def loop_forward(model, user, items):
    """The user vector u + s + sum e of one history, item by item from the last one, as the head of hgn.py describes it."""
    u = model.user_embedding.weight[user]
    passed, gates, item_to_item = torch.zeros(8), 0.0, torch.zeros(8)
    for place, item in enumerate(reversed(items.tolist())):
        e = model.item_embedding.weight[item]
        inner = model.feature_gate_item.weight @ e + model.feature_gate_user.weight @ u + model.feature_gate_item.bias
        f = e / (1 + torch.exp(-inner))
        a = 1 / (1 + torch.exp(-(model.instance_gate_item.weight[0] @ f + model.instance_gate_user.weight[place] @ u)))
        passed, gates, item_to_item = passed + a * f, gates + a, item_to_item + e
    return u + passed / gates + item_to_item


def test_equals_a_loop_over_users_and_items(model, make_batch, rows_of):
    batch = make_batch([1, 6, 3, 6, 2]) | {"users": torch.tensor([3, 0, 11, 2, 19])}
    rows = list(zip(batch["users"], rows_of(batch), strict=True))
    with torch.no_grad():
        expected = [[loop_forward(model, user, row[: t + 1]) for t in range(len(row))] for user, row in rows]
        torch.testing.assert_close(model.encode_positions(batch), torch.stack(sum(expected, [])), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.encode(batch), torch.stack([row[-1] for row in expected]), atol=1e-5, rtol=1e-5)


def test_score_is_the_sum_of_the_papers_three_terms(model):
    """With gates that stand open by half, s is half the mean of the items."""
    for layer in (model.feature_gate_item, model.feature_gate_user, model.instance_gate_item, model.instance_gate_user):
        for parameter in layer.parameters():
            parameter.data.zero_()
    items = torch.tensor([3, 8])
    e, u, q = model.item_embedding.weight[items], model.user_embedding.weight[4], model.output_embedding.weight[7]
    expected = u @ q + (0.5 * (e[0] + e[1]) / 2) @ q + e[0] @ q + e[1] @ q
    vectors = model.encode({"users": torch.tensor([4]), "history": items, "lengths": torch.tensor([2])})
    torch.testing.assert_close(model.score(vectors, torch.tensor([[7]]))[0, 0], expected)


def test_by_distance_by_hand():
    parts = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]])  # (t, k): the item k places before t
    assert torch.equal(by_distance(parts).tril(), torch.tensor([[[1.0, 0.0, 0.0], [5.0, 4.0, 0.0], [9.0, 8.0, 7.0]]]))


def test_gate_weights_by_hand():
    logits = torch.tensor([0.0, math.log(3), 5.0])  # gates 1/2, 3/4 and one that is masked
    weights = gate_weights(logits, torch.tensor([True, True, False]))
    torch.testing.assert_close(weights, torch.tensor([0.4, 0.6, 0.0]))
    closed = gate_weights(torch.tensor([-200.0, -200.0]), torch.tensor([True, True]))  # both gates vanish in float32
    torch.testing.assert_close(closed, torch.tensor([0.5, 0.5]))
