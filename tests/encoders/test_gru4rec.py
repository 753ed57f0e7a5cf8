from collections import namedtuple
from itertools import count

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.data.dataset import SequenceDataset
from slmrec.encoders.checkpoint import WEIGHTS, save_encoder
from slmrec.encoders.gru4rec import GRU4Rec, time_major
from slmrec.encoders.registry import build_encoder
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.training import encoder_loop
from slmrec.training.encoder_loop import LoopSettings, train_encoder

LENGTHS = [1, 6, 3, 6, 2]
ARCHITECTURE = {"hidden_size": 8, "num_layers": 2, "dropout": 0.3, "max_length": 6}


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = build_encoder("gru4rec", 40, 5, ARCHITECTURE).eval()
    for parameter in model.parameters():  # away from the small initial weights, so that every term counts
        parameter.data.mul_(2.0).add_(0.1 * torch.randn_like(parameter))
    return model


def make_batch(lengths=LENGTHS):
    generator = torch.Generator().manual_seed(0)
    total = sum(lengths)
    return {
        "users": torch.arange(len(lengths)),
        "history": torch.randint(1, 41, (total,), generator=generator),
        "lengths": torch.tensor(lengths),
        "targets": torch.randint(1, 41, (total,), generator=generator),
    }


def rows_of(batch):
    return torch.split(batch["history"], batch["lengths"].tolist())


def loop_forward(model, items):
    """One user's history, one item and one layer at a time, as the head of gru4rec.py describes it."""
    inputs = [model.item_embedding.weight[item] for item in items.tolist()]
    for layer in range(model.gru.num_layers):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        w, u, b, b_state = (getattr(model.gru, f"{name}_l{layer}").chunk(3) for name in names)  # reset, update, candidate
        state, outputs = torch.zeros_like(inputs[0]), []
        for x in inputs:
            reset = torch.sigmoid(w[0] @ x + b[0] + u[0] @ state + b_state[0])
            keep = torch.sigmoid(w[1] @ x + b[1] + u[1] @ state + b_state[1])
            candidate = torch.tanh(w[2] @ x + b[2] + reset * (u[2] @ state + b_state[2]))
            state = (1 - keep) * candidate + keep * state
            outputs.append(state)
        inputs = outputs
    return torch.stack(inputs) @ model.output_layer.weight.T + model.output_layer.bias


def test_equals_a_loop_over_users_layers_and_items(model):
    batch = make_batch()
    with torch.no_grad():
        expected = [loop_forward(model, row) for row in rows_of(batch)]
        torch.testing.assert_close(model.encode_positions(batch), torch.cat(expected), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.encode(batch), torch.stack([rows[-1] for rows in expected]), atol=1e-5, rtol=1e-5)


def test_time_major_by_hand():
    """Rows a, b0 b1 b2, c0 c1 at 0, 1 2 3, 4 5: first b0 c0 a, then b1 c1, then b2."""
    order, running = time_major(torch.tensor([1, 3, 2]))
    assert order.tolist() == [1, 4, 0, 2, 5, 3]
    assert running.tolist() == [3, 2, 1]


def test_a_single_item_is_one_step_from_nothing():
    """With h_0 = 0 nothing but the biases of the state's side remains."""
    torch.manual_seed(0)
    one = GRU4Rec(num_items=3, hidden_size=4, num_layers=1, dropout=0.0, max_length=5).eval()
    gates = one.gru.weight_ih_l0 @ one.item_embedding.weight[2] + one.gru.bias_ih_l0
    (reset, keep, candidate), state_bias = gates.chunk(3), one.gru.bias_hh_l0.chunk(3)
    state = (1 - (keep + state_bias[1]).sigmoid()) * torch.tanh(candidate + (reset + state_bias[0]).sigmoid() * state_bias[2])
    vector = one.encode({"history": torch.tensor([2]), "lengths": torch.tensor([1])})
    torch.testing.assert_close(vector[0], one.output_layer(state))


def test_later_items_do_not_influence_earlier_positions(model):
    batch = make_batch([6])
    before = model.encode_positions(batch)
    for changed in range(6):
        history = batch["history"].clone()
        history[changed] = history[changed] % 40 + 1
        after = model.encode_positions(batch | {"history": history})
        assert torch.equal(after[:changed], before[:changed])
        assert (after[changed:] != before[changed:]).any(dim=1).all()


def test_targets_and_users_do_not_influence_the_vectors(model):
    batch = make_batch()
    others = batch | {"targets": batch["targets"] % 40 + 1, "users": batch["users"].flip(0)}
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
    expected = F.cross_entropy(vectors @ model.item_matrix()[1:].T, batch["targets"] - 1)
    terms = model.training_loss(batch, targets, catalogue_cross_entropy)
    torch.testing.assert_close(terms["total"], expected, atol=1e-4, rtol=1e-4)


def test_dropout_acts_in_training_only(model):
    batch = make_batch()
    assert torch.equal(model.encode(batch), model.encode(batch))
    model.train()
    assert not torch.equal(model.encode(batch), model.encode(batch))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_one_layer_has_no_dropout_between_layers(num_layers, recwarn):
    model = GRU4Rec(num_items=3, hidden_size=4, num_layers=num_layers, dropout=0.5, max_length=5)
    assert model.gru.dropout == (0.5 if num_layers == 2 else 0.0)
    assert not recwarn.list


@pytest.fixture
def keep_last_epoch(monkeypatch):
    """Validation MRR that rises: among the few rivals of a tiny catalogue the real one is 1 before all is learnt."""
    result, rising = namedtuple("Evaluation", "metrics"), count()
    monkeypatch.setattr(encoder_loop, "evaluate_recommender", lambda *_, **__: result({"sampled": {"MRR": next(rising)}}))


@pytest.mark.parametrize("targets", ["all", "last"])
def test_learns_a_cycle_by_heart_and_survives_saving(tmp_path, targets, keep_last_epoch):
    """Item i is always followed by item i + 1, and the last by the first."""
    items = np.concatenate([(np.arange(7) + user) % 12 + 1 for user in range(24)]).astype(np.int32)
    dataset = SequenceDataset(items, np.arange(25, dtype=np.int64) * 7, 12)
    architecture = {"hidden_size": 16, "num_layers": 1, "dropout": 0.0, "max_length": 5}
    torch.manual_seed(0)
    model = build_encoder("gru4rec", 12, 24, architecture)
    settings = LoopSettings(targets, learning_rate=0.01, batch_size=8, num_epochs=40, patience=40, weight_decay=0.0, seed=0)
    train_encoder(model, dataset, settings, tmp_path, torch.device("cpu"))
    trained = evaluate_recommender(model, dataset, "test", full_ranking=True, progress=False)
    assert trained.metrics["full"]["HR@1"] == 1.0

    save_encoder(model, tmp_path)
    loaded = build_encoder("gru4rec", 12, 24, architecture)
    loaded.load_state_dict(load_file(tmp_path / WEIGHTS))
    batch = {"history": torch.tensor([3, 4, 5, 9]), "lengths": torch.tensor([3, 1])}
    assert torch.equal(loaded.eval().score_all(loaded.encode(batch)), model.eval().score_all(model.encode(batch)))
