import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from slmrec.artifacts import Stage
from slmrec.data.attributes import ItemAttributes
from slmrec.data.batches import SplitRows
from slmrec.encoders import s3rec
from slmrec.encoders.registry import load_encoder, save_encoder
from slmrec.encoders.s3rec import S3Rec, contrast, draw_segments
from slmrec.training import encoder_loop
from slmrec.training.encoder_loop import LoopSettings, train_encoder

LENGTHS = [1, 6, 3, 6, 2]


@pytest.fixture
def model(make_encoder, stirred):
    return stirred(make_encoder("s3rec", dropout=0.0))


def test_fine_tuning_is_sasrec_on_the_same_weights(model, make_encoder, make_batch):
    sasrec, batch = make_encoder("sasrec").eval(), make_batch(LENGTHS)
    assert not sasrec.load_state_dict(model.state_dict(), strict=False).missing_keys
    assert torch.equal(model.encode_positions(batch), sasrec.encode_positions(batch))
    assert torch.equal(model.encode(batch), sasrec.encode(batch))


# -- pretraining ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def loop_forward(model, loop_blocks):
    """One history read in both directions, MASK where hidden."""

    def forward(items, hidden):
        pairs = zip(items, hidden, strict=True)
        vectors = [model.mask_embedding if mask else model.item_embedding.weight[item] for item, mask in pairs]
        return loop_blocks(model, vectors, causal=False)[-1]

    return forward


def loop_pretraining_loss(model, loop_forward, rows, masked, inside):
    """Both objectives, one masked item and one context at a time."""
    item_losses, contexts, segments = [], [], []
    for items, is_masked, is_inside in zip(rows, masked, inside, strict=True):
        states = loop_forward(items, is_masked)
        for place in torch.nonzero(is_masked).flatten():
            scores = torch.stack([item @ model.item_projection.weight @ states[place] for item in model.item_matrix()[1:]])
            item_losses.append(-torch.log_softmax(scores, 0)[items[place] - 1])
        if len(items) > 1:
            contexts.append(loop_forward(items, is_inside)[-1])
            segments.append(loop_forward(items, ~is_inside)[-1])
    segment_losses = []
    for own, context in enumerate(contexts):
        scores = torch.stack([segment @ model.segment_projection.weight @ context for segment in segments])
        segment_losses.append(-torch.log_softmax(scores, 0)[own])
    return sum(item_losses) / len(item_losses), sum(segment_losses) / len(segment_losses)


def test_pretraining_loss_equals_loops(model, make_batch, loop_forward, monkeypatch):
    batch = make_batch(LENGTHS)
    masked = model.draw_mask(batch["lengths"])
    inside = draw_segments(batch["lengths"])
    monkeypatch.setattr(S3Rec, "draw_mask", lambda *_: masked)
    monkeypatch.setattr(s3rec, "draw_segments", lambda *_: inside)
    with torch.no_grad():
        terms = model.pretraining_loss(batch)
        parts = (values.split(LENGTHS) for values in (batch["history"], masked, inside))
        item_loss, segment_loss = loop_pretraining_loss(model, loop_forward, *parts)
    torch.testing.assert_close(terms["masked_item"], item_loss, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(terms["segment"], segment_loss, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(terms["total"], item_loss + 0.5 * segment_loss, atol=1e-4, rtol=1e-4)


def test_a_hidden_item_is_not_read_and_the_others_are_from_both_sides(model):
    items, length = torch.tensor([5, 9, 14, 3]), torch.tensor([4])
    hidden = torch.tensor([False, True, False, False])
    before = model.read_masked(items, length, hidden)
    assert torch.equal(model.read_masked(torch.tensor([5, 30, 14, 3]), length, hidden), before)
    for changed in (0, 2, 3):
        other = items.clone()
        other[changed] = 31
        assert (model.read_masked(other, length, hidden)[1] != before[1]).any()


def test_contrast_by_hand():
    contexts, segments = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[math.log(3), 0.0], [0.0, math.log(2)]])
    # scores: row 0 log 3 against 0, a share of 3/4; row 1 2 log 2 against 0, a share of 4/5
    assert contrast(contexts, segments).item() == pytest.approx(-(math.log(3 / 4) + math.log(4 / 5)) / 2)
    assert contrast(torch.zeros(0, 2), torch.zeros(0, 2)) == 0.0
    assert contrast(contexts[:1], segments[:1]) == 0.0


