import math
from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import SequenceDataset
from slmrec.encoders.checkpoint import WEIGHTS, save_encoder
from slmrec.encoders.hgn import HGN, by_distance, gate_weights
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.training import encoder_loop
from slmrec.training.encoder_loop import LoopSettings, train_encoder

LENGTHS = [1, 6, 3, 6, 2]
ARCHITECTURE = {"num_items": 40, "num_users": 9, "hidden_size": 8, "dropout": 0.3, "max_length": 6}


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = HGN(**ARCHITECTURE).eval()
    for parameter in model.parameters():  # away from the small initial weights, so that every gate counts
        parameter.data.mul_(5.0).add_(0.3 * torch.randn_like(parameter))
    return model


def make_batch(lengths=LENGTHS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    return {
        "users": torch.arange(len(lengths)) + 2,
        "history": torch.randint(1, 41, (total,), generator=generator),
        "lengths": torch.tensor(lengths),
        "targets": torch.randint(1, 41, (total,), generator=generator),
    }


def rows_of(batch):
    return zip(batch["users"], torch.split(batch["history"], batch["lengths"].tolist()), strict=True)


def one_row(user, items):
    return {"users": user.reshape(1), "history": items, "lengths": torch.tensor([len(items)])}


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


def test_equals_a_loop_over_users_and_items(model):
    batch = make_batch()
    with torch.no_grad():
        expected = [[loop_forward(model, user, row[: t + 1]) for t in range(len(row))] for user, row in rows_of(batch)]
        torch.testing.assert_close(model.encode_positions(batch), torch.stack(sum(expected, [])), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.encode(batch), torch.stack([row[-1] for row in expected]), atol=1e-5, rtol=1e-5)


def test_score_is_the_sum_of_the_papers_three_terms(model):
    """With gates that stand open by half, s is half the mean of the items."""
    for layer in (model.feature_gate_item, model.feature_gate_user, model.instance_gate_item, model.instance_gate_user):
        for parameter in layer.parameters():
            parameter.data.zero_()
    items, user = torch.tensor([3, 8]), torch.tensor(4)
    e, u, q = model.item_embedding.weight[items], model.user_embedding.weight[4], model.output_embedding.weight[7]
    expected = u @ q + (0.5 * (e[0] + e[1]) / 2) @ q + e[0] @ q + e[1] @ q
    torch.testing.assert_close(model.score(model.encode(one_row(user, items)), torch.tensor([[7]]))[0, 0], expected)


def test_by_distance_by_hand():
    parts = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]])  # (t, k): the item k places before t
    assert torch.equal(by_distance(parts).tril(), torch.tensor([[[1.0, 0.0, 0.0], [5.0, 4.0, 0.0], [9.0, 8.0, 7.0]]]))


def test_gate_weights_by_hand():
    logits = torch.tensor([0.0, math.log(3), 5.0])  # gates 1/2, 3/4 and one that is masked
    weights = gate_weights(logits, torch.tensor([True, True, False]))
    torch.testing.assert_close(weights, torch.tensor([0.4, 0.6, 0.0]))
    closed = gate_weights(torch.tensor([-200.0, -200.0]), torch.tensor([True, True]))  # both gates vanish in float32
    torch.testing.assert_close(closed, torch.tensor([0.5, 0.5]))


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
    for row, (user, items) in enumerate(rows_of(batch)):
        torch.testing.assert_close(model.encode(one_row(user, items))[0], together[row], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("targets", ["all", "last"])
def test_training_loss_reads_the_named_positions(model, targets):
    batch = make_batch()
    vectors = model.encode_positions(batch) if targets == "all" else model.encode(batch)
    batch["targets"] = batch["targets"][: len(vectors)]
    expected = F.cross_entropy(vectors @ model.output_embedding.weight[1:].T, batch["targets"] - 1)
    torch.testing.assert_close(model.training_loss(batch, targets, catalogue_cross_entropy)["total"], expected)


def test_pad_rows_stay_zero_in_training():
    model = HGN(**ARCHITECTURE)
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.1)
    model.training_loss(make_batch(), "all", catalogue_cross_entropy)["total"].backward()
    optimizer.step()
    assert model.item_matrix()[0].abs().max() == 0 and model.item_embedding.weight[0].abs().max() == 0


