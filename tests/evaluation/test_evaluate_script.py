import json
import sys

import numpy as np
import pytest
import torch

import evaluate
from slmrec.artifacts import Stage, read_manifest, stage_input, write_json
from slmrec.data.dataset import load_dataset
from slmrec.errors import InputError
from slmrec.evaluation.metrics import summarise
from slmrec.recommender import Recommender
from slmrec.runtime import run_main

NUM_ITEMS, NUM_USERS = 60, 25


class Popular(Recommender):
    """Prefers items with high ids, whoever the user is."""

    max_length = 5

    def encode(self, batch):
        return torch.ones(len(batch["users"]), 1)

    def item_matrix(self):
        return torch.arange(NUM_ITEMS + 1, dtype=torch.float32).unsqueeze(1)


def write_data(directory, item_map="items-a", synthetic=True):
    generator = np.random.default_rng(0)
    lengths = generator.integers(3, 9, NUM_USERS)
    stage = Stage("data", directory, {"made": item_map}, {}, item_map=item_map)
    with stage:
        items = generator.integers(1, NUM_ITEMS + 1, lengths.sum()).astype(np.int32)
        np.savez(stage.path / "sequences.npz", items=items, offsets=np.concatenate([[0], np.cumsum(lengths)]))
        rows = [f"{number},i{number},{'' if number == 3 else f'Item {number}'}" for number in range(1, NUM_ITEMS + 1)]
        (stage.path / "items.csv").write_text("\n".join(["id,source_id,title", *rows]))
        write_json(stage.path / "stats.json", {"items": NUM_ITEMS, "users": NUM_USERS, "synthetic": synthetic})
    return directory


def write_model(directory, data, item_map="items-a"):
    stage = Stage("encoder", directory, {}, {"data": stage_input(data)}, item_map=item_map)
    with stage:
        (stage.path / "checkpoint-3").mkdir()
    return directory


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "load_recommender", lambda directory, device: Popular())
    return write_model(tmp_path / "model", write_data(tmp_path / "data"))


def run(*arguments) -> None:
    evaluate.main([str(argument) for argument in arguments] + ["--device", "cpu", "--num_candidates", "20"])


def test_writes_metrics_ranks_and_manifest(model, capsys):
    run("--model", model, "--full_ranking")
    output = model / "evaluation-test"
    metrics = json.loads((output / "metrics.json").read_text())
    dataset = load_dataset(model.parent / "data")
    with np.load(output / "ranks.npz", allow_pickle=False) as ranks:
        assert ranks["users"].tolist() == list(range(NUM_USERS))
        for name in ("sampled", "full"):
            assert summarise(ranks[name]).items() <= metrics["test"][name].items()
        for user in range(NUM_USERS):  # the model ranks by item id: rivals ahead are the untouched items with a larger id
            sequence = dataset.sequence(user)
            assert ranks["full"][user] == 1 + len(np.setdiff1d(np.arange(sequence[-1] + 1, NUM_ITEMS + 1), sequence))
    manifest = read_manifest(output, "evaluate")
    assert (manifest["item_map"], manifest["seed"]) == ("items-a", 0)
    assert manifest["inputs"]["model"]["directory"] == ".." and set(manifest["outputs"]) >= {"metrics.json", "ranks.npz"}
    printed = capsys.readouterr().out
    assert "SYNTHETIC" in printed and "1 + 20 candidates" in printed and "all 60 items" in printed
    assert f"{100 * metrics['test']['full']['MRR']:.2f}" in printed


def test_the_example_is_the_first_user_before_the_target(model):
    """The model recommends high ids; what the user had before is left out, the target is not."""
    for split, ahead in (("test", 1), ("valid", 2)):
        run("--model", model, "--split", split)
        found = json.loads((model / f"evaluation-{split}" / "example.json").read_text())
        *history, target = load_dataset(model.parent / "data").sequence(0)[: 1 - ahead or None].tolist()
        assert [one["item"] for one in found["history"]] == [f"i{item}" for item in history]
        assert found["target"]["item"] == f"i{target}"
        best = [item for item in range(NUM_ITEMS, 0, -1) if item not in history][:10]
        assert found["recommended"] == [{"item": f"i{item}", "title": f"Item {item}", "score": float(item)} for item in best]


