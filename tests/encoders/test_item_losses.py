import math

import pytest
import torch

from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.command_line import flags_of
from slmrec.encoders import item_losses
from slmrec.encoders.arguments import TrainEncoderArguments
from slmrec.encoders.item_losses import choose_item_loss, draw_negatives

LOG3 = math.log(3)
# Scores of a target and two negatives: sigmoid of log 3 is 3/4, of 0 is 1/2, of -log 3 is 1/4
SCORES = torch.tensor([[LOG3, 0.0, -LOG3]])


def test_binary_loss_by_hand():
    """-log 3/4 of the target, -log 1/2 and -log 3/4 of the negatives."""
    assert item_losses.binary_loss(SCORES).item() == pytest.approx(-math.log(3 / 4) - math.log(1 / 2) - math.log(3 / 4))


def test_pairwise_loss_by_hand():
    """Differences log 3 and log 9: sigmoids 3/4 and 9/10."""
    assert item_losses.pairwise_loss(SCORES).item() == pytest.approx(-(math.log(3 / 4) + math.log(9 / 10)) / 2)


def test_sampled_loss_by_hand():
    """exp of the scores is 3, 1 and 1/3: the target has 9/13."""
    assert item_losses.sampled_loss(SCORES).item() == pytest.approx(-math.log(9 / 13))


def test_negatives_are_every_item_but_the_target_and_never_pad():
    torch.manual_seed(0)
    negatives = draw_negatives(torch.tensor([1, 3, 5]), 5, 400)
    assert [sorted(set(row.tolist())) for row in negatives] == [[2, 3, 4, 5], [1, 2, 4, 5], [1, 2, 3, 4]]
    counts = torch.bincount(negatives[1])
    assert all(70 < counts[item] < 130 for item in (1, 2, 4, 5))  # uniform: 100 each


@pytest.mark.parametrize("name", ["bce", "bpr", "sampled"])
def test_scores_are_dot_products_with_the_target_first(name, monkeypatch):
    items = torch.tensor([[9.0, 9.0], [LOG3, 0.0], [0.0, 0.0], [-LOG3, 5.0]])
    monkeypatch.setattr(item_losses, "draw_negatives", lambda *_: torch.tensor([[2, 3]]))
    loss = choose_item_loss(name, 2)(torch.tensor([[1.0, 0.0]]), items, torch.tensor([1]))
    by_hand = {"bce": item_losses.binary_loss, "bpr": item_losses.pairwise_loss, "sampled": item_losses.sampled_loss}[name]
    assert loss.item() == pytest.approx(by_hand(SCORES).item())


def test_cross_entropy_is_over_the_whole_catalogue():
    assert choose_item_loss("ce", 1) is catalogue_cross_entropy
    assert set(flags_of(TrainEncoderArguments)["loss"].choices) == {"ce", "bce", "bpr", "sampled"}
