import json
import shutil
import sys

import numpy as np
import pytest
import torch

import train_sr_trad
from slmrec.artifacts import Stage, read_manifest, write_json
from slmrec.encoders.registry import ENCODERS, load_encoder
from slmrec.errors import InputError
from slmrec.runtime import run_main
from slmrec.training import encoder_loop

SMALL = "--hidden_size 16 --num_layers 1 --max_length 6 --num_epochs 2 --batch_size 16 --device cpu".split()


@pytest.fixture
def data(tmp_path, write_names):
    """The directory of a data stage: 40 users, 20 items in a cycle, 6 actions each."""
    items = np.concatenate([(np.arange(6) + user) % 20 + 1 for user in range(40)]).astype(np.int32)
    with Stage("data", tmp_path / "data", {}, {}, item_map="cycle of twenty") as stage:
        np.savez(stage.path / "sequences.npz", items=items, offsets=np.arange(41, dtype=np.int64) * 6)
        write_names(stage.path, 40, 20)
        write_json(stage.path / "stats.json", {"items": 20, "users": 40})
    return tmp_path / "data"


def train(data, *flags):
    output = data.parent / "encoder"
    train_sr_trad.main(["--data", str(data), "--output_dir", str(output), *SMALL, *flags])
    return output


def test_a_finished_directory(data):
    output = train(data, "--dropout", "0.1")
    files = sorted(path.name for path in output.iterdir())
    assert files == ["catalogue.csv", "config.json", "manifest.json", "metrics.json", "model.safetensors", "run.json", "runs"]
    manifest, metrics = read_manifest(output, "encoder"), json.loads((output / "metrics.json").read_text())
    assert manifest["item_map"] == "cycle of twenty" and manifest["seed"] == 0
    assert manifest["config"]["architecture"] == {
        "hidden_size": 16,
        "num_layers": 1,
        "num_heads": 2,
        "dropout": 0.1,
        "max_length": 6,
    }
    assert [entry["epoch"] for entry in metrics["history"]] == [1, 2]
    assert metrics["history"][metrics["best_epoch"] - 1]["valid_MRR"] == metrics["valid"]["sampled"]["MRR"]
    # embeddings 21 x 16 and 6 x 16; layer norms 3 x 32; attention 16 x 48 + 48 and 16 x 16 + 16; feed-forward 2 x 16 x 64 + 80
    assert metrics["parameters"] == 336 + 96 + 96 + 816 + 272 + 2128
    model = load_encoder(output)
    assert not model.training and model.item_matrix().shape == (21, 16)


def test_up_to_date_and_another_configuration(data, capsys):
    output = train(data)
    written = (output / "model.safetensors").stat().st_mtime_ns
    train(data)
    assert "up to date" in capsys.readouterr().out
    assert (output / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(InputError, match=r"config.architecture.dropout = 0\.\d+, this one has 0.3"):
        train(data, "--dropout", "0.3")
    train(data, "--dropout", "0.3", "--overwrite_output_dir")
    assert read_manifest(output)["config"]["architecture"]["dropout"] == 0.3


def test_a_killed_run_resumes_to_the_same_weights(data, monkeypatch):
    whole = {name: tensor.clone() for name, tensor in load_encoder(train(data)).state_dict().items()}
    shutil.rmtree(data.parent / "encoder")
    original = encoder_loop.run_epoch

    def killed_in_the_second_epoch(model, rows, optimizer, settings, epoch, *more):
        if epoch == 2:
            raise KeyboardInterrupt
        return original(model, rows, optimizer, settings, epoch, *more)

    monkeypatch.setattr(encoder_loop, "run_epoch", killed_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(data)
    monkeypatch.undo()
    assert (data.parent / "encoder.partial" / "checkpoint.pt").exists()
    with pytest.raises(InputError, match="an unfinished run with config.training.learning_rate"):
        train(data, "--learning_rate", "0.5")
    resumed = load_encoder(train(data)).state_dict()
    assert read_manifest(data.parent / "encoder")["resumed"]
    assert all(torch.equal(tensor, whole[name]) for name, tensor in resumed.items())


def test_weights_of_another_model_are_refused(data, reseal):
    output = train(data)
    config = json.loads((output / "config.json").read_text())
    config["architecture"]["hidden_size"] = 32
    write_json(output / "config.json", config)
    reseal(output)
    with pytest.raises(InputError, match="model.safetensors: not the weights of sasrec"):
        load_encoder(output)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--model", "sasrek"], f"--model sasrek: choose one of {', '.join(ENCODERS)}"),
        (["--data", "nowhere"], "nowhere: no such directory"),
        (["--num_heads", "3"], "--hidden_size 16 cannot be divided among --num_heads 3"),
        (["--learning_rate", "0"], "--learning_rate 0.0: must be above 0"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(data, monkeypatch, capsys, flags, message):
    output = data.parent / "encoder"
    monkeypatch.setattr(sys, "argv", ["train_sr_trad.py", "--data", str(data), "--output_dir", str(output), *SMALL, *flags])
    with pytest.raises(SystemExit) as stopped:
        run_main(train_sr_trad.main)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert sorted(path.name for path in data.parent.iterdir()) == ["data"]
