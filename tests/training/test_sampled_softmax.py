"""The estimated next-item loss: by hand, on average, and in the limit."""

import math

import numpy as np
import pytest
import torch

import finetune
from slmrec.artifacts import read_json
from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.data.dataset import SequenceDataset
from slmrec.errors import InputError
from slmrec.training.arguments import LossArguments
from slmrec.training.sampled_softmax import SampledSoftmax, training_counts


def test_by_hand(monkeypatch):
    """Items 1, 2, 3 with 5, 2, 0 actions: q = 6/10, 3/10, 1/10. K = 2 draws: 2 and 3; then 1 and 2, of which 1 is the target."""
    loss = SampledSoftmax(np.array([0, 5, 2, 0]), 2)
    vectors, items = torch.tensor([[1.0]]), torch.tensor([[9.0], [math.log(2)], [math.log(3)], [math.log(5)]])
    for drawn, others in (([0.7, 0.95], 3 / (2 * 0.3) + 5 / (2 * 0.1)), ([0.1, 0.7], 3 / (2 * 0.3))):
        monkeypatch.setattr(torch, "rand", lambda *_, drawn=drawn, **__: torch.tensor(drawn, dtype=torch.float64))
        assert loss(vectors, items, torch.tensor([1])).item() == pytest.approx(-math.log(2 / (2 + others)))


def problem():
    generator = torch.Generator().manual_seed(1)
    vectors, items = torch.randn(30, 5, generator=generator), torch.randn(61, 5, generator=generator)
    return vectors, items, torch.randint(1, 61, (30,), generator=generator), np.arange(61) % 7


def test_many_draws_come_near_the_whole_loss_and_its_gradient():
    torch.manual_seed(0)
    vectors, items, targets, counts = problem()
    vectors.requires_grad_()
    whole = catalogue_cross_entropy(vectors, items, targets)
    gaps = []
    for number in (20, 200, 20_000):
        drawn = [SampledSoftmax(counts, number)(vectors, items, targets) for _ in range(20)]
        gaps.append(np.mean([abs(loss.item() - whole.item()) for loss in drawn]))
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 0.01 * whole.item()
    (ours,), (theirs,) = torch.autograd.grad(drawn[0], vectors), torch.autograd.grad(whole, vectors)
    assert (ours - theirs).norm() < 0.05 * theirs.norm()


def test_the_estimated_sum_is_right_on_average():
    torch.manual_seed(0)
    vectors, items, targets, counts = problem()
    loss, one = SampledSoftmax(counts, 10), slice(0, 1)
    scores = vectors[one] @ items[1:].T
    own = scores[0, targets[0] - 1].exp()
    sums = [loss(vectors[one], items, targets[one]).exp() * own for _ in range(4000)]
    assert torch.stack(sums).mean().item() == pytest.approx(scores.exp().sum().item(), rel=0.05)


def test_counts_leave_out_the_targets_of_validation_and_test():
    dataset = SequenceDataset(np.array([1, 2, 2, 3, 4, 1, 3, 3], dtype=np.int32), np.array([0, 5, 8]), 4)
    assert training_counts(dataset).tolist() == [0, 2, 2, 0, 0]


def test_negatives_without_the_sampled_loss():
    with pytest.raises(InputError, match="--num_negatives 5: --loss ce is over all items"):
        LossArguments(num_negatives=5)
    assert LossArguments().settings() == {} and LossArguments("sampled").num_negatives == 8192


def test_with_many_negatives_it_trains_like_the_whole_loss(tiny_flags, tmp_path):
    histories = []
    for name, flags in (("ce", {}), ("sampled", {"loss": "sampled", "num_negatives": 4000})):
        finetune.main(tiny_flags(learning_rate=0.001, output_dir=tmp_path / name, **flags))
        histories.append(read_json(tmp_path / name / "metrics.json")["history"])
    for whole, sampled in zip(*histories, strict=True):
        assert sampled["train"]["loss"] == pytest.approx(whole["train"]["loss"], rel=0.03)
        assert sampled["train"]["loss"] != whole["train"]["loss"]
    configs = [read_json(tmp_path / name / "config.json") for name in ("ce", "sampled")]
    assert configs[1] == configs[0] | {"loss": "sampled", "num_negatives": 4000}  # the paper's loss is the same run as ever
