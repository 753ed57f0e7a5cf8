import math

import numpy as np
import pytest
import torch

from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.data.batches import SplitRows
from slmrec.encoders.duorec import SameTargetSequences, info_nce


@pytest.fixture
def crowded(dataset_of):
    """30 users on 12 items, so that many sequences share a target."""
    random = np.random.default_rng(0)
    return dataset_of([random.integers(1, 13, random.integers(3, 10)) for _ in range(30)], 12)


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
def test_the_terms_of_a_batch(make_encoder, crowded, targets):
    """Without dropout the unsupervised view is the vector itself; the supervised ones are drawn again from the same seed."""
    rows = SplitRows(crowded, "train", 5, targets)
    model = make_encoder("duorec", 12, dropout=0.0)
    model.prepare(rows)
    batch = rows.collate(np.arange(6))
    torch.manual_seed(7)
    terms = model.training_loss(batch, targets, catalogue_cross_entropy)
    torch.manual_seed(7)
    history, lengths = model.same_target.draw(batch["users"])
    views = torch.cat([model.encode(batch), model.encode({"history": history, "lengths": lengths})])
    last = torch.from_numpy(rows.dataset.items[rows.ends(rows.users[:6])].astype(np.int64))
    vectors = model.encode_positions(batch) if targets == "all" else model.encode(batch)
    next_item = catalogue_cross_entropy(vectors, model.item_matrix(), batch["targets"])
    torch.testing.assert_close(terms["next_item"], next_item)
    torch.testing.assert_close(terms["contrast"], info_nce(views, last, 1.0))
    torch.testing.assert_close(terms["total"], terms["next_item"] + 0.1 * terms["contrast"])


def test_both_views_have_their_own_dropout(make_encoder, dataset_of):
    model = make_encoder("duorec", 12)
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
def test_every_other_sequence_with_the_target_is_drawn_alike(crowded, targets):
    rows = SplitRows(crowded, "train", 5, targets)
    index = SameTargetSequences(rows)
    sequences = training_sequences(crowded, targets)
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


# -- the encoder ----------------------------------------------------------------------------------------------------------------


def test_vectors_are_those_of_sasrec_with_the_same_weights(make_encoder, stirred, make_batch):
    """Which tests/encoders/test_sasrec.py holds against loops."""
    model, plain = stirred(make_encoder("duorec")), make_encoder("sasrec").eval()
    plain.load_state_dict(model.state_dict())
    batch = make_batch([1, 6, 3, 6, 2])
    assert torch.equal(model.encode(batch), plain.encode(batch))
    assert torch.equal(model.encode_positions(batch), plain.encode_positions(batch))
