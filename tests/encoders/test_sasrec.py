import math

import pytest
import torch
import torch.nn.functional as F

from slmrec.artifacts import InputError
from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.encoders.sasrec import SASRec

LENGTHS = [1, 6, 3, 6, 2]


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = SASRec(num_items=40, hidden_size=8, num_layers=2, num_heads=2, dropout=0.3, max_length=6).eval()
    for parameter in model.parameters():  # away from the small initial weights, so that every term counts
        parameter.data.mul_(5.0).add_(0.1 * torch.randn_like(parameter))
    return model


def make_batch(lengths=LENGTHS, num_items=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    return {
        "users": torch.arange(len(lengths)),
        "history": torch.randint(1, num_items + 1, (total,), generator=generator),
        "lengths": torch.tensor(lengths),
        "targets": torch.randint(1, num_items + 1, (total,), generator=generator),
    }


def rows_of(batch):
    return torch.split(batch["history"], batch["lengths"].tolist())


def loop_attention(block, inputs):
    """One head, one query and one key at a time."""
    width = inputs.shape[1] // block.num_heads
    query, key, value = (inputs @ block.query_key_value.weight.T + block.query_key_value.bias).chunk(3, dim=1)
    outputs = torch.zeros_like(inputs)
    for head in range(block.num_heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(len(inputs)):
            scores = [(query[i, part] @ key[j, part]) / math.sqrt(width) for j in range(i + 1)]
            weights = torch.stack(scores).exp()
            weights = weights / weights.sum()
            outputs[i, part] = sum(weight * value[j, part] for j, weight in enumerate(weights))
    return outputs @ block.attention_output.weight.T + block.attention_output.bias


def normalise(norm, states):
    centred = states - states.mean(1, keepdim=True)
    return centred / (centred.pow(2).mean(1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def loop_forward(model, items):
    """One user's history, as the head of sasrec.py describes it."""
    states = torch.stack(
        [
            model.item_embedding.weight[item] + model.position_embedding.weight[len(items) - 1 - index]
            for index, item in enumerate(items.tolist())
        ]
    )
    states = normalise(model.input_norm, states)
    for block in model.blocks:
        states = normalise(block.attention_norm, states + loop_attention(block, states))
        first, _, second = block.feed_forward
        inner = F.gelu(states @ first.weight.T + first.bias)
        states = normalise(block.feed_forward_norm, states + inner @ second.weight.T + second.bias)
    return states


def test_equals_a_loop_over_users_heads_and_positions(model):
    batch = make_batch()
    with torch.no_grad():
        expected = [loop_forward(model, row) for row in rows_of(batch)]
        torch.testing.assert_close(model.encode_positions(batch), torch.cat(expected), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.encode(batch), torch.stack([rows[-1] for rows in expected]), atol=1e-5, rtol=1e-5)


def test_later_items_do_not_influence_earlier_positions(model):
    batch = make_batch([6])
    before = model.encode_positions(batch)
    for changed in range(6):
        history = batch["history"].clone()
        history[changed] = history[changed] % 40 + 1
        after = model.encode_positions(batch | {"history": history})
        assert torch.equal(after[:changed], before[:changed])
        assert (after[changed:] != before[changed:]).any(dim=1).all()


def test_the_target_does_not_influence_its_own_score(model):
    """A target is no input, and at a training position it is only in the history of later positions."""
    batch = make_batch()
    others = batch | {"targets": batch["targets"] % 40 + 1}
    assert torch.equal(model.encode_positions(batch), model.encode_positions(others))


def test_same_vectors_alone_and_in_any_batch(model):
    batch = make_batch()
    together = model.encode(batch)
    for row, items in enumerate(rows_of(batch)):
        alone = model.encode({"history": items, "lengths": torch.tensor([len(items)])})
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)
    order = torch.tensor([3, 0, 4, 2, 1])
    shuffled = {"history": torch.cat([rows_of(batch)[row] for row in order]), "lengths": batch["lengths"][order]}
    torch.testing.assert_close(model.encode(shuffled), together[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("targets", ["all", "last"])
def test_training_loss_reads_the_named_positions(model, targets):
    batch = make_batch()
    read = slice(None) if targets == "all" else slice(-1, None)
    vectors = torch.cat([loop_forward(model, row)[read] for row in rows_of(batch)])
    batch["targets"] = batch["targets"][: len(vectors)]
    scores = vectors @ model.item_matrix()[1:].T
    expected = F.cross_entropy(scores, batch["targets"] - 1)
    terms = model.training_loss(batch, targets, catalogue_cross_entropy)
    torch.testing.assert_close(terms["total"], expected, atol=1e-4, rtol=1e-4)


def test_pad_row_stays_zero_in_training(model):
    model.item_embedding.weight.data[0] = 0.0
    optimizer = torch.optim.Adam(model.train().parameters(), weight_decay=0.1)
    model.training_loss(make_batch(), "all", catalogue_cross_entropy)["total"].backward()
    optimizer.step()
    assert model.item_matrix()[0].abs().max() == 0


def test_dropout_acts_in_training_only(model):
    batch = make_batch()
    assert torch.equal(model.encode(batch), model.encode(batch))
    model.train()
    assert not torch.equal(model.encode(batch), model.encode(batch))


def test_heads_must_divide_the_width():
    with pytest.raises(InputError, match="--hidden_size 10 .* --num_heads 4"):
        SASRec(num_items=3, hidden_size=10, num_layers=1, num_heads=4, dropout=0.0, max_length=5)
