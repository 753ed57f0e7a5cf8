from collections import namedtuple
from itertools import count

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import SequenceDataset
from slmrec.encoders.caser import latest_items
from slmrec.encoders.checkpoint import WEIGHTS, save_encoder
from slmrec.encoders.registry import build_encoder
from slmrec.training import encoder_loop
from slmrec.training.encoder_loop import LoopSettings, train_encoder

LENGTHS = [1, 4, 3, 4, 2]
ARCHITECTURE = {"hidden_size": 8, "num_horizontal_filters": 3, "num_vertical_filters": 2, "dropout": 0.3, "max_length": 4}


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = build_encoder("caser", 40, 5, ARCHITECTURE).eval()
    for parameter in model.parameters():  # away from the small initial weights, so that every term counts
        parameter.data.mul_(2.0).add_(0.1 * torch.randn_like(parameter))
    model.item_embedding.weight.data[0] = 0.0
    return model


def make_batch(lengths=LENGTHS):
    generator = torch.Generator().manual_seed(0)
    total = sum(lengths)
    return {
        "users": torch.tensor([3, 0, 1, 2, 4])[: len(lengths)],
        "history": torch.randint(1, 41, (total,), generator=generator),
        "lengths": torch.tensor(lengths),
        "targets": torch.randint(1, 41, (total,), generator=generator),
    }


def rows_of(batch):
    return torch.split(batch["history"], batch["lengths"].tolist())


def loop_window(model, items, user):
    """The vector after the last of `items`, filter by filter, as the head of caser.py describes it."""
    length, width = model.max_length, model.item_embedding.weight.shape[1]
    image = torch.zeros(length, width)  # E, zeros in front
    for place, item in enumerate(reversed(items.tolist()[-length:])):
        image[length - 1 - place] = model.item_embedding.weight[item]
    horizontal = []
    for height in range(1, length + 1):
        conv = model.horizontal[height - 1]
        for weight, bias in zip(conv.weight, conv.bias, strict=True):  # F^T [d, h] and b
            values = [torch.relu((image[i : i + height] * weight.T).sum() + bias) for i in range(length - height + 1)]
            horizontal.append(max(values))
    vertical = torch.stack([image.T @ weights for weights in model.vertical.weight], dim=1).flatten()  # [d * n_v]
    features = torch.cat([torch.stack(horizontal), vertical])
    layer = model.short_term[0]
    z = torch.relu(layer.weight @ features + layer.bias)
    joined = torch.cat([z, model.user_embedding.weight[user]])
    return model.output_layer.weight @ joined + model.output_layer.bias


def loop_forward(model, batch):
    """Per row, the vectors after each of its items [length, d]."""
    return [
        torch.stack([loop_window(model, items[: end + 1], user) for end in range(len(items))])
        for items, user in zip(rows_of(batch), batch["users"].tolist(), strict=True)
    ]


def test_equals_a_loop_over_windows_and_filters(model):
    batch = make_batch()
    with torch.no_grad():
        expected = loop_forward(model, batch)
        torch.testing.assert_close(model.encode_positions(batch), torch.cat(expected), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.encode(batch), torch.stack([rows[-1] for rows in expected]), atol=1e-5, rtol=1e-5)


def test_latest_items_by_hand():
    """Rows 7 and 4 5 6: nothing of one row stands in a window of the other."""
    windows = latest_items(torch.tensor([7, 4, 5, 6]), torch.tensor([1, 3]), 2)
    assert windows.tolist() == [[0, 7], [0, 4], [4, 5], [5, 6]]


def test_only_the_latest_items_are_read(model):
    """A window of four: what came before it has no influence, what is in it has."""
    batch = make_batch([6])
    before = model.encode(batch)
    for changed in range(6):
        history = batch["history"].clone()
        history[changed] = history[changed] % 40 + 1
        assert torch.equal(model.encode(batch | {"history": history}), before) == (changed < 2)


def test_later_items_do_not_influence_earlier_positions(model):
    batch = make_batch([4])
    before = model.encode_positions(batch)
    for changed in range(4):
        history = batch["history"].clone()
        history[changed] = history[changed] % 40 + 1
        after = model.encode_positions(batch | {"history": history})
        assert torch.equal(after[:changed], before[:changed])
        assert (after[changed:] != before[changed:]).any(dim=1).all()


def test_targets_do_not_influence_the_vectors(model):
    batch = make_batch()
    assert torch.equal(model.encode_positions(batch), model.encode_positions(batch | {"targets": batch["targets"] % 40 + 1}))


