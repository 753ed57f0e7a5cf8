from collections import namedtuple

import numpy as np
import pytest
import torch

from slmrec.data.batches import SplitRows
from slmrec.data.dataset import SequenceDataset
from slmrec.encoders.encoder import Encoder
from slmrec.encoders.sasrec import SASRec
from slmrec.errors import InputError
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.training import encoder_loop
from slmrec.training.encoder_loop import CHECKPOINT, LoopSettings, Progress, epoch_batches, train_encoder

CPU = torch.device("cpu")
SETTINGS = LoopSettings(targets="all", learning_rate=0.01, batch_size=8, num_epochs=4, patience=10, weight_decay=0.0, seed=3)


def cyclic_dataset(num_users=24, num_items=12, length=7):
    """Item i is always followed by item i + 1 (and the last by the first)."""
    sequences = [(np.arange(length) + user) % num_items + 1 for user in range(num_users)]
    offsets = np.arange(num_users + 1, dtype=np.int64) * length
    return SequenceDataset(np.concatenate(sequences).astype(np.int32), offsets, num_items)


def make_model(seed=0, dropout=0.2):
    torch.manual_seed(seed)
    return SASRec(num_items=12, hidden_size=16, num_layers=1, num_heads=2, dropout=dropout, max_length=5)


def train(directory, settings=SETTINGS, model=None, dataset=None):
    directory.mkdir(exist_ok=True)
    model = model or make_model()
    return model, train_encoder(model, dataset or cyclic_dataset(), settings, directory, CPU)


def without_seconds(history):
    return [{name: value for name, value in entry.items() if not name.endswith("_seconds")} for entry in history]


@pytest.mark.parametrize("targets", ["all", "last"])
def test_learns_a_cycle_by_heart(tmp_path, keep_last_epoch, targets):
    settings = LoopSettings(targets, learning_rate=0.01, batch_size=8, num_epochs=60, patience=60, weight_decay=0.0, seed=0)
    model, _ = train(tmp_path, settings, make_model(dropout=0.0))
    metrics = evaluate_recommender(model, cyclic_dataset(), "test", full_ranking=True, progress=False).metrics
    assert metrics["full"]["HR@1"] == 1.0


def test_same_seed_same_run(tmp_path):
    (first, first_history), (second, second_history) = train(tmp_path / "a"), train(tmp_path / "b")
    assert without_seconds(first_history) == without_seconds(second_history)
    assert all(torch.equal(*pair) for pair in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("killed_in", ["train_epoch", "evaluate_recommender", "save_checkpoint"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch, killed_in):
    whole, whole_history = train(tmp_path / "whole")
    original, calls = getattr(encoder_loop, killed_in), []

    def killed_at_the_third_call(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments, **keywords)

    monkeypatch.setattr(encoder_loop, killed_in, killed_at_the_third_call)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "resumed")
    assert (tmp_path / "resumed" / CHECKPOINT).exists()
    torch.manual_seed(99)  # a new process stands elsewhere in its random numbers, and has other initial weights
    resumed, resumed_history = train(tmp_path / "resumed", model=make_model(seed=5))
    assert without_seconds(resumed_history) == without_seconds(whole_history)
    assert all(torch.equal(*pair) for pair in zip(resumed.parameters(), whole.parameters(), strict=True))
    assert (tmp_path / "resumed" / CHECKPOINT).exists()  # until the stage has written everything else


def test_a_half_written_checkpoint_is_not_read(tmp_path, monkeypatch):
    def killed_while_writing(content, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed_while_writing)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    monkeypatch.undo()
    _, history = train(tmp_path)
    assert len(history) == SETTINGS.num_epochs
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, "runs"]


class Scripted(Encoder):
    """Its only weight counts the epochs, one batch each; the losses are scripted."""

    max_length = 5

    def __init__(self, losses):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.losses = losses

    def training_loss(self, batch, targets, item_loss):
        loss = self.losses.pop(0)
        return {"total": loss - self.weight, "extra": torch.tensor(2.0 * loss)}


def scripted_run(tmp_path, monkeypatch, mrrs, losses=None, **changes):
    script = iter(mrrs)

    class Result:
        def __init__(self, mrr):
            self.metrics = {"sampled": {"MRR": mrr}}

    monkeypatch.setattr(encoder_loop, "evaluate_recommender", lambda *_, **__: Result(next(script)))
    settings = LoopSettings(**vars(SETTINGS) | {"batch_size": 100, "num_epochs": 10, "learning_rate": 1.0} | changes)
    return train(tmp_path, settings, Scripted(losses or [1.0] * 10))


def test_stops_after_patience_and_keeps_the_best_epoch(tmp_path, monkeypatch):
    model, history = scripted_run(tmp_path, monkeypatch, [0.1, 0.3, 0.2, 0.3, 0.25], patience=3)
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4, 5]  # an equal value is no improvement
    assert Progress(history, {}).best_epoch == 2
    assert model.weight.item() == pytest.approx(2.0, abs=1e-4)  # Adam moves by the learning rate each step


