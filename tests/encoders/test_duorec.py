import math

import numpy as np
import pytest
import torch

from slmrec.artifacts import Stage
from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import SequenceDataset
from slmrec.encoders.checkpoint import load_encoder, save_encoder
from slmrec.encoders.duorec import DuoRec, SameTargetSequences, info_nce
from slmrec.encoders.sasrec import SASRec
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.training import encoder_loop
from slmrec.training.encoder_loop import LoopSettings, train_encoder

CPU = torch.device("cpu")
SIZES = {"num_items": 12, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "max_length": 5}
CONTRAST = {"contrast_weight": 0.1, "contrast_temperature": 1.0}
SETTINGS = LoopSettings(targets="all", learning_rate=0.01, batch_size=8, num_epochs=4, patience=10, weight_decay=0.0, seed=3)


def build(dropout=0.0, seed=0):
    torch.manual_seed(seed)
    return DuoRec(**SIZES, dropout=dropout, **CONTRAST)


def random_dataset(num_users=30, num_items=12, seed=0):
    rng = np.random.default_rng(seed)
    sequences = [rng.integers(1, num_items + 1, rng.integers(3, 10)) for _ in range(num_users)]
    return dataset_of(sequences, num_items)


def dataset_of(sequences, num_items):
    return SequenceDataset(np.concatenate(sequences).astype(np.int32), np.cumsum([0, *map(len, sequences)]), num_items)


def cyclic_dataset():
    return dataset_of([(np.arange(7) + user) % 12 + 1 for user in range(24)], 12)


# -- the contrastive term -------------------------------------------------------------------------------------------------------


def test_info_nce_equals_a_loop():
    torch.manual_seed(0)
    views, targets, temperature = torch.randn(10, 4), torch.tensor([3, 1, 3, 2, 1]), 0.7
    expected = 0.0
    for i in range(10):
        partner = (i + 5) % 10
        others = [j for j in range(10) if targets[j % 5] != targets[i % 5]]
        weights = {j: math.exp(float(views[i] @ views[j]) / temperature) for j in [partner, *others]}
        expected -= math.log(weights[partner] / sum(weights.values())) / 10
    assert float(info_nce(views, targets, temperature)) == pytest.approx(expected, rel=1e-5)


def test_rows_without_negatives_cost_nothing():
    assert info_nce(torch.randn(2, 4), torch.tensor([3]), 1.0) == 0.0
    assert info_nce(torch.randn(6, 4), torch.tensor([3, 3, 3]), 1.0) == 0.0


@pytest.mark.parametrize("targets", ["all", "last"])
def test_the_terms_of_a_batch(targets):
    """Without dropout the unsupervised view is the vector itself; the supervised ones are drawn again from the same seed."""
    rows = SplitRows(random_dataset(), "train", 5, targets)
    model = build()
    model.prepare(rows)
    batch = rows.collate(np.arange(6))
    torch.manual_seed(7)
    terms = model.training_loss(batch, targets, catalogue_cross_entropy)
    torch.manual_seed(7)
    history, lengths = model.same_target.draw(batch["users"])
    views = torch.cat([model.encode(batch), model.encode({"history": history, "lengths": lengths})])
    last = torch.from_numpy(rows.dataset.items[rows.end[rows.users[:6]]].astype(np.int64))
    vectors = model.encode_positions(batch) if targets == "all" else model.encode(batch)
    next_item = catalogue_cross_entropy(vectors, model.item_matrix(), batch["targets"])
    torch.testing.assert_close(terms["next_item"], next_item)
    torch.testing.assert_close(terms["contrast"], info_nce(views, last, 1.0))
    torch.testing.assert_close(terms["total"], terms["next_item"] + 0.1 * terms["contrast"])


def test_both_views_have_their_own_dropout():
    model = build(dropout=0.3)
    rows = SplitRows(dataset_of([[1, 2, 3, 4, 5]], 12), "train", 5)  # alone with its target: its supervised view is itself
    model.prepare(rows)
    unsupervised, supervised = model.encode_views(rows.collate([0]))
    assert not torch.equal(unsupervised, supervised)
    assert torch.equal(*model.eval().encode_views(rows.collate([0])))


# -- the supervised view --------------------------------------------------------------------------------------------------------


