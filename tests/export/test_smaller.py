"""Fewer bits and fewer weights after training: what each kind changes, and what it leaves alone."""

import pytest
import torch

from slmrec.errors import InputError
from slmrec.export.smaller import KINDS, linear_layers, size_on_disk, smaller


def users(model, batch):
    with torch.inference_mode():
        return model.encode(batch)


@pytest.fixture
def batch(make_batch):
    return make_batch([3, 1, 5])


def test_float32_is_the_model_itself(make_recommender, batch):
    model = make_recommender().eval()
    expected = users(model, batch)
    assert torch.equal(users(smaller(model, "fp32"), batch), expected)


def test_bf16_is_close_and_half_as_large(make_recommender, batch):
    model = make_recommender().eval()
    expected, size = users(model, batch), size_on_disk(model)
    low = smaller(model, "bf16")
    found = users(low, batch)
    assert found.dtype == torch.float32 and 0 < (found - expected).norm() < 0.05 * expected.norm()
    assert low.backbone.rotary_emb.inv_freq.dtype == torch.float32  # an angle of position 99 would be wrong by tenths
    assert size_on_disk(low) < 0.75 * size and {p.dtype for p in low.backbone.parameters()} == {torch.bfloat16}


def test_pruning_takes_the_smaller_half_of_each_weight(make_recommender):
    model = make_recommender()
    before = [layer.weight.detach().clone() for layer in linear_layers(model)]
    for layer, old in zip(linear_layers(smaller(model, "pruned")), before, strict=True):
        kept = layer.weight != 0
        assert kept.sum() == old.numel() // 2 and torch.equal(layer.weight[kept], old[kept])
        assert old[kept].abs().min() >= old[~kept].abs().max()


def test_neurons_that_say_nothing_can_go(make_recommender, batch):
    """Where half of each MLP's output weights are zero already, taking those neurons out changes nothing but the size."""
    model = make_recommender().eval()
    for layer in model.backbone.layers:
        layer.mlp.down_proj.weight.data[:, ::2] = 0.0
    expected, size = users(model, batch), size_on_disk(model)
    assert torch.allclose(users(smaller(model, "neurons"), batch), expected, atol=1e-5)
    assert size_on_disk(model) < size and model.backbone.layers[0].mlp.gate_proj.weight.shape == (24, 32)


@pytest.mark.parametrize("kind, error", [("int8", 0.02), ("int8_dynamic", 0.05), ("int4", 0.3)])
def test_integers_of_torchao(make_recommender, batch, kind, error):
    pytest.importorskip("torchao", reason="pip install -e .[quantise]")
    model = make_recommender().eval()
    expected, size = users(model, batch), size_on_disk(model)
    found = users(smaller(model, kind), batch)
    assert 0 < (found - expected).norm() < error * expected.norm() and size_on_disk(model) < size


def test_onnx_equals_the_model_and_its_integers_are_close(make_recommender, batch):
    pytest.importorskip("onnxruntime", reason="pip install -e .[export]")
    expected = users(make_recommender(num_layers=1).eval(), batch)
    plain, quantised = (smaller(make_recommender(num_layers=1), kind) for kind in ("onnx", "onnx_int8"))
    assert torch.allclose(users(plain, batch), expected, atol=1e-4)
    assert (users(quantised, batch) - expected).norm() < 0.1 * expected.norm()
    assert size_on_disk(quantised) < size_on_disk(plain)


def test_what_cannot_be_made_smaller_is_one_line(make_recommender, monkeypatch):
    with pytest.raises(InputError, match="int3: choose one of fp32, bf16"):
        smaller(make_recommender(), "int3")
    monkeypatch.setitem(KINDS, "int8", lambda model: __import__("torchao_that_is_not_there"))
    with pytest.raises(InputError, match="not installed: pip install -e"):
        smaller(make_recommender(), "int8")
