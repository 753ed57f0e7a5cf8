import math
from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from slmrec.data.batches import SplitRows
from slmrec.data.dataset import SequenceDataset
from slmrec.encoders import s3rec
from slmrec.encoders.checkpoint import WEIGHTS, save_encoder
from slmrec.encoders.s3rec import S3Rec, contrast, draw_segments, place_in_row
from slmrec.encoders.sasrec import SASRec
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.training import encoder_loop
from slmrec.training.encoder_loop import LoopSettings, train_encoder

LENGTHS = [1, 6, 3, 6, 2]
SIZES = {"num_items": 40, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "dropout": 0.0, "max_length": 6}


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = S3Rec(**SIZES, mask_probability=0.3, segment_weight=0.5).eval()
    for parameter in model.parameters():  # away from the small initial weights, so that every term counts
        parameter.data.mul_(5.0).add_(0.1 * torch.randn_like(parameter))
    return model


def make_batch(lengths=LENGTHS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    return {
        "users": torch.arange(len(lengths)),
        "history": torch.randint(1, 41, (total,), generator=generator),
        "lengths": torch.tensor(lengths),
        "targets": torch.randint(1, 41, (total,), generator=generator),
    }


def split(values, lengths):
    return torch.split(values, torch.as_tensor(lengths).tolist())


def cyclic_dataset(last_items=None):
    """24 users with 7 actions; item i is always followed by item i + 1, and 12 by 1 (or the last two are as given)."""
    sequences = [(np.arange(7) + user) % 12 + 1 for user in range(24)]
    for sequence in sequences if last_items else []:
        sequence[-2:] = last_items
    return SequenceDataset(np.concatenate(sequences).astype(np.int32), np.arange(25, dtype=np.int64) * 7, 12)


# -- fine-tuning ----------------------------------------------------------------------------------------------------------------


def test_fine_tuning_is_sasrec_on_the_same_weights(model):
    sasrec = SASRec(**SIZES).eval()
    assert not sasrec.load_state_dict(model.state_dict(), strict=False).missing_keys
    batch = make_batch()
    assert torch.equal(model.encode_positions(batch), sasrec.encode_positions(batch))
    assert torch.equal(model.encode(batch), sasrec.encode(batch))


def test_later_items_do_not_influence_earlier_positions(model):
    batch = make_batch([6])
    before = model.encode_positions(batch)
    for changed in range(6):
        history = batch["history"].clone()
        history[changed] = history[changed] % 40 + 1
        after = model.encode_positions(batch | {"history": history})
        assert torch.equal(after[:changed], before[:changed])


def test_same_vectors_alone_and_in_any_batch(model):
    batch = make_batch()
    together, hidden = model.encode(batch), torch.arange(18) % 3 == 0
    both_ways = split(model.read_both_ways(batch["history"], hidden, batch["lengths"]), LENGTHS)
    for row, (items, masked) in enumerate(zip(split(batch["history"], LENGTHS), split(hidden, LENGTHS), strict=True)):
        length = torch.tensor([len(items)])
        alone = model.encode({"history": items, "lengths": length})
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.read_both_ways(items, masked, length), both_ways[row], atol=1e-5, rtol=1e-5)


# -- pretraining ----------------------------------------------------------------------------------------------------------------