def test_segments_are_contiguous_and_at_most_half_of_a_row():
    torch.manual_seed(0)
    lengths = torch.tensor([1, 2, 5, 6]).repeat(300)
    seen = {}
    for row in draw_segments(lengths).split(lengths.tolist()):
        inside = torch.nonzero(row).flatten().tolist()
        assert inside == list(range(inside[0], inside[-1] + 1))
        seen.setdefault(len(row), set()).add((inside[0], len(inside)))
    assert seen[1] == {(0, 1)} and seen[2] == {(0, 1), (1, 1)}
    assert seen[5] == {(first, size) for size in (1, 2) for first in range(6 - size)}
    assert seen[6] == {(first, size) for size in (1, 2, 3) for first in range(7 - size)}


def test_the_last_item_is_always_masked_and_the_others_as_often_as_asked(model):
    torch.manual_seed(0)
    lengths = torch.full((2000,), 4)
    masked = model.draw_mask(lengths).reshape(-1, 4)
    assert masked[:, 3].all()
    assert masked[:, :3].float().mean() == pytest.approx(0.3, abs=0.02)


def test_rows_of_one_item_are_pretrained_on_without_segments(model, make_batch):
    terms = model.pretraining_loss(make_batch([1, 1, 1]))
    assert terms["segment"] == 0.0 and terms["total"].isfinite()
    terms["total"].backward()
    assert model.mask_embedding.grad.isfinite().all()


def test_rows_are_read_alike_alone_and_in_a_batch(model, make_batch, rows_of):
    batch, hidden = make_batch(LENGTHS), torch.arange(18) % 3 == 0
    together = model.read_masked(batch["history"], batch["lengths"], hidden).split(LENGTHS)
    for items, masked, expected in zip(rows_of(batch), hidden.split(LENGTHS), together, strict=True):
        alone = model.read_masked(items, torch.tensor([len(items)]), masked)
        torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)


def test_pretraining_reads_no_target(model, random_dataset):
    losses = []
    for targets in ("all", "last"):
        rows = SplitRows(random_dataset, "train", 6, targets)
        torch.manual_seed(1)
        losses.append(model.pretraining_loss(rows.collate(np.arange(len(rows))))["total"])
    assert losses[0] == losses[1]


def test_pretraining_alone_knows_which_item_was_masked(make_encoder, cycle, tmp_path):
    """With the last item alone hidden, the items before it tell which it was. Fine-tuning comes after it and is validated."""
    sizes = {"hidden_size": 32, "num_layers": 1, "dropout": 0.0, "max_length": 5, "mask_probability": 0.0}
    model = make_encoder("s3rec", cycle.num_items, **sizes)
    settings = LoopSettings(learning_rate=0.01, batch_size=8, num_epochs=1, patience=1, pretrain_epochs=60)
    *pretraining, last = train_encoder(model, cycle, settings, tmp_path, torch.device("cpu"))
    assert all({"masked_item", "segment"} <= entry.keys() and "valid_MRR" not in entry for entry in pretraining)
    assert len(pretraining) == 60 and "valid_MRR" in last and "masked_item" not in last
    assert pretraining[0]["masked_item"] > 2.0 and pretraining[-1]["masked_item"] < 0.1
    assert pretraining[-1]["segment"] < 0.7 * pretraining[0]["segment"]


