import json

import numpy as np
import pytest

import evaluate
import train_sr_trad
from reproduce import gains
from reproduce.gains import groups_of, nearest_in_history, repeats
from slmrec.errors import InputError

# Users: 1 2 3, 2 4 4, 1 2 3 1
ITEMS, OFFSETS = np.array([1, 2, 3, 2, 4, 4, 1, 2, 3, 1]), np.array([0, 3, 6, 10])
# Items 1 and 3 nearly alike, 2 away from all, 4 opposite to 2
VECTORS = np.array([[0, 0], [1, 0], [0, 2], [3, 0.3], [0, -1]], dtype=np.float32)


def test_repeats_by_hand():
    assert repeats(ITEMS, OFFSETS).tolist() == [False, True, False]


def test_the_nearest_title_by_hand():
    near = 3 / np.hypot(3, 0.3)
    assert nearest_in_history(ITEMS, OFFSETS, VECTORS) == pytest.approx([near, -1, near], abs=1e-6)


def test_groups_cover_all_users_once():
    kinds = groups_of(ITEMS, OFFSETS, VECTORS)
    assert set(kinds) == {"all", "history", "popularity", "repeats", "titles"}
    for groups in kinds.values():
        assert (np.sum(list(groups.values()), axis=0) == 1).all()
    assert kinds["titles"]["no such title"].tolist() == [False, True, False]
    assert "titles" not in groups_of(ITEMS, OFFSETS, None)


def test_two_models_side_by_side(tiny_data, write_data, tmp_path, capsys):
    for name in ("popularity", "markov"):
        train_sr_trad.main(["--model", name, "--data", str(tiny_data), "--output_dir", str(tmp_path / name)])
        evaluate.main(["--model", str(tmp_path / name), "--full_ranking", "--num_candidates", "20"])
    sides = ["--models", str(tmp_path / "markov"), "--against", str(tmp_path / "popularity")]
    gains.main([*sides, "--output", str(tmp_path / "gains.json")])
    written = json.loads((tmp_path / "gains.json").read_text())
    whole = written["groups"][0]
    for side, name in (("model", "markov"), ("against", "popularity")):
        metrics = json.loads((tmp_path / name / "evaluation-test" / "metrics.json").read_text())["test"]
        assert whole[side]["full"]["MRR"] == pytest.approx(metrics["full"]["MRR"])
        assert whole[side]["sampled"]["HR@10"] == pytest.approx(metrics["sampled"]["HR@10"])
    history = [entry for entry in written["groups"] if entry["kind"] == "history"]
    assert sum(entry["users"] for entry in history) == whole["users"] == 48
    assert "all: all" in capsys.readouterr().out
    other = write_data(tmp_path / "other", seed=1)
    train_sr_trad.main(["--model", "markov", "--data", str(other), "--output_dir", str(tmp_path / "markov_other")])
    evaluate.main(["--model", str(tmp_path / "markov_other"), "--full_ranking", "--num_candidates", "20"])
    with pytest.raises(InputError, match="different data"):
        gains.main([*sides, str(tmp_path / "markov_other"), "--output", str(tmp_path / "gains.json")])
