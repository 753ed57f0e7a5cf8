import json

import numpy as np
import pytest

import evaluate
import train_sr_trad
from reproduce import hidden_items, hide_items
from reproduce.hidden_items import hidden_groups
from reproduce.hide_items import draw_hidden, without_items
from slmrec.artifacts import read_manifest
from slmrec.data.dataset import SequenceDataset, load_dataset
from slmrec.errors import InputError


def test_hiding_by_hand():
    """User 0 keeps three actions, user 1 would keep two and goes, user 2 loses none."""
    dataset = SequenceDataset(np.array([1, 2, 3, 4, 1, 2, 3, 4, 3, 1], dtype=np.int32), np.array([0, 4, 7, 10]), 4, item_map="x")
    rest = without_items(dataset, np.array([2]))
    assert rest.items.tolist() == [1, 3, 4, 4, 3, 1] and rest.offsets.tolist() == [0, 3, 6]
    assert rest.num_items == 4 and rest.item_map == "x"
    assert without_items(dataset, np.array([4])).items.tolist() == [1, 2, 3, 1, 2, 3]


def test_the_draw():
    hidden = draw_hidden(40, 0.1, seed=3)
    assert len(hidden) == 4 == len(set(hidden.tolist())) and hidden.min() >= 1 and hidden.max() <= 40
    assert np.array_equal(hidden, draw_hidden(40, 0.1, seed=3)) and not np.array_equal(hidden, draw_hidden(40, 0.1, seed=4))
    with pytest.raises(InputError, match="of 40 items that hides 0"):
        draw_hidden(40, 0.001, seed=0)


def test_groups_by_hand():
    groups = hidden_groups(np.array([3, 1, 2]), np.array([1, 2]))
    assert groups["hidden"].tolist() == [False, True, True] and groups["trained"].tolist() == [True, False, False]


def test_from_hiding_to_a_table(tiny_data, tmp_path, capsys):
    hidden = tmp_path / "hidden"
    hide_items.main(["--data", str(tiny_data), "--share", "0.2", "--output_dir", str(hidden)])
    names = json.loads((hidden / "hidden.json").read_text())["items"]
    assert len(names) == 8 and not np.isin(load_dataset(hidden).items, names).any()
    assert read_manifest(hidden)["item_map"] == read_manifest(tiny_data)["item_map"]
    model = tmp_path / "popularity"
    train_sr_trad.main(["--model", "popularity", "--data", str(hidden), "--output_dir", str(model)])
    evaluate.main(["--model", str(model), "--data", str(tiny_data), "--full_ranking", "--num_candidates", "20"])
    hidden_items.main(["--hidden", str(hidden), "--models", str(model), "--output", str(tmp_path / "tables" / "hidden.json")])
    (entry,) = json.loads((tmp_path / "tables" / "hidden.json").read_text())["models"]
    assert sum(entry["users"].values()) == 48 and entry["metrics"]["full"]["hidden"]["HR@10"] == 0  # nobody bought them
    assert entry["metrics"]["full"]["trained"]["MRR"] > 0 and "popularity (full): hidden MRR" in capsys.readouterr().out