def test_real_data_are_not_called_synthetic(model, tmp_path, capsys):
    run("--model", model, "--data", write_data(tmp_path / "real", synthetic=False), "--output_dir", tmp_path / "out")
    assert "SYNTHETIC" not in capsys.readouterr().out
    assert list(json.loads((tmp_path / "out" / "metrics.json").read_text())["test"]) == ["sampled"]


def test_second_run_is_up_to_date_whatever_the_batch_size(model, capsys):
    run("--model", model, "--split", "valid")
    run("--model", model, "--split", "valid", "--eval_batch_size", "3")
    assert "evaluation-valid: up to date" in capsys.readouterr().out


def test_another_seed_in_the_same_place_is_refused(model):
    run("--model", model)
    with pytest.raises(InputError, match="candidates_seed = 0, this one has 1"):
        run("--model", model, "--candidates_seed", 1)
    run("--model", model, "--candidates_seed", 1, "--overwrite_output_dir")
    assert read_manifest(model / "evaluation-test")["seed"] == 1


def test_the_model_is_never_replaced_by_its_evaluation(model):
    for place in (model, model.parent):
        with pytest.raises(InputError, match="would replace its own input"):
            run("--model", model, "--output_dir", place, "--overwrite_output_dir")
    assert read_manifest(model)["stage"] == "encoder"


def test_checkpoint_inside_a_stage_is_its_own_evaluation(model):
    run("--model", model / "checkpoint-3")
    manifest = read_manifest(model / "checkpoint-3" / "evaluation-test")
    assert manifest["config"]["checkpoint"] == "checkpoint-3" and manifest["inputs"]["model"]["directory"] == "../.."


def test_data_with_other_items_are_refused(model, tmp_path):
    with pytest.raises(InputError, match="do not number the same items"):
        run("--model", model, "--data", write_data(tmp_path / "other", item_map="items-b"))
    assert not (model / "evaluation-test").exists()


def test_scores_that_are_not_finite_leave_nothing_behind(model, monkeypatch):
    broken = Popular()
    broken.encode = lambda batch: torch.full((len(batch["users"]), 1), torch.nan)
    monkeypatch.setattr(evaluate, "load_recommender", lambda directory, device: broken)
    with pytest.raises(InputError, match="not finite"):
        run("--model", model)
    assert not list(model.glob("evaluation*"))


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--split", "train"], "--split train: choose one of valid, test"),
        (["--num_candidates", "0"], "--num_candidates 0: must be at least 1"),
        (["--eval_batch_size", "0"], "--eval_batch_size 0: must be at least 1"),
        (["--candidates_seed", "-1"], "--candidates_seed -1: must be in 0..2**64 - 1"),
        ([], "nowhere: no such directory"),
    ],
)
def test_bad_input_is_one_line_on_stderr(flags, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--model", "nowhere", *flags])
    with pytest.raises(SystemExit) as stopped:
        run_main(evaluate.main)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_users_who_have_touched_everything_on_a_real_table(shared_cases, tmp_path, capsys):
    """25 of 30 users have bought all six items. They counted as hits, which gave HR@1 near 100 %."""
    import slmrec.data.__main__ as data_stage
    import train_sr_trad

    reviews = shared_cases / "all_touched" / "reviews.csv"
    data_stage.main(["--format", "csv", "--input", str(reviews), "--k_core", "1", "--output_dir", str(tmp_path / "data")])
    train_sr_trad.main(["--model", "popularity", "--data", str(tmp_path / "data"), "--output_dir", str(tmp_path / "model")])
    evaluate.main(["--model", str(tmp_path / "model"), "--full_ranking", "--device", "cpu"])
    dataset = load_dataset(tmp_path / "data")
    touched_all = [len(set(dataset.sequence(user).tolist())) == dataset.num_items for user in range(dataset.num_users)]
    metrics = json.loads((tmp_path / "model" / "evaluation-test" / "metrics.json").read_text())["test"]
    assert sum(touched_all) == 25 == metrics["sampled"]["users_without_rivals"] and metrics["sampled"]["users"] == 5
    with np.load(tmp_path / "model" / "evaluation-test" / "ranks.npz") as arrays:
        assert ((arrays["sampled"] == 0) == touched_all).all() and arrays["sampled"].max() <= 6
    assert "25 users have touched every item: nothing to rank their target against" in capsys.readouterr().out
