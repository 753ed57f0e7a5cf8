"""Block influence and linear CKA by hand, and the states that they are taken from."""

import json
import math

import numpy as np
import pytest
import torch

from reproduce.analysis import layers
from reproduce.analysis.layers import block_influence, collect_states, evenly_spaced, linear_cka, read_states
from slmrec.artifacts import read_manifest
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import load_dataset
from slmrec.errors import InputError


def test_block_influence_by_hand():
    """Cosines of the first pair: 1 and 0; of the second: 0.6 and -1."""
    states = [[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [5.0, 0.0]], [[3.0, 4.0], [-1.0, 0.0]]]
    assert block_influence([torch.tensor(state) for state in states]) == pytest.approx([0.5, 1.2], abs=1e-12)


def test_a_layer_that_does_nothing_has_no_influence():
    state = torch.randn(7, 5)
    assert block_influence([state, state, -state]) == pytest.approx([0, 2], abs=1e-12)


def test_cka_of_two_columns_is_their_squared_correlation():
    """Centred: (-1, 0, 1) and (-2/3, 1/3, 1/3); product 1, squared lengths 2 and 2/3, so 1 / (4/3)."""
    matrix = linear_cka([torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[5.0], [6.0], [6.0]])])
    assert matrix[0][1] == matrix[1][0] == pytest.approx(0.75, abs=1e-12)
    assert matrix[0][0] == matrix[1][1] == pytest.approx(1, abs=1e-12)


def test_cka_of_different_widths_by_hand():
    """X'X = diag(2, 2) with norm sqrt(8), y'y = 2, |y'X|^2 = |(2, 0)|^2 = 4; 4 / (2 sqrt(8)) = 1 / sqrt(2)."""
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    y = torch.tensor([[1.0], [-1.0], [0.0], [0.0]])
    assert linear_cka([x, y])[0][1] == pytest.approx(1 / math.sqrt(2), abs=1e-12)


def test_cka_is_blind_to_rotation_scale_and_shift_only():
    torch.manual_seed(0)
    x = torch.randn(30, 6, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    stretched = x * torch.tensor([10.0, 1, 1, 1, 1, 1])
    same, _, other = linear_cka([x, 7 * x @ rotation + 3, stretched])[1]
    assert same == pytest.approx(1, abs=1e-12)
    assert other < 0.9


def test_cka_of_a_constant_state_is_undefined():
    """0.1 is no binary fraction: its mean over many rows is not 0.1 to the last bit."""
    matrix = linear_cka([torch.full((1001, 3), 0.1), torch.randn(1001, 2)])
    assert matrix[0] == [None, None] and matrix[1][0] is None and matrix[1][1] == pytest.approx(1)


@pytest.mark.parametrize("encoding", ["exact", "reference"])
@pytest.mark.parametrize("closing, targets", [(7, "last"), (0, "all")])
@torch.no_grad()
def test_states_from_the_input_to_before_the_norm(make_recommender, make_batch, encoding, closing, targets):
    model = make_recommender(3, encoding=encoding, closing=closing, targets=targets).eval()
    model.backbone.norm.weight.uniform_(0.5, 1.5)  # with weights of 1, a state that is normed twice looks like one normed once
    batch = make_batch([3, 8, 1])
    states = read_states(model, batch)
    expected = model(batch, layers=(1, 2, 3), read="last").states
    assert [tuple(state.shape) for state in states] == [(3, 32)] * 4
    torch.testing.assert_close(states[1:3], [expected[1], expected[2]], rtol=0, atol=0)
    torch.testing.assert_close(model.backbone.norm(states[3]), expected[3], rtol=0, atol=1e-6)
    last = batch["history"][[2, 10, 11]]
    token = model.backbone.embed_tokens(torch.tensor(46)).expand(3, -1)  # the closing tokens are 40 .. 46
    at_position = token if closing else model.item_projection(model.item_embeddings[last])
    torch.testing.assert_close(states[0], at_position)


@torch.no_grad()
def test_a_layer_of_zeros_passes_its_input_on(make_recommender, make_batch):
    model = make_recommender(3, lora=True).eval()
    decoder = model.backbone.get_base_model()
    skipped = decoder.layers[2]  # the last one, whose raw output is what the norm is given
    skipped.self_attn.o_proj.weight.zero_()
    for part in (skipped.mlp.down_proj.base_layer, skipped.mlp.down_proj.lora_B["default"]):
        part.weight.zero_()
    influence = block_influence(read_states(model, make_batch([3, 8, 1])))
    assert influence[2] == pytest.approx(0, abs=1e-6)
    assert influence[0] > 1e-3 and influence[1] > 1e-3


def test_states_do_not_depend_on_the_batches(make_recommender, tiny_data):
    model = make_recommender(2).eval()
    rows = SplitRows(load_dataset(tiny_data), "test", 30)
    chosen = evenly_spaced(len(rows), 10)
    whole, pieces = collect_states(model, rows, chosen, 512), collect_states(model, rows, chosen, 3)
    torch.testing.assert_close(whole, pieces, rtol=0, atol=1e-5)
    assert whole[0].shape == (10, 32) and linear_cka(whole)[0] == [None] * 3  # all of them read the same closing token


def test_states_that_are_not_finite_are_an_input_error(make_recommender, tiny_data):
    model = make_recommender(2).eval()
    model.backbone.layers[1].mlp.down_proj.weight.data.fill_(torch.nan)
    rows = SplitRows(load_dataset(tiny_data), "test", 30)
    with pytest.raises(InputError, match="states after layer 2 are not finite"):
        collect_states(model, rows, np.arange(4), 2)


def test_chosen_users_are_evenly_spaced():
    assert evenly_spaced(10, 4).tolist() == [0, 2, 5, 7]
    assert evenly_spaced(3, 4).tolist() == evenly_spaced(3, None).tolist() == [0, 1, 2]
    assert evenly_spaced(0, None).tolist() == []


def test_stage_directory(tiny_teacher, capsys):
    flags = ["--model", str(tiny_teacher), "--device", "cpu", "--max_users", "20"]
    layers.main(flags)
    output = tiny_teacher / "layers-test"
    text = (output / "metrics.json").read_text()
    metrics = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))
    assert metrics.keys() == {"block_influence", "cka", "users"} and metrics["users"] == 20
    assert len(metrics["block_influence"]) == 4 and [len(row) for row in metrics["cka"]] == [5] * 5
    assert [metrics["cka"][layer][layer] for layer in range(1, 5)] == pytest.approx([1] * 4)
    assert "layer 4: block influence" in capsys.readouterr().out
    manifest = read_manifest(output, "layers")
    assert manifest["inputs"].keys() == {"data", "model"} and manifest["config"] == {"split": "test", "max_users": 20}
    layers.main(flags)
    assert "layers-test: up to date" in capsys.readouterr().out
    with pytest.raises(InputError, match="max_users = 20, this one has 10"):
        layers.main([*flags[:-1], "10"])


def test_one_user_is_not_enough(tiny_teacher):
    with pytest.raises(InputError, match="--max_users 1: must be at least 2"):
        layers.main(["--model", str(tiny_teacher), "--max_users", "1"])