# -- attributes -----------------------------------------------------------------------------------------------------------------

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def with_attributes(random_dataset):
    """The random data set, item n of which has the attributes n mod 3 and, above 20, 3; every fifth item has none."""
    held = [[item % 3, 3][: 1 + (item > 20)] if item % 5 else [] for item in range(1, random_dataset.num_items + 1)]
    ids, offsets = np.concatenate(held).astype(np.int32), np.cumsum([0, *map(len, held)])
    return replace(random_dataset, attributes=ItemAttributes(ids, offsets, ["zero", "one", "two", "high"]))


def rows_of_all(dataset, targets="all"):
    return SplitRows(dataset, "train", 6, targets)


def attributed(make_encoder, dataset, **changes):
    model = make_encoder("s3rec", **changes)
    model.prepare(rows_of_all(dataset))
    return model


def loop_attribute_loss(prediction, weight, vectors, items, attributes):
    """Mean over items of the cross-entropies of all attributes, one at a time; items without attributes are left out."""
    losses, table = [], prediction.attribute_embedding.weight
    for vector, item in zip(vectors, items, strict=True):
        held = attributes.of(item)
        probabilities = [torch.sigmoid(vector @ weight.T @ e) for e in table]
        terms = [-torch.log(p if name in held else 1 - p) for name, p in zip(attributes.names, probabilities, strict=True)]
        losses += [sum(terms)] if held else []
    return sum(losses) / len(losses)


def test_attribute_terms_equal_loops(make_encoder, stirred, with_attributes, make_batch, monkeypatch):
    model, batch = stirred(attributed(make_encoder, with_attributes, dropout=0.0)), make_batch(LENGTHS)
    masked, inside = model.draw_mask(batch["lengths"]), draw_segments(batch["lengths"])
    monkeypatch.setattr(S3Rec, "draw_mask", lambda *_: masked)
    monkeypatch.setattr(s3rec, "draw_segments", lambda *_: inside)
    prediction, history = model.attribute_prediction, batch["history"]
    with torch.no_grad():
        terms = model.pretraining_loss(batch)
        states = model.read_masked(history, batch["lengths"], masked)
        shown, hidden = history[~masked].tolist(), history[masked].tolist()
        embeddings = [model.item_embedding.weight[item] for item in shown]
        known = with_attributes.attributes
        associated = loop_attribute_loss(prediction, prediction.associated_projection.weight, embeddings, shown, known)
        of_masked = loop_attribute_loss(prediction, prediction.masked_projection.weight, states[masked], hidden, known)
    torch.testing.assert_close(terms["associated_attribute"], associated, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(terms["masked_attribute"], of_masked, atol=1e-4, rtol=1e-4)
    expected = terms["masked_item"] + 0.5 * terms["segment"] + 0.2 * associated + 0.7 * of_masked
    torch.testing.assert_close(terms["total"], expected, atol=1e-4, rtol=1e-4)


def test_without_attributes_nothing_changes_and_the_log_says_so(make_encoder, random_dataset, with_attributes, caplog):
    """Preparing draws no random number and adds no weight; the terms and the state are those of a model that knows of none."""
    caplog.set_level(logging.INFO)
    plain = make_encoder("s3rec")
    batch, state = rows_of_all(random_dataset).collate(np.arange(9)), torch.get_rng_state()
    expected, keys = plain.pretraining_loss(batch), plain.state_dict().keys()
    torch.set_rng_state(state)
    plain.prepare(rows_of_all(random_dataset))
    (message,) = caplog.messages
    assert message == "the data set has no attributes of items: s3rec is pretrained without the two attribute objectives"
    assert torch.equal(torch.get_rng_state(), state) and plain.state_dict().keys() == keys
    found = plain.pretraining_loss(batch)
    assert found == expected and found.keys() == {"total", "masked_item", "segment"}
    assert found["total"] == found["masked_item"] + 0.5 * found["segment"]
    caplog.clear()
    torch.set_rng_state(state)
    other = attributed(make_encoder, with_attributes)
    assert not caplog.messages and other.state_dict().keys() > keys


def test_attributes_leave_the_other_terms_alone(make_encoder, random_dataset, with_attributes):
    batch, terms = rows_of_all(random_dataset).collate(np.arange(9)), []
    for dataset in (random_dataset, with_attributes):
        model = attributed(make_encoder, dataset)
        torch.manual_seed(1)
        terms.append(model.pretraining_loss(batch))
    assert terms[1]["masked_item"] == terms[0]["masked_item"] and terms[1]["segment"] == terms[0]["segment"]
    assert terms[1]["total"] > terms[0]["total"]


def test_a_pretraining_step_reaches_every_weight(make_encoder, with_attributes):
    model = attributed(make_encoder, with_attributes)
    rows = rows_of_all(with_attributes)
    model.pretraining_loss(rows.collate(np.arange(len(rows))))["total"].backward()
    untouched = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0}
    assert not untouched
    model.zero_grad()
    model.training_loss(rows.collate(np.arange(9)), "all", s3rec.catalogue_cross_entropy)["total"].backward()
    assert all(weight.grad is None for weight in model.attribute_prediction.parameters())