# -- users ----------------------------------------------------------------------------------------------------------------------


def dataset_of(sequences, num_items):
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])])
    return SequenceDataset(np.concatenate(sequences).astype(np.int32), offsets, num_items)


def cyclic_dataset():
    """24 users with 7 actions; item i is always followed by item i + 1, and 12 by 1."""
    return dataset_of([(np.arange(7) + user) % 12 + 1 for user in range(24)], 12)


def trained(directory, dataset, **changes):
    torch.manual_seed(0)
    model = HGN(dataset.num_items, dataset.num_users, hidden_size=16, dropout=0.0, max_length=5)
    values = {"targets": "all", "learning_rate": 0.01, "batch_size": 8, "num_epochs": 40, "patience": 40} | changes
    train_encoder(model, dataset, LoopSettings(**values, weight_decay=0.0, seed=0), directory, torch.device("cpu"))
    return model.eval()


def test_a_user_without_a_training_row_gets_the_mean_of_the_others(tmp_path):
    dataset = dataset_of([np.array([1, 2, 3, 4, 5]), np.array([4, 2, 1]), np.array([2, 3, 4, 5, 1, 2])], 5)
    model = trained(tmp_path, dataset, num_epochs=2)
    assert model.trained_users.tolist() == [True, False, True]  # three actions are one to read, one to validate, one to test
    batch = SplitRows(dataset, "test", 5).collate([0, 1, 2])
    before = model.encode(batch)
    with torch.no_grad():
        model.user_embedding.weight[1] = model.user_embedding.weight[[0, 2]].mean(0)
        torch.testing.assert_close(loop_forward_of(model, 1, batch["history"][4:6]), before[1])
        model.user_embedding.weight[1] = 100.0
    assert torch.equal(model.encode(batch), before)
    save_encoder(model, tmp_path)
    loaded = HGN(5, 3, hidden_size=16, dropout=0.0, max_length=5).eval()
    loaded.load_state_dict(load_file(tmp_path / WEIGHTS))
    assert torch.equal(loaded.encode(batch), before)
    assert evaluate_recommender(model, dataset, "test", progress=False).ranks["sampled"].min() >= 1


def loop_forward_of(model, user, items):
    """What a model that knew the user would say."""
    everybody = HGN(5, 3, hidden_size=16, dropout=0.0, max_length=5).eval()
    everybody.load_state_dict(model.state_dict() | {"trained_users": torch.ones(3, dtype=torch.bool)})
    return everybody.encode(one_row(torch.tensor(user), items))[0]


def test_the_user_counts(model):
    items = torch.tensor([3, 4, 5])
    first, second = (model.encode(one_row(torch.tensor(user), items)) for user in (0, 1))
    assert not torch.allclose(first, second)


def test_learns_its_training_transitions_by_heart(tmp_path, monkeypatch):
    risen = iter(range(1, 100))  # so that the last epoch is kept, not the one that knows least of its users
    evaluation = namedtuple("Evaluation", "metrics")
    monkeypatch.setattr(encoder_loop, "evaluate_recommender", lambda *_, **__: evaluation({"sampled": {"MRR": next(risen)}}))
    model = trained(tmp_path, cyclic_dataset())
    rows = SplitRows(cyclic_dataset(), "train", 5, "all")
    batch = rows.collate(np.arange(len(rows)))
    best = model.score_all(model.encode_positions(batch))[:, 1:].argmax(1) + 1
    assert torch.equal(best, batch["targets"])


def test_saved_and_loaded_it_scores_alike(model, tmp_path):
    save_encoder(model, tmp_path)
    loaded = HGN(**ARCHITECTURE).eval()
    loaded.load_state_dict(load_file(tmp_path / WEIGHTS))
    batch = make_batch()
    assert torch.equal(loaded.score_all(loaded.encode(batch)), model.score_all(model.encode(batch)))
