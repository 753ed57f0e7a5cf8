import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from slmrec.artifacts import InputError
from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.data.dataset import SequenceDataset
from slmrec.encoders.checkpoint import WEIGHTS, save_encoder
from slmrec.encoders.lightsans import LightSANs, aggregate
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.training.encoder_loop import LoopSettings, train_encoder

LENGTHS = [1, 6, 3, 6, 2]
ARCHITECTURE = {"num_items": 40, "hidden_size": 8, "num_heads": 2, "num_interests": 3, "dropout": 0.3, "max_length": 6}


def make_model(num_layers=2):
    torch.manual_seed(0)
    model = LightSANs(**ARCHITECTURE, num_layers=num_layers).eval()
    for parameter in model.parameters():  # away from the small initial weights, so that every term counts
        parameter.data.mul_(3.0).add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def model():
    return make_model()


def make_batch(lengths=LENGTHS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    return {
        "users": torch.arange(len(lengths)),
        "history": torch.randint(1, 41, (total,), generator=generator),
        "lengths": torch.tensor(lengths),
        "targets": torch.randint(1, 41, (total,), generator=generator),
    }


def rows_of(batch):
    return torch.split(batch["history"], batch["lengths"].tolist())


def weighted_mean(scores, states):
    weights = torch.stack(list(scores)).exp()
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


def test_equals_a_loop_over_users_heads_and_positions(model):
    batch = make_batch()
    with torch.no_grad():
        expected = [loop_forward(model, row, from_the_end(row)) for row in rows_of(batch)]
        torch.testing.assert_close(model.encode_positions(batch), torch.cat(expected), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.encode(batch), torch.stack([rows[-1] for rows in expected]), atol=1e-5, rtol=1e-5)


def test_each_position_is_the_model_run_on_the_items_up_to_it(model):
    items = make_batch([6])["history"]
    with torch.no_grad():
        vectors = model.encode_positions({"history": items, "lengths": torch.tensor([6])})
        for t in range(6):
            prefix = loop_forward(model, items[: t + 1], from_the_end(items)[: t + 1])
            torch.testing.assert_close(vectors[t], prefix[-1], atol=1e-5, rtol=1e-5)


def test_one_layer_is_the_papers_model_on_the_items_up_to_each_position():
    """The paper's aggregation and attention, neither causal, over every prefix: the last vector of each is ours."""
    model, items = make_model(num_layers=1), make_batch([6])["history"]
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


def test_later_items_do_not_influence_earlier_positions(model):
    batch = make_batch([6])
    before = model.encode_positions(batch)
    for changed in range(6):
        history = batch["history"].clone()
        history[changed] = history[changed] % 40 + 1
        after = model.encode_positions(batch | {"history": history})
        assert torch.equal(after[:changed], before[:changed])
        assert (after[changed:] != before[changed:]).any(dim=1).all()


def test_targets_are_not_read(model):
    batch = make_batch()
    assert torch.equal(model.encode_positions(batch), model.encode_positions(batch | {"targets": batch["targets"] % 40 + 1}))


def test_same_vectors_alone_and_in_any_batch(model):
    batch = make_batch()
    together = model.encode(batch)
    for row, items in enumerate(rows_of(batch)):
        alone = model.encode({"history": items, "lengths": torch.tensor([len(items)])})
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)


def test_the_order_of_items_counts(model):
    items = torch.tensor([3, 8, 5, 9])
    forth, back = (model.encode({"history": row, "lengths": torch.tensor([4])}) for row in (items, items.flip(0)))
    swapped = model.encode({"history": items[[1, 0, 2, 3]], "lengths": torch.tensor([4])})
    assert not torch.allclose(forth, back) and not torch.allclose(forth, swapped)


@pytest.mark.parametrize("targets", ["all", "last"])
def test_training_loss_reads_the_named_positions(model, targets):
    batch = make_batch()
    vectors = model.encode_positions(batch) if targets == "all" else model.encode(batch)
    batch["targets"] = batch["targets"][: len(vectors)]
    expected = F.cross_entropy(vectors @ model.item_matrix()[1:].T, batch["targets"] - 1)
    torch.testing.assert_close(model.training_loss(batch, targets, catalogue_cross_entropy)["total"], expected)


def test_interests_differ_from_the_start():
    model = LightSANs(**ARCHITECTURE, num_layers=1)
    assert model.blocks[0].key_interests.std() > 0.5
    model.training_loss(make_batch(), "all", catalogue_cross_entropy)["total"].backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_learns_a_cycle_by_heart(tmp_path):
    """Item i is always followed by item i + 1, and 12 by 1."""
    sequences = [(np.arange(7) + user) % 12 + 1 for user in range(24)]
    dataset = SequenceDataset(np.concatenate(sequences).astype(np.int32), np.arange(25, dtype=np.int64) * 7, 12)
    torch.manual_seed(0)
    model = LightSANs(12, hidden_size=16, num_layers=1, num_heads=2, num_interests=3, dropout=0.0, max_length=5)
    settings = LoopSettings("all", learning_rate=0.01, batch_size=8, num_epochs=40, patience=40, weight_decay=0.0, seed=0)
    train_encoder(model, dataset, settings, tmp_path, torch.device("cpu"))
    assert evaluate_recommender(model, dataset, "test", full_ranking=True, progress=False).metrics["full"]["HR@1"] == 1.0


def test_saved_and_loaded_it_scores_alike(model, tmp_path):
    save_encoder(model, tmp_path)
    loaded = LightSANs(**ARCHITECTURE, num_layers=2).eval()
    loaded.load_state_dict(load_file(tmp_path / WEIGHTS))
    batch = make_batch()
    assert torch.equal(loaded.score_all(loaded.encode(batch)), model.score_all(model.encode(batch)))


def test_heads_must_divide_the_width():
    with pytest.raises(InputError, match="--hidden_size 8 .* --num_heads 3"):
        LightSANs(**ARCHITECTURE | {"num_heads": 3}, num_layers=1)