def loop_attention(block, inputs):
    """One head and one query at a time, each over all items."""
    width = inputs.shape[1] // block.num_heads
    query, key, value = (inputs @ block.query_key_value.weight.T + block.query_key_value.bias).chunk(3, dim=1)
    outputs = torch.zeros_like(inputs)
    for head in range(block.num_heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(len(inputs)):
            weights = torch.stack([query[i, part] @ other[part] / math.sqrt(width) for other in key]).exp()
            outputs[i, part] = sum(weight * other[part] for weight, other in zip(weights / weights.sum(), value, strict=True))
    return outputs @ block.attention_output.weight.T + block.attention_output.bias


def loop_forward(model, items, hidden):
    """One history read in both directions, MASK where hidden."""
    states = []
    for index, (item, is_hidden) in enumerate(zip(items.tolist(), hidden.tolist(), strict=True)):
        content = model.mask_embedding if is_hidden else model.item_embedding.weight[item]
        states.append(content + model.position_embedding.weight[len(items) - 1 - index])
    states = model.input_norm(torch.stack(states))
    for block in model.blocks:
        states = block.attention_norm(states + loop_attention(block, states))
        states = block.feed_forward_norm(states + block.feed_forward(states))
    return states


def loop_pretraining_loss(model, rows, masked, inside):
    """Both objectives, one masked item and one context at a time."""
    item_losses, contexts, segments = [], [], []
    for items, is_masked, is_inside in zip(rows, masked, inside, strict=True):
        states = loop_forward(model, items, is_masked)
        for place in torch.nonzero(is_masked).flatten():
            scores = torch.stack([item @ model.item_projection.weight @ states[place] for item in model.item_matrix()[1:]])
            item_losses.append(-torch.log_softmax(scores, 0)[items[place] - 1])
        if len(items) > 1:
            contexts.append(loop_forward(model, items, is_inside)[-1])
            segments.append(loop_forward(model, items, ~is_inside)[-1])
    segment_losses = []
    for own, context in enumerate(contexts):
        scores = torch.stack([segment @ model.segment_projection.weight @ context for segment in segments])
        segment_losses.append(-torch.log_softmax(scores, 0)[own])
    return sum(item_losses) / len(item_losses), sum(segment_losses) / len(segment_losses)


def test_pretraining_loss_equals_loops(model, monkeypatch):
    batch = make_batch()
    masked = model.draw_mask(batch["lengths"])
    inside = draw_segments(batch["lengths"])
    monkeypatch.setattr(S3Rec, "draw_mask", lambda *_: masked)
    monkeypatch.setattr(s3rec, "draw_segments", lambda *_: inside)
    with torch.no_grad():
        terms = model.pretraining_loss(batch)
        parts = (split(values, LENGTHS) for values in (batch["history"], masked, inside))
        item_loss, segment_loss = loop_pretraining_loss(model, *parts)
    torch.testing.assert_close(terms["masked_item"], item_loss, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(terms["segment"], segment_loss, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(terms["total"], item_loss + 0.5 * segment_loss, atol=1e-4, rtol=1e-4)


def test_a_hidden_item_is_not_read_and_the_others_are_from_both_sides(model):
    items, length = torch.tensor([5, 9, 14, 3]), torch.tensor([4])
    hidden = torch.tensor([False, True, False, False])
    before = model.read_both_ways(items, hidden, length)
    assert torch.equal(model.read_both_ways(torch.tensor([5, 30, 14, 3]), hidden, length), before)
    for changed in (0, 2, 3):
        other = items.clone()
        other[changed] = 31
        assert (model.read_both_ways(other, hidden, length)[1] != before[1]).any()


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
    for row in split(draw_segments(lengths), lengths):
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


def test_place_in_row():
    assert place_in_row(torch.tensor([1, 3, 2])).tolist() == [0, 0, 1, 2, 0, 1]


def test_rows_of_one_item_are_pretrained_on_without_segments(model):
    terms = model.pretraining_loss(make_batch([1, 1, 1]))
    assert terms["segment"] == 0.0 and terms["total"].isfinite()
    terms["total"].backward()
    assert model.mask_embedding.grad.isfinite().all()


def test_pretraining_reads_no_target_and_nothing_of_validation_and_test(model):
    small = S3Rec(**SIZES | {"num_items": 12}, mask_probability=0.3, segment_weight=0.5).eval()
    losses = []
    for dataset, targets in ((cyclic_dataset(), "all"), (cyclic_dataset([3, 3]), "all"), (cyclic_dataset(), "last")):
        torch.manual_seed(1)
        losses.append(small.pretraining_loss(SplitRows(dataset, "train", 6, targets).collate(np.arange(24)))["total"])
    assert losses[0] == losses[1] == losses[2]


# -- both stages ----------------------------------------------------------------------------------------------------------------


def train(directory, mask_probability=0.2, num_epochs=30, pretrain_epochs=10):
    torch.manual_seed(0)
    sizes = {"num_items": 12, "hidden_size": 32, "num_layers": 1, "num_heads": 2, "dropout": 0.0, "max_length": 5}
    model = S3Rec(**sizes, mask_probability=mask_probability, segment_weight=0.5)
    values = {"targets": "all", "learning_rate": 0.01, "batch_size": 8, "weight_decay": 0.0, "seed": 0}
    settings = LoopSettings(**values, num_epochs=num_epochs, patience=30, pretrain_epochs=pretrain_epochs)
    return model, train_encoder(model, cyclic_dataset(), settings, directory, torch.device("cpu"))


def test_pretrained_then_fine_tuned_it_knows_a_cycle_by_heart(tmp_path, monkeypatch):
    risen = iter(range(1, 100))  # so that the last epoch is kept
    evaluation = namedtuple("Evaluation", "metrics")
    monkeypatch.setattr(encoder_loop, "evaluate_recommender", lambda *_, **__: evaluation({"sampled": {"MRR": next(risen)}}))
    model, history = train(tmp_path)
    assert all({"masked_item", "segment"} <= entry.keys() and "valid_MRR" not in entry for entry in history[:10])
    assert len(history) == 40 and all("valid_MRR" in entry for entry in history[10:])
    metrics = evaluate_recommender(model, cyclic_dataset(), "test", full_ranking=True, progress=False).metrics
    assert metrics["full"]["HR@1"] == 1.0


def test_pretraining_alone_knows_which_item_was_masked(tmp_path):
    """With the last item alone hidden, the items before it tell which it was."""
    _, history = train(tmp_path, mask_probability=0.0, num_epochs=1, pretrain_epochs=60)
    assert history[0]["masked_item"] > 2.0 and history[59]["masked_item"] < 0.1
    assert history[59]["segment"] < 0.7 * history[0]["segment"]


def test_fine_tuning_leaves_the_weights_of_pretraining_alone(model):
    """They get no gradient, and no weight decay with it."""
    vectors = model.train().encode_positions(make_batch())
    F.cross_entropy(vectors @ model.item_matrix().T, make_batch()["targets"]).backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert idle == {"mask_embedding", "item_projection.weight", "segment_projection.weight"}


def test_saved_and_loaded_it_scores_alike(model, tmp_path):
    save_encoder(model, tmp_path)
    loaded = S3Rec(**SIZES, mask_probability=0.3, segment_weight=0.5).eval()
    loaded.load_state_dict(load_file(tmp_path / WEIGHTS))
    batch = make_batch()
    assert torch.equal(loaded.score_all(loaded.encode(batch)), model.score_all(model.encode(batch)))
