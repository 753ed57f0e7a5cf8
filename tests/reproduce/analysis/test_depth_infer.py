"""Metrics of intermediate layers: the readings, the vectors they give, and the stage directory around them."""

import json
import sys

import pytest
import torch

import evaluate
from reproduce.analysis import depth_infer
from reproduce.analysis.depth_infer import LayerReader, Reading, readings
from slmrec.artifacts import Stage, read_manifest, stage_input
from slmrec.errors import InputError
from slmrec.runtime import run_main


@pytest.fixture(scope="module")
def measured(tiny_teacher, tmp_path_factory):
    """The analysis of a trained model of 4 layers, and of its evaluation by evaluate.py."""
    directory = tmp_path_factory.mktemp("depth")
    flags = ["--model", str(tiny_teacher), "--num_candidates", "20", "--device", "cpu"]
    depth_infer.main([*flags, "--output_dir", str(directory / "depth_infer")])
    evaluate.main([*flags, "--full_ranking", "--output_dir", str(directory / "evaluation")])
    return directory


def read(path):
    return json.loads((path / "metrics.json").read_text())


def test_readings_are_two_per_layer_and_one_of_the_last():
    assert readings(1) == [Reading(1, True)]
    assert readings(3) == [Reading(1, False), Reading(1, True), Reading(2, False), Reading(2, True), Reading(3, True)]


def test_of_a_deep_model_the_last_ten_layers_are_read():
    assert sorted({reading.layer for reading in readings(32)}) == list(range(23, 33))
    assert len(readings(32)) == 19


def test_the_last_layer_reproduces_the_evaluation_exactly(measured):
    layers = read(measured / "depth_infer")["layers"]
    evaluation = read(measured / "evaluation")["test"]
    assert layers[-1] == {"layer": 4, "final_norm": True, "metrics": evaluation}
    assert set(evaluation) == {"sampled", "full"}


def test_every_layer_meets_the_same_candidates_and_gives_its_own_ranks(measured):
    layers = read(measured / "depth_infer")["layers"]
    assert [(entry["layer"], entry["final_norm"]) for entry in layers] == [
        (1, False),
        (1, True),
        (2, False),
        (2, True),
        (3, False),
        (3, True),
        (4, True),
    ]
    assert len({entry["metrics"]["sampled"]["candidates_digest"] for entry in layers}) == 1
    assert len({entry["metrics"]["full"]["MRR"] for entry in layers}) > 4


@pytest.mark.parametrize("encoding", ["exact", "reference"])
@torch.no_grad()
def test_vectors_are_projected_states_with_and_without_the_norm(make_recommender, make_batch, encoding):
    model, batch = make_recommender(3, encoding=encoding).eval(), make_batch([3, 8])
    model.backbone.norm.weight.normal_()
    reader = LayerReader(model, 2).eval()
    states = model(batch, layers=(2, 3)).states
    expected = {
        Reading(2, False): model.user_projection(states[2]),
        Reading(2, True): model.user_projection(model.backbone.norm(states[2])),
        Reading(3, True): model.encode(batch),  # its state is normed already
    }
    for reader.reading, vectors in expected.items():
        torch.testing.assert_close(reader.encode(batch), vectors, rtol=0, atol=0)
    assert not torch.allclose(expected[Reading(2, False)], expected[Reading(2, True)])


@torch.no_grad()
def test_the_adapted_decoder_has_its_norm_too(make_recommender, make_batch):
    model, batch = make_recommender(2, lora=True).eval(), make_batch([3, 8])
    reader = LayerReader(model, 2)
    torch.testing.assert_close(reader.encode(batch), model.encode(batch), rtol=0, atol=0)


@torch.no_grad()
def test_the_model_runs_once_for_all_readings(make_recommender, make_batch):
    """Users are looked up by their numbers, whatever the order of the batch."""
    reader, batch = LayerReader(make_recommender(3), 2).eval(), make_batch([3, 8])
    first = reader.encode(batch)
    reader.model.backbone = None  # a second run would fail
    torch.testing.assert_close(reader.encode({"users": torch.tensor([1, 0])}), first[[1, 0]], rtol=0, atol=0)


def test_stage_is_inside_the_model_and_up_to_date_when_run_again(tiny_teacher, capsys):
    flags = ["--model", str(tiny_teacher), "--split", "valid", "--num_candidates", "20", "--device", "cpu"]
    depth_infer.main(flags)
    manifest = read_manifest(tiny_teacher / "depth_infer-valid", "depth_infer")
    assert manifest["inputs"]["model"]["digest"] == read_manifest(tiny_teacher)["digest"]
    assert manifest["inputs"]["data"]["directory"] == "../../data" and manifest["seed"] == 0
    assert "layer 3, without the final norm: MRR" in capsys.readouterr().out
    depth_infer.main([*flags, "--eval_batch_size", "7"])
    assert "depth_infer-valid: up to date" in capsys.readouterr().out
    with pytest.raises(InputError, match="candidates_seed = 0, this one has 1"):
        depth_infer.main([*flags, "--candidates_seed", "1"])


def test_an_encoder_has_no_such_layers(tiny_data, tmp_path):
    with Stage("encoder", tmp_path / "sasrec", {}, {"data": stage_input(tiny_data)}):
        pass
    with pytest.raises(InputError, match="holds a 'encoder' stage where 'finetune' or 'distill' is needed"):
        depth_infer.main(["--model", str(tmp_path / "sasrec")])


def test_a_decoder_without_the_norm_is_an_input_error(make_recommender, make_batch):
    model = make_recommender(2)
    reader = LayerReader(model, 2)
    states = {1: torch.zeros(2, 32), 2: torch.zeros(2, 32)}
    model.forward = lambda *_, **__: type("Encoded", (), {"states": states})
    del model.backbone.norm
    with pytest.raises(InputError, match="a llama decoder has no final norm"):
        reader.encode(make_batch([3, 8]))


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--split", "train"], "--split train: choose one of valid, test"),
        (["--eval_batch_size", "0"], "--eval_batch_size 0: must be at least 1"),
        (["--num_candidates", "0"], "--num_candidates 0: must be at least 1"),
        (["--candidates_seed", "-1"], "--candidates_seed -1: must be in 0..2**64 - 1"),
        ([], "nowhere: no such directory"),
    ],
)
def test_bad_input_is_one_line_on_stderr(flags, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["depth_infer", "--model", "nowhere", *flags])
    with pytest.raises(SystemExit) as stopped:
        run_main(depth_infer.main)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"