def test_loss_terms_are_logged_by_name(tmp_path, monkeypatch):
    _, history = scripted_run(tmp_path, monkeypatch, [0.1, 0.2], losses=[1.0, 3.0], num_epochs=2)
    assert [entry["extra"] for entry in history] == [2.0, 6.0]
    assert history[0]["loss"] == 1.0
    assert list((tmp_path / "runs").glob("events.out.tfevents.*"))


def test_a_diverging_run_stops(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="training diverged at step 2 .learning rate 1.: the loss is nan; lower --learning_rate"):
        scripted_run(tmp_path, monkeypatch, [0.1, 0.2], losses=[1.0, float("nan")])


def test_each_epoch_has_its_own_order_of_all_rows():
    rows = SplitRows(cyclic_dataset(), "train", 5, "all")
    orders = [torch.cat([batch["users"] for batch in epoch_batches(rows, 7, 0, epoch)]) for epoch in (1, 1, 2)]
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])
    assert all(torch.equal(order.sort().values, torch.arange(24)) for order in orders)
    assert [len(batch["users"]) for batch in epoch_batches(rows, 7, 0, 1)] == [7, 7, 7, 3]


def test_users_without_a_history_to_train_on(tmp_path):
    with pytest.raises(InputError, match="no user has a training target"):
        train(tmp_path, dataset=cyclic_dataset(length=3))


# -- losses and pretraining -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["bce", "bpr", "sampled"])
def test_other_losses_learn_the_cycle_too(tmp_path, loss):
    settings = LoopSettings(**vars(SETTINGS) | {"num_epochs": 150, "patience": 150, "loss": loss, "num_negatives": 5})
    _, history = train(tmp_path, settings, make_model(dropout=0.0))
    assert max(entry["valid_MRR"] for entry in history) == 1.0
    assert history[-1]["loss"] < 0.2 * history[0]["loss"]


class Pretrained(SASRec):
    """Counts which objective was asked for."""

    prepared = 0

    def prepare(self, rows):
        self.prepared += 1

    def pretraining_loss(self, batch):
        return {"total": self.item_embedding.weight.square().mean(), "shrinking": torch.tensor(1.0)}


def pretrained():
    torch.manual_seed(0)
    return Pretrained(num_items=12, hidden_size=16, num_layers=1, num_heads=2, dropout=0.2, max_length=5)


def test_pretraining_epochs_come_first_and_are_not_validated(tmp_path):
    settings = LoopSettings(**vars(SETTINGS) | {"pretrain_epochs": 2, "num_epochs": 3})
    model, history = train(tmp_path, settings, pretrained())
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4, 5]
    assert ["valid_MRR" in entry for entry in history] == [False, False, True, True, True]
    assert all(entry["shrinking"] == 1.0 for entry in history[:2]) and history[1]["loss"] < history[0]["loss"]
    assert model.prepared == 1


def test_patience_counts_from_the_end_of_pretraining(tmp_path, monkeypatch):
    settings = LoopSettings(**vars(SETTINGS) | {"pretrain_epochs": 3, "num_epochs": 9, "patience": 2})
    falling = iter([0.5, 0.4, 0.3])
    evaluation = namedtuple("Evaluation", "metrics")
    monkeypatch.setattr(encoder_loop, "evaluate_recommender", lambda *_, **__: evaluation({"sampled": {"MRR": next(falling)}}))
    _, history = train(tmp_path, settings, pretrained())
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_a_pretrained_run_resumes_exactly(tmp_path, monkeypatch, killed_after):
    settings = LoopSettings(**vars(SETTINGS) | {"pretrain_epochs": 2, "num_epochs": 2})
    whole, _ = train(tmp_path / "whole", settings, pretrained())
    original, saved = encoder_loop.save_checkpoint, []

    def killed(*arguments):
        original(*arguments)
        saved.append(1)
        if len(saved) == killed_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(encoder_loop, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", settings, pretrained())
    monkeypatch.setattr(encoder_loop, "save_checkpoint", original)
    resumed, _ = train(tmp_path / "cut", settings, pretrained())
    assert all(torch.equal(*pair) for pair in zip(whole.parameters(), resumed.parameters(), strict=True))


# -- nothing to train -----------------------------------------------------------------------------------------------------------


class NothingToTrain(Encoder):
    """Scores every item by its id."""

    max_length = 1

    def prepare(self, rows):
        self.num_items = rows.dataset.num_items

    def encode(self, batch):
        return torch.ones(len(batch["lengths"]), 1)

    def item_matrix(self):
        return torch.arange(self.num_items + 1.0).unsqueeze(1)


def test_a_model_without_parameters_is_prepared_and_validated_once(tmp_path):
    model, history = train(tmp_path, LoopSettings(), NothingToTrain())
    (entry,) = history
    assert entry.keys() == {"epoch", "valid_MRR", "train_seconds", "valid_seconds"} and entry["epoch"] == 1
    expected = evaluate_recommender(model, cyclic_dataset(), "valid", progress=False).metrics["sampled"]["MRR"]
    assert entry["valid_MRR"] == expected
    assert not list(tmp_path.iterdir())
