import math
from collections import namedtuple
from itertools import count

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from slmrec.artifacts import InputError
from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import SequenceDataset
from slmrec.encoders import bert4rec
from slmrec.encoders.bert4rec import append, draw_masked, last_slots
from slmrec.encoders.checkpoint import WEIGHTS, save_encoder
from slmrec.encoders.registry import build_encoder
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.training import encoder_loop
from slmrec.training.encoder_loop import LoopSettings, train_encoder

LENGTHS = [1, 6, 3, 6, 2]
ARCHITECTURE = {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "dropout": 0.3, "max_length": 6}
ARCHITECTURE |= {"mask_probability": 0.4, "last_mask_share": 0.2}
MASK = 0  # stands for the mask in the loops below


def make_model(**changes):
    torch.manual_seed(0)
    model = build_encoder("bert4rec", 40, 5, ARCHITECTURE | changes).eval()
    for parameter in model.parameters():  # away from the small initial weights, so that every term counts
        parameter.data.mul_(5.0).add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def model():
    return make_model()


def make_batch(lengths=LENGTHS, targets="all"):
    generator = torch.Generator().manual_seed(0)
    total = sum(lengths)
    return {
        "users": torch.arange(len(lengths)),
        "history": torch.randint(1, 41, (total,), generator=generator),
        "lengths": torch.tensor(lengths),
        "targets": torch.randint(1, 41, (total if targets == "all" else len(lengths),), generator=generator),
    }


def rows_of(batch):
    return torch.split(batch["history"], batch["lengths"].tolist())


def loop_attention(block, inputs):
    """One head, one query and one key at a time; every key of the row counts."""
    width = inputs.shape[1] // block.num_heads
    query, key, value = (inputs @ block.query_key_value.weight.T + block.query_key_value.bias).chunk(3, dim=1)
    outputs = torch.zeros_like(inputs)
    for head in range(block.num_heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(len(inputs)):
            weights = torch.stack([(query[i, part] @ key[j, part]) / math.sqrt(width) for j in range(len(inputs))]).exp()
            outputs[i, part] = sum(weight * value[j, part] for j, weight in enumerate(weights / weights.sum()))
    return outputs @ block.attention_output.weight.T + block.attention_output.bias


def normalise(norm, states):
    centred = states - states.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def loop_forward(model, items):
    """What each slot of one row predicts with, as the head of bert4rec.py describes it; items is a list with MASK in it."""
    states = torch.stack(
        [
            (model.mask_embedding if item == MASK else model.item_embedding.weight[item])
            + model.position_embedding.weight[len(items) - 1 - index]
            for index, item in enumerate(items)
        ]
    )
    states = normalise(model.input_norm, states)
    for block in model.blocks:
        states = normalise(block.attention_norm, states + loop_attention(block, states))
        first, _, second = block.feed_forward
        inner = F.gelu(states @ first.weight.T + first.bias)
        states = normalise(block.feed_forward_norm, states + inner @ second.weight.T + second.bias)
    projection, _, norm = model.output_layer
    return normalise(norm, F.gelu(states @ projection.weight.T + projection.bias))


# -- prediction -----------------------------------------------------------------------------------------------------------------


def test_equals_a_loop_with_a_mask_after_the_history(model):
    batch = make_batch()
    with torch.no_grad():
        expected = torch.stack([loop_forward(model, [*row.tolist(), MASK])[-1] for row in rows_of(batch)])
        torch.testing.assert_close(model.encode(batch), expected, atol=1e-5, rtol=1e-5)


def test_every_item_of_a_full_history_is_read(model):
    """The mask takes a slot of its own, not that of the oldest item."""
    batch = make_batch([6])
    before = model.encode(batch)
    for changed in range(6):
        history = batch["history"].clone()
        history[changed] = history[changed] % 40 + 1
        assert not torch.allclose(model.encode(batch | {"history": history}), before)


def test_targets_and_users_do_not_influence_the_vectors(model):
    batch = make_batch()
    others = batch | {"targets": batch["targets"] % 40 + 1, "users": batch["users"].flip(0)}
    assert torch.equal(model.encode(batch), model.encode(others))


def test_prediction_draws_no_random_numbers(model):
    state = torch.get_rng_state()
    model.encode(make_batch())
    assert torch.equal(torch.get_rng_state(), state)


def test_same_vectors_alone_and_in_any_batch(model):
    batch = make_batch()
    together = model.encode(batch)
    for row, items in enumerate(rows_of(batch)):
        alone = model.encode({"history": items, "lengths": torch.tensor([len(items)])})
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)
    order = torch.tensor([3, 0, 4, 2, 1])
    shuffled = {"history": torch.cat([rows_of(batch)[row] for row in order]), "lengths": batch["lengths"][order]}
    torch.testing.assert_close(model.encode(shuffled), together[order], atol=1e-5, rtol=1e-5)


def test_there_is_no_prediction_per_position(model):
    with pytest.raises(NotImplementedError, match="BERT4Rec has one prediction per user"):
        model.encode_positions(make_batch())


def test_dropout_acts_in_training_only(model):
    batch = make_batch()
    assert torch.equal(model.encode(batch), model.encode(batch))
    model.train()
    assert not torch.equal(model.encode(batch), model.encode(batch))


def test_heads_must_divide_the_width():
    with pytest.raises(InputError, match="--hidden_size 10 .* --num_heads 4"):
        make_model(hidden_size=10, num_heads=4)


# -- the cloze task -------------------------------------------------------------------------------------------------------------


