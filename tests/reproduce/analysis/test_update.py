"""What an update gives: the cut into past and new, a model that does not know new items, and the whole measurement."""

import numpy as np
import pytest
import torch

import embed_titles
import train_sr_trad
from reproduce.analysis import update
from slmrec.artifacts import read_json
from slmrec.data import __main__ as data_stage
from slmrec.data.dataset import SequenceDataset, load_dataset
from slmrec.recommender import Recommender

STAGES = {"-m slmrec.data": data_stage.main, "embed_titles.py": embed_titles.main, "train_sr_trad.py": train_sr_trad.main}


def dataset(sequences, timestamps=None):
    lengths = [len(one) for one in sequences]
    items = np.concatenate(sequences).astype(np.int32)
    times = None if timestamps is None else np.concatenate(timestamps).astype(np.int64)
    return SequenceDataset(items, np.concatenate([[0], np.cumsum(lengths)]), num_items=int(items.max()), timestamps=times)


def test_cut_by_time_leaves_a_user_three_actions_or_none():
    times = [[0, 1, 2, 3, 4, 90], [5, 6, 91, 92, 93], [7, 8, 9, 10], [11, 12, 13, 14, 15]]  # the last fifth begins after 15
    cut = dataset([[1] * len(one) for one in times], times)
    assert update.past_lengths(cut, seed=0).tolist() == [5, 0, 4, 5]  # two actions before the cut are no past


def test_cut_by_prefix_has_new_users_and_new_items():
    random = np.random.default_rng(0)
    cut = dataset([random.integers(1, 101, 8) for _ in range(100)])
    past = update.past_lengths(cut, seed=0)
    assert all((past == 0) | (past >= update.LEAST)) and all(past <= 8)
    assert sum(past == 0) >= 10  # a tenth of the users
    assert sum(past == 6) >= 20  # of three tenths the last quarter, where no new item ends the past earlier
    read = np.unique(np.concatenate([cut.sequence(user)[: past[user]] for user in range(100)]))
    assert 100 - len(read) == 2  # one item in fifty
    assert np.array_equal(past, update.past_lengths(cut, seed=0)) and not np.array_equal(past, update.past_lengths(cut, seed=1))


class FirstItems(Recommender):
    """Knows items 1 to 3; a user is the sum of the vectors of the history."""

    max_length = 5
    items = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])

    def encode(self, batch):
        rows = torch.repeat_interleave(torch.arange(len(batch["lengths"])), batch["lengths"])
        return torch.zeros(len(batch["lengths"]), 2).index_add(0, rows, self.items[batch["history"]])

    def item_matrix(self):
        return self.items


def test_without_an_update_new_items_are_neither_read_nor_recommended():
    model = update.NotUpdated(FirstItems(), num_items=5)
    batch = {"history": torch.tensor([1, 5, 3, 4, 4, 2]), "lengths": torch.tensor([3, 2, 1])}  # the second user: new items alone
    users = model.encode(batch)
    assert users.tolist() == [[2.0, 1.0], [0.0, 0.0], [0.0, 1.0]]
    scores = model.score_all(users)
    assert scores.shape == (3, 6) and (scores[:, 4:] == update.UNREADABLE).all()
    assert torch.equal(scores[:, :4], users @ FirstItems.items.T)
    assert torch.equal(model.score(users, torch.tensor([[4, 1]] * 3)), scores[:, [4, 1]])


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(update, "run", lambda program, *flags: STAGES[program]([str(flag) for flag in flags]))


def test_measured_and_written(tiny_data, tmp_path, in_this_process, capsys):
    output = tmp_path / "update.json"
    flags = ["--data", str(tiny_data), "--work", str(tmp_path / "work"), "--output", str(output), "--num_epochs", "1"]
    update.main([*flags, "--replays", "0", "0.2", "--learning_rates", "0.001"])
    found = read_json(output)
    whole = load_dataset(tmp_path / "work" / "whole")
    assert found["cut"] == "by prefix" and found["items"]["all"] == whole.num_items
    assert list(found["models"]) == [
        "no update",
        "anew",
        "update replay 0 rate 0.001",
        "update replay 0.2 rate 0.001",
        "update replay 0.2 rate 0.001 titles",
    ]
    updates = {name: one for name, one in found["models"].items() if name.startswith("update")}
    assert found["chosen by validation"] == max(updates, key=lambda name: updates[name]["valid_MRR"])
    assert updates["update replay 0 rate 0.001"]["users_an_epoch"] == found["users"]["new actions"]
    assert updates["update replay 0.2 rate 0.001"]["users_an_epoch"] > found["users"]["new actions"]
    assert all(0 < one["test_MRR"]["all"] <= 1 for one in found["models"].values())
    assert len(found["tests"]) == 3 and "anew" in capsys.readouterr().out
