import numpy as np
import pytest
import torch
import torch.nn.functional as F

from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.data.batches import SplitRows
from slmrec.encoders import bert4rec
from slmrec.encoders.bert4rec import append, draw_masked, last_slots

LENGTHS = [1, 6, 3, 6, 2]
MASK = 0  # stands for the mask in the loops below


@pytest.fixture
def model(make_encoder, stirred):
    return stirred(make_encoder("bert4rec"))


@pytest.fixture
def loop_forward(model, loop_blocks, normalise):
    """What each slot of one row predicts with, as the head of bert4rec.py describes it; items is a list with MASK in it."""

    def forward(items):
        vectors = [model.mask_embedding if item == MASK else model.item_embedding.weight[item] for item in items]
        projection, _, norm = model.output_layer
        states = loop_blocks(model, vectors, causal=False)[-1]
        return normalise(norm, F.gelu(states @ projection.weight.T + projection.bias))

    return forward


# -- prediction -----------------------------------------------------------------------------------------------------------------


def test_equals_a_loop_with_a_mask_after_the_history(model, make_batch, rows_of, loop_forward):
    batch = make_batch(LENGTHS)
    with torch.no_grad():
        expected = torch.stack([loop_forward([*row.tolist(), MASK])[-1] for row in rows_of(batch)])
        torch.testing.assert_close(model.encode(batch), expected, atol=1e-5, rtol=1e-5)


def test_every_item_of_a_full_history_is_read(model, make_batch):
    """The mask takes a slot of its own, not that of the oldest item."""
    batch = make_batch([6])
    before = model.encode(batch)
    for changed in range(6):
        history = batch["history"].clone()
        history[changed] = history[changed] % 40 + 1
        assert not torch.allclose(model.encode(batch | {"history": history}), before)


def test_there_is_no_prediction_per_position(model, make_batch):
    with pytest.raises(NotImplementedError, match="BERT4Rec has one prediction per user"):
        model.encode_positions(make_batch(LENGTHS))


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
def test_training_loss_predicts_the_masked_items_from_the_rest(model, make_batch, rows_of, loop_forward, targets, monkeypatch):
    batch = make_batch(LENGTHS, targets)
    finals = batch["targets"] if targets == "last" else batch["targets"][batch["lengths"].cumsum(0) - 1]
    rows = [[*row.tolist(), final] for row, final in zip(rows_of(batch), finals.tolist(), strict=True)]
    masked = [[index % 3 == 1 for index in range(len(row))] for row in rows]
    if targets == "last":
        masked = [[False] * (len(row) - 1) + [True] for row in rows]
    else:
        monkeypatch.setattr(bert4rec, "draw_masked", lambda *_: torch.tensor(sum(masked, [])))
    vectors, answers = [], []
    for row, hidden in zip(rows, masked, strict=True):
        outputs = loop_forward([MASK if mask else item for item, mask in zip(row, hidden, strict=True)])
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
    states = model.read_masked(items, lengths, masked)
    assert torch.equal(states, model.read_masked(others, lengths, masked))
    visible = torch.where(masked, items, items % 40 + 1)
    assert not torch.allclose(states[masked], model.read_masked(visible, lengths, masked)[masked])


@pytest.mark.parametrize("targets", ["all", "last"])
def test_the_cloze_sequence_is_the_training_part_and_no_more(model, dataset_of, targets, monkeypatch):
    """Each user's validation and test item stay out; the last training target is in; a long one loses its oldest items."""
    dataset, seen = dataset_of(np.split(np.arange(1, 32), np.cumsum([4, 6, 9])), 40), []
    original = model.read_masked
    monkeypatch.setattr(model, "read_masked", lambda *arguments: seen.append(arguments) or original(*arguments))
    rows = SplitRows(dataset, "train", model.max_length, targets)
    model.training_loss(rows.collate([0, 1, 2, 3]), targets, catalogue_cross_entropy)
    items, slots, _ = seen[0]
    expected = [dataset.sequence(user)[:-2][-7:].tolist() for user in range(4)]  # max_length items and the target
    assert [row.tolist() for row in items.split(slots.tolist())] == expected