def test_append_and_last_slots_by_hand():
    items, lengths = append(torch.tensor([5, 7, 8, 9]), torch.tensor([1, 3]), torch.tensor([2, 4]))
    assert items.tolist() == [5, 2, 7, 8, 9, 4] and lengths.tolist() == [2, 4]
    assert last_slots(lengths).tolist() == [False, True, False, False, False, True]


def test_masks_are_as_frequent_as_asked():
    torch.manual_seed(0)
    lengths = torch.full((2000,), 10)
    masked = draw_masked(lengths, 0.3, 0.0).view(2000, 10)
    assert masked.any(1).all()
    assert masked.float().mean(0).sub(0.3 + 0.7**10 / 10).abs().max() < 0.04  # a row without any gets one more
    masked = draw_masked(lengths, 0.3, 0.25).view(2000, 10)
    last_alone = masked[:, -1] & (masked.sum(1) == 1)
    assert last_alone.float().mean().item() == pytest.approx(0.25 + 0.75 * 0.3 * 0.7**9, abs=0.03)


def test_a_row_without_a_drawn_mask_gets_one_anywhere():
    torch.manual_seed(0)
    masked = draw_masked(torch.full((900,), 3), 0.0, 0.0).view(900, 3)
    assert (masked.sum(1) == 1).all()
    assert masked.sum(0).sub(300).abs().max() < 60


def test_the_last_alone_where_every_row_asks_for_it():
    lengths = torch.tensor([2, 7, 3])
    assert torch.equal(draw_masked(lengths, 0.6, 1.0), last_slots(lengths))


@pytest.mark.parametrize("targets", ["all", "last"])
def test_training_loss_predicts_the_masked_items_from_the_rest(model, targets, monkeypatch):
    batch = make_batch(targets=targets)
    finals = batch["targets"] if targets == "last" else batch["targets"][batch["lengths"].cumsum(0) - 1]
    rows = [[*row.tolist(), final] for row, final in zip(rows_of(batch), finals.tolist(), strict=True)]
    masked = [[index % 3 == 1 for index in range(len(row))] for row in rows]
    if targets == "last":
        masked = [[False] * (len(row) - 1) + [True] for row in rows]
    else:
        monkeypatch.setattr(bert4rec, "draw_masked", lambda *_: torch.tensor(sum(masked, [])))
    vectors, answers = [], []
    for row, hidden in zip(rows, masked, strict=True):
        outputs = loop_forward(model, [MASK if mask else item for item, mask in zip(row, hidden, strict=True)])
        vectors.append(outputs[torch.tensor(hidden)])
        answers += [item for item, mask in zip(row, hidden, strict=True) if mask]
    expected = F.cross_entropy(torch.cat(vectors) @ model.item_matrix()[1:].T, torch.tensor(answers) - 1)
    terms = model.training_loss(batch, targets, catalogue_cross_entropy)
    torch.testing.assert_close(terms["total"], expected, atol=1e-4, rtol=1e-4)


def test_a_masked_item_never_shows_in_any_state(model):
    """Not in its own slot, nor in what the others say about it."""
    torch.manual_seed(0)
    items, lengths = torch.randint(1, 41, (14,)), torch.tensor([5, 7, 2])
    masked = draw_masked(lengths, 0.4, 0.0)
    others = torch.where(masked, items % 40 + 1, items)
    assert torch.equal(model.read(items, lengths, masked), model.read(others, lengths, masked))
    visible = torch.where(masked, items, items % 40 + 1)
    assert not torch.allclose(model.read(items, lengths, masked)[masked], model.read(visible, lengths, masked)[masked])


@pytest.mark.parametrize("targets", ["all", "last"])
def test_the_cloze_sequence_is_the_training_part_and_no_more(targets, monkeypatch):
    """Each user's validation and test item stay out; the last training target is in; a long one loses its oldest items."""
    lengths = np.array([4, 6, 9, 12])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    dataset = SequenceDataset(np.arange(1, 32, dtype=np.int32), offsets, 40)
    model, seen = make_model(), []
    original = model.read
    monkeypatch.setattr(model, "read", lambda *arguments: seen.append(arguments) or original(*arguments))
    rows = SplitRows(dataset, "train", model.max_length, targets)
    model.training_loss(rows.collate([0, 1, 2, 3]), targets, catalogue_cross_entropy)
    items, slots, _ = seen[0]
    expected = [dataset.sequence(user)[:-2][-7:].tolist() for user in range(4)]  # max_length items and the target
    assert [row.tolist() for row in items.split(slots.tolist())] == expected


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
    # max_length 4: reading 5 items, the test would use a position that no training row of 5 items has
    architecture = ARCHITECTURE | {"hidden_size": 32, "num_layers": 1, "dropout": 0.0, "max_length": 4}
    architecture |= {"mask_probability": 0.2, "last_mask_share": 0.5}
    torch.manual_seed(0)
    model = build_encoder("bert4rec", 12, 24, architecture)
    settings = LoopSettings(targets, learning_rate=0.005, batch_size=24, num_epochs=220, patience=220, weight_decay=0.0, seed=0)
    train_encoder(model, dataset, settings, tmp_path, torch.device("cpu"))
    trained = evaluate_recommender(model, dataset, "test", full_ranking=True, progress=False)
    assert trained.metrics["full"]["HR@1"] == 1.0

    save_encoder(model, tmp_path)
    loaded = build_encoder("bert4rec", 12, 24, architecture)
    loaded.load_state_dict(load_file(tmp_path / WEIGHTS))
    batch = {"history": torch.tensor([3, 4, 5, 9]), "lengths": torch.tensor([3, 1])}
    assert torch.equal(loaded.eval().score_all(loaded.encode(batch)), model.eval().score_all(model.encode(batch)))