def test_same_vectors_alone_and_in_any_batch(model):
    batch = make_batch()
    together = model.encode(batch)
    for row, items in enumerate(rows_of(batch)):
        alone = {"users": batch["users"][row : row + 1], "history": items, "lengths": torch.tensor([len(items)])}
        torch.testing.assert_close(model.encode(alone)[0], together[row], atol=1e-5, rtol=1e-5)
    order = torch.tensor([3, 0, 4, 2, 1])
    shuffled = {name: batch[name][order] for name in ("users", "lengths")}
    shuffled["history"] = torch.cat([rows_of(batch)[row] for row in order])
    torch.testing.assert_close(model.encode(shuffled), together[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("targets", ["all", "last"])
def test_training_loss_reads_the_named_positions(model, targets):
    batch = make_batch()
    read = slice(None) if targets == "all" else slice(-1, None)
    vectors = torch.cat([rows[read] for rows in loop_forward(model, batch)])
    batch["targets"] = batch["targets"][: len(vectors)]
    expected = F.cross_entropy(vectors @ model.item_matrix()[1:].T, batch["targets"] - 1)
    terms = model.training_loss(batch, targets, catalogue_cross_entropy)
    torch.testing.assert_close(terms["total"], expected, atol=1e-4, rtol=1e-4)


def test_padding_stays_zero_in_training(model):
    optimizer = torch.optim.Adam(model.train().parameters(), weight_decay=0.1)
    model.training_loss(make_batch(), "all", catalogue_cross_entropy)["total"].backward()
    optimizer.step()
    assert model.item_matrix()[0].abs().max() == 0


def test_dropout_acts_in_training_only(model):
    batch = make_batch()
    assert torch.equal(model.encode(batch), model.encode(batch))
    model.train()
    assert not torch.equal(model.encode(batch), model.encode(batch))


# -- users ----------------------------------------------------------------------------------------------------------------------


def dataset_with_untrained_users():
    """Five users; number 1 and number 3 have three actions, and so no training row."""
    lengths = np.array([6, 3, 5, 3, 7])
    return SequenceDataset(np.arange(1, 25, dtype=np.int32), np.concatenate([[0], np.cumsum(lengths)]), 40)


def test_the_same_history_of_another_user_is_another_vector(model):
    batch = make_batch()
    assert (model.encode(batch) != model.encode(batch | {"users": batch["users"].roll(1)})).any(dim=1).all()


def test_users_without_a_training_row_get_the_mean_of_the_others(model):
    model.prepare(SplitRows(dataset_with_untrained_users(), "train", 4, "all"))
    table = model.user_embedding.weight
    mean = (table[0] + table[2] + table[4]) / 3
    expected = torch.stack([table[0], mean, table[2], mean, table[4]])
    torch.testing.assert_close(model.user_vectors(torch.arange(5)), expected)
    one = {"history": torch.tensor([9]), "lengths": torch.tensor([1])}
    assert torch.equal(model.encode(one | {"users": torch.tensor([1])}), model.encode(one | {"users": torch.tensor([3])}))


def test_who_was_trained_is_in_the_weights(model, tmp_path):
    model.prepare(SplitRows(dataset_with_untrained_users(), "train", 4, "all"))
    save_encoder(model, tmp_path)
    loaded = build_encoder("caser", 40, 5, ARCHITECTURE).eval()
    loaded.load_state_dict(load_file(tmp_path / WEIGHTS))
    assert loaded.trained_users.tolist() == [True, False, True, False, True]
    batch = make_batch()
    assert torch.equal(loaded.score_all(loaded.encode(batch)), model.score_all(model.encode(batch)))


@pytest.fixture
def keep_last_epoch(monkeypatch):
    """Validation MRR that rises: among the few rivals of a tiny catalogue the real one is 1 before all is learnt."""
    result, rising = namedtuple("Evaluation", "metrics"), count()
    monkeypatch.setattr(encoder_loop, "evaluate_recommender", lambda *_, **__: result({"sampled": {"MRR": next(rising)}}))


@pytest.mark.parametrize("targets", ["all", "last"])
def test_learns_a_cycle_by_heart(tmp_path, targets, keep_last_epoch):
    """Item i is always followed by item i + 1, and the last by the first; with 24 users each transition occurs.

    Read off the training rows: with one target per user, the user's embedding may be all that is learnt.
    """
    items = np.concatenate([(np.arange(7) + user) % 12 + 1 for user in range(24)]).astype(np.int32)
    dataset = SequenceDataset(items, np.arange(25, dtype=np.int64) * 7, 12)
    torch.manual_seed(0)
    model = build_encoder("caser", 12, 24, ARCHITECTURE | {"hidden_size": 16, "dropout": 0.0})
    settings = LoopSettings(targets, learning_rate=0.01, batch_size=8, num_epochs=40, patience=40, weight_decay=0.0, seed=0)
    train_encoder(model, dataset, settings, tmp_path, torch.device("cpu"))
    batch = SplitRows(dataset, "train", model.max_length).collate(np.arange(24))
    scores = model.eval().score_all(model.encode(batch))
    assert torch.equal(scores[:, 1:].argmax(1) + 1, batch["targets"])
