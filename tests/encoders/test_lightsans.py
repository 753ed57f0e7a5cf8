import math

import pytest
import torch

from slmrec.encoders.lightsans import aggregate


@pytest.fixture
def model(make_encoder, stirred):
    return stirred(make_encoder("lightsans"))


def weighted_mean(scores, states):
    scores = torch.stack(list(scores))
    weights = (scores - scores.max()).exp()
    return sum(weight * state for weight, state in zip(weights / weights.sum(), states, strict=True))


def loop_interests(states, theta):
    """f(X) of the paper, one interest at a time."""
    return [weighted_mean([state @ interest for state in states], states) for interest in theta.T]


def loop_attention(block, table, states, positions, causal):
    """One query and one head at a time; with causal=False as the paper has it, every query over all items."""
    width = states.shape[1] // block.num_heads
    query, key, value = (states @ block.query_key_value.weight.T + block.query_key_value.bias).chunk(3, dim=1)
    places = table[positions] @ block.position_query_key.weight.T + block.position_query_key.bias
    place_query, place_key = places.chunk(2, dim=1)
    outputs = torch.zeros_like(states)
    for i in range(len(states)):
        seen = range(i + 1 if causal else len(states))
        keys, values = loop_interests(key[seen], block.key_interests), loop_interests(value[seen], block.value_interests)
        for head in range(block.num_heads):
            part = slice(head * width, (head + 1) * width)
            by_interest = [query[i, part] @ interest[part] / math.sqrt(width) for interest in keys]
            by_place = [place_query[i, part] @ place_key[j, part] / math.sqrt(width) for j in seen]
            outputs[i, part] = weighted_mean(by_interest, [interest[part] for interest in values])
            outputs[i, part] += weighted_mean(by_place, [value[j, part] for j in seen])
    return outputs @ block.attention_output.weight.T + block.attention_output.bias


def loop_forward(model, items, positions, causal=True):
    """One user's history whose items stand at the given positions, as the head of lightsans.py describes it."""
    table = model.position_norm(model.position_embedding.weight)
    states = model.input_norm(model.item_embedding.weight[items])
    for block in model.blocks:
        states = block.attention_norm(states + loop_attention(block, table, states, positions, causal))
        states = block.feed_forward_norm(states + block.feed_forward(states))
    return states


def from_the_end(items):
    return torch.arange(len(items)).flip(0)


def test_equals_a_loop_over_users_heads_and_positions(model, make_batch, rows_of):
    batch = make_batch([1, 6, 3, 6, 2])
    with torch.no_grad():
        expected = [loop_forward(model, row, from_the_end(row)) for row in rows_of(batch)]
        torch.testing.assert_close(model.encode_positions(batch), torch.cat(expected), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.encode(batch), torch.stack([rows[-1] for rows in expected]), atol=1e-5, rtol=1e-5)


def test_each_position_is_the_model_run_on_the_items_up_to_it(model, make_batch):
    items = make_batch([6])["history"]
    with torch.no_grad():
        vectors = model.encode_positions({"history": items, "lengths": torch.tensor([6])})
        for t in range(6):
            prefix = loop_forward(model, items[: t + 1], from_the_end(items)[: t + 1])
            torch.testing.assert_close(vectors[t], prefix[-1], atol=1e-5, rtol=1e-5)


def test_one_layer_is_the_papers_model_on_the_items_up_to_each_position(make_encoder, stirred, make_batch):
    """The paper's aggregation and attention, neither causal, over every prefix: the last vector of each is ours."""
    model, items = stirred(make_encoder("lightsans", num_layers=1)), make_batch([6])["history"]
    with torch.no_grad():
        vectors = model.encode_positions({"history": items, "lengths": torch.tensor([6])})
        for t in range(6):
            paper = loop_forward(model, items[: t + 1], from_the_end(items)[: t + 1], causal=False)
            torch.testing.assert_close(vectors[t], paper[-1], atol=1e-5, rtol=1e-5)


def test_aggregation_by_hand():
    """One interest; scores log 1, log 3 and log 4 weigh the three items 1 : 3 : 4 as far as they are seen."""
    states = torch.tensor([[[0.0, 2.0], [math.log(3), 6.0], [math.log(4), -10.0]]])
    theta = torch.tensor([[1.0], [0.0]])
    mask = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    means = aggregate(states, theta, mask)[0, 0, :, 1]
    torch.testing.assert_close(means, torch.tensor([2.0, (2 + 18) / 4, (2 + 18 - 40) / 8]))


def test_the_order_of_items_counts(model):
    items = torch.tensor([3, 8, 5, 9])
    forth, back = (model.encode({"history": row, "lengths": torch.tensor([4])}) for row in (items, items.flip(0)))
    swapped = model.encode({"history": items[[1, 0, 2, 3]], "lengths": torch.tensor([4])})
    assert not torch.allclose(forth, back) and not torch.allclose(forth, swapped)


def test_interests_differ_from_the_start(make_encoder):
    for block in make_encoder("lightsans").blocks:
        assert block.key_interests.std() > 0.5 and block.value_interests.std() > 0.5
