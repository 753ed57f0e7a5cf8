import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaModel
from transformers.models.llama import modeling_llama

from slmrec.errors import InputError
from slmrec.llm.backbone import (
    add_lora,
    backbone_input,
    count_parameters,
    load_backbone,
    plain_backbone,
    shallow_config,
    written_by_this_project,
)


@pytest.mark.parametrize("num_layers, in_all, trained", [(32, "6.631", "0.023"), (4, "0.944", "0.003")])
def test_parameter_counts_of_table_5(num_layers, in_all, trained):
    """By hand, h = 4096, f = 11008: 32000 h + l (4 h^2 + 3 h f + 2 h) + h, and 3 l * 16 (h + f) for LoRA."""
    with torch.device("meta"):
        backbone = LlamaModel(LlamaConfig(num_hidden_layers=num_layers))
        counts = count_parameters(add_lora(backbone, 16, 16, 0.05, ["gate_proj", "up_proj", "down_proj"]))
    lora = num_layers * 3 * 16 * (4096 + 11008)
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    assert counts == {"parameters": 32000 * 4096 + num_layers * layer + 4096 + lora, "trained_parameters": lora}
    assert f"{counts['parameters'] / 1e9:.3f}" == in_all
    assert f"{counts['trained_parameters'] / 1e9:.3f}" == trained


def test_keeps_the_first_layers_bit_by_bit_and_builds_no_other(tiny_backbone, monkeypatch):
    built = []
    build = modeling_llama.LlamaDecoderLayer.__init__

    def counting(self, config, layer_idx):
        built.append(layer_idx)
        build(self, config, layer_idx)

    monkeypatch.setattr(modeling_llama.LlamaDecoderLayer, "__init__", counting)
    weights = load_backbone(str(tiny_backbone), 2).state_dict()
    assert built == [0, 1]
    saved = load_file(tiny_backbone / "model.safetensors")
    assert sum("layers.3." in name for name in saved) > 0
    kept = {name: tensor for name, tensor in saved.items() if "layers.2." not in name and "layers.3." not in name}
    assert weights.keys() == kept.keys()
    assert all(torch.equal(weights[name], kept[name]) for name in kept)


def test_precision_is_as_asked_for(tiny_backbone):
    assert load_backbone(str(tiny_backbone), 1).dtype == torch.float32
    assert load_backbone(str(tiny_backbone), 1, torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("num_layers", [0, 5])
def test_number_of_layers_that_is_not_there(tiny_backbone, num_layers):
    with pytest.raises(InputError, match=f"--num_layers {num_layers}: .* has 4 layers"):
        shallow_config(str(tiny_backbone), num_layers)


def test_lora_trains_the_adapters_only(tiny_backbone):
    backbone = add_lora(load_backbone(str(tiny_backbone), 2), 4, 4, 0.05, ["gate_proj", "down_proj"])
    trained = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 * 2 and all("lora_" in name and ("gate_proj" in name or "down_proj" in name) for name in trained)
    assert isinstance(plain_backbone(backbone), LlamaModel)
    assert plain_backbone(plain_backbone(backbone)) is plain_backbone(backbone)


def test_unknown_lora_target(tiny_backbone):
    with pytest.raises(InputError, match="--lora_target_modules nowhere"):
        add_lora(load_backbone(str(tiny_backbone), 1), 4, 4, 0.0, ["nowhere"])


def test_directory_without_a_configuration(tmp_path):
    with pytest.raises(InputError, match="the directory has no config.json"):
        shallow_config(str(tmp_path), 1)


def test_directory_without_weights(tmp_path):
    LlamaConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="its weights cannot be loaded"):
        load_backbone(str(tmp_path), 1)
    with pytest.raises(InputError, match="the directory has no weights"):
        backbone_input(str(tmp_path))


def test_a_missing_weight_is_not_made_up(tiny_backbone, tmp_path):
    broken = shutil.copytree(tiny_backbone, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    del weights["layers.1.mlp.up_proj.weight"]
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"its weights lack layers.1.mlp.up_proj.weight \(1 such tensors\)"):
        load_backbone(str(broken), 2)
    load_backbone(str(broken), 1)


def test_a_truncated_weight_file(tiny_backbone, tmp_path):
    broken = shutil.copytree(tiny_backbone, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes((tiny_backbone / "model.safetensors").read_bytes()[:-10])
    with pytest.raises(InputError, match="broken: its weights cannot be loaded"):
        load_backbone(str(broken), 2)


def test_the_layers_left_out_are_no_warning(tiny_backbone, caplog):
    load_backbone(str(tiny_backbone), 2)
    assert "UNEXPECTED" not in caplog.text


def test_fingerprint_follows_weights_and_configuration_but_not_the_place(write_backbone, tmp_path):
    original = backbone_input(str(write_backbone(tmp_path / "a", num_layers=1)))
    moved = (tmp_path / "a").rename(tmp_path / "b")
    assert backbone_input(str(moved))["digest"] == original["digest"]
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "model.safetensors").write_bytes(weights)
    other_weights = backbone_input(str(moved))["digest"]
    config = json.loads((moved / "config.json").read_text()) | {"rope_theta": 5.0}
    (moved / "config.json").write_text(json.dumps(config))
    assert len({original["digest"], other_weights, backbone_input(str(moved))["digest"]}) == 3


def test_recognises_its_own_random_checkpoints(tiny_backbone, tmp_path):
    assert written_by_this_project(str(tiny_backbone))
    LlamaConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    assert not written_by_this_project(str(tmp_path))