def training_sequences(data, targets, max_length=5):
    """(user, history, target) of every training sequence, from a loop over users and prefixes."""
    found = []
    for user in range(data.num_users):
        part = data.sequence(user)[:-2].tolist()
        first = max(1, len(part) - max_length) if targets == "all" else len(part) - 1
        for end in range(max(first, 1), len(part)):
            found.append((user, tuple(part[max(0, end - max_length) : end]), part[end]))
    return found


@pytest.mark.parametrize("targets", ["all", "last"])
def test_every_other_sequence_with_the_target_is_drawn_alike(targets):
    data = random_dataset()
    rows = SplitRows(data, "train", 5, targets)
    index = SameTargetSequences(rows)
    sequences = training_sequences(data, targets)
    torch.manual_seed(0)
    draws = 400
    for row in range(0, len(rows), 4):
        user = int(rows.users[row])
        (own,) = [i for i, (owner, *_) in enumerate(sequences) if owner == user][-1:]
        others = [history for i, (_, history, target) in enumerate(sequences) if target == sequences[own][2] and i != own]
        others = others or [sequences[own][1]]
        history, lengths = index.draw(torch.full((draws,), user))
        drawn = [tuple(part.tolist()) for part in history.split(lengths.tolist())]
        assert set(drawn) == set(others)
        for history in set(others):
            expected = draws * others.count(history) / len(others)
            assert abs(drawn.count(history) - expected) <= 5 * math.sqrt(expected)


def test_held_out_items_are_in_no_view():
    data = random_dataset()
    changed = SequenceDataset(data.items.copy(), data.offsets, data.num_items)
    held_out = np.concatenate([data.offsets[1:] - 1, data.offsets[1:] - 2])
    changed.items[held_out] = 12
    for targets in ("all", "last"):
        first, second = (SameTargetSequences(SplitRows(each, "train", 5, targets)) for each in (data, changed))
        users = torch.from_numpy(SplitRows(data, "train", 5).users)
        for _ in range(20):
            state = torch.get_rng_state()
            drawn = first.draw(users)
            torch.set_rng_state(state)
            assert all(torch.equal(*pair) for pair in zip(drawn, second.draw(users), strict=True))


# -- the encoder ----------------------------------------------------------------------------------------------------------------


def test_vectors_are_those_of_sasrec_with_the_same_weights():
    """Which tests/encoders/test_sasrec.py holds against loops, for causality and for batch invariance."""
    model = build().eval()
    plain = SASRec(**SIZES, dropout=0.0).eval()
    plain.load_state_dict(model.state_dict())
    batch = SplitRows(random_dataset(), "valid", 5).collate(np.arange(30))
    assert batch["lengths"].min() == 1
    assert torch.equal(model.encode(batch), plain.encode(batch))
    assert torch.equal(model.encode_positions(batch), plain.encode_positions(batch))


# -- training -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", ["all", "last"])
def test_learns_a_cycle_by_heart_and_comes_back_from_disk(tmp_path, targets):
    settings = LoopSettings(targets, learning_rate=0.01, batch_size=8, num_epochs=60, patience=60, weight_decay=0.0, seed=0)
    model = build()
    train_encoder(model, cyclic_dataset(), settings, tmp_path, CPU)
    metrics = evaluate_recommender(model, cyclic_dataset(), "test", full_ranking=True, progress=False).metrics
    assert metrics["full"]["HR@1"] == 1.0
    architecture = {name: size for name, size in SIZES.items() if name != "num_items"} | {"dropout": 0.0} | CONTRAST
    config = {"model": "duorec", "num_items": 12, "num_users": 24, "architecture": architecture}
    with Stage("encoder", tmp_path / "encoder", config, {}, item_map="twelve items") as stage:
        save_encoder(model, stage.path)
    loaded = load_encoder(tmp_path / "encoder")
    batch = SplitRows(cyclic_dataset(), "test", 5).collate(np.arange(24))
    model.eval()
    assert torch.equal(loaded.score_all(loaded.encode(batch)), model.score_all(model.encode(batch)))


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    def run(directory, seed):
        directory.mkdir(exist_ok=True)
        model = build(dropout=0.2, seed=seed)
        train_encoder(model, random_dataset(), SETTINGS, directory, CPU)
        return model

    whole = run(tmp_path / "whole", 0)
    original, calls = encoder_loop.train_epoch, []

    def killed_at_the_third_call(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(encoder_loop, "train_epoch", killed_at_the_third_call)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 0)
    resumed = run(tmp_path / "cut", 5)
    assert all(torch.equal(*pair) for pair in zip(whole.parameters(), resumed.parameters(), strict=True))