SETTINGS = LoopSettings(learning_rate=0.01, batch_size=5, num_epochs=2, patience=2, pretrain_epochs=3)


def test_a_resumed_pretraining_equals_an_uninterrupted_one(make_encoder, with_attributes, tmp_path, monkeypatch):
    def run(directory, seed):
        directory.mkdir(exist_ok=True)
        model = make_encoder("s3rec", seed=seed)
        return model, train_encoder(model, with_attributes, SETTINGS, directory, CPU)

    whole, history = run(tmp_path / "whole", 0)
    assert all({"associated_attribute", "masked_attribute"} <= entry.keys() for entry in history[:3])
    assert not any("masked_attribute" in entry for entry in history[3:])
    original, calls = encoder_loop.train_epoch, []

    def killed_in_the_third_epoch(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(encoder_loop, "train_epoch", killed_in_the_third_epoch)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 0)
    resumed, _ = run(tmp_path / "cut", 5)  # a new process has other initial weights, of attributes too
    assert resumed.state_dict().keys() == whole.state_dict().keys()
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in resumed.state_dict().items())


def test_saved_with_attributes_it_loads_without_a_data_set(make_encoder, architectures, with_attributes, make_batch, tmp_path):
    model = make_encoder("s3rec")
    train_encoder(model, with_attributes, SETTINGS, tmp_path, CPU)
    config = {"model": "s3rec", "num_items": 40, "num_users": 20, "architecture": architectures["s3rec"]}
    with Stage("encoder", tmp_path / "encoder", config, {}, item_map="forty items") as stage:
        save_encoder(model.eval(), stage.path)
    loaded, batch = load_encoder(tmp_path / "encoder"), make_batch(LENGTHS, "all")
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert loaded.attribute_prediction.attribute_embedding.weight.shape == (4, 8)
    assert torch.equal(loaded.score_all(loaded.encode(batch)), model.score_all(model.encode(batch)))
    losses = [other.training_loss(batch, "all", s3rec.catalogue_cross_entropy)["total"] for other in (loaded, model)]
    assert losses[0] == losses[1]


def test_pretraining_learns_the_attributes(make_encoder, cycle, tmp_path):
    """Items of the cycle are odd or even, so what stands before a masked item tells what it is, and so does its embedding."""
    ids, offsets = (np.arange(12) % 2).astype(np.int32), np.arange(13)
    dataset = replace(cycle, attributes=ItemAttributes(ids, offsets, ["odd", "even"]))
    sizes = {"hidden_size": 32, "num_layers": 1, "dropout": 0.0, "max_length": 5, "mask_probability": 0.0}
    model = make_encoder("s3rec", cycle.num_items, **sizes)
    settings = LoopSettings(learning_rate=0.01, batch_size=8, num_epochs=1, patience=1, pretrain_epochs=50)
    first, *_, last = train_encoder(model, dataset, settings, tmp_path, CPU)[:50]
    for name in ("associated_attribute", "masked_attribute"):
        assert first[name] > 0.9 and last[name] < 0.1  # at first nearly 2 log 2
