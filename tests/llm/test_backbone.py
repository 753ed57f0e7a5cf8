import ast
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, LlamaConfig, LlamaModel, T5Config, T5Model
from transformers.models.llama import modeling_llama

import finetune
from slmrec.errors import InputError
from slmrec.llm.backbone import (
    add_lora,
    backbone_input,
    count_parameters,
    load_backbone,
    load_backbone_config,
    plain_backbone,
    require_causal,
    shallow_config,
    share_frozen,
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


def test_adapters_in_bf16_are_those_of_peft_without_its_casts(tiny_backbone):
    """What enters an adapter is bf16 and so are its products; peft's float32 in between changes rounding alone."""
    backbone = add_lora(load_backbone(str(tiny_backbone), 2, torch.bfloat16), 4, 4, 0.1, ["gate_proj", "down_proj"])
    layers = [module for module in backbone.modules() if hasattr(module, "cast_input_dtype_enabled")]
    assert len(layers) == 4 and not any(layer.cast_input_dtype_enabled for layer in layers)
    torch.manual_seed(0)
    trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    for parameter in trained:
        torch.nn.init.normal_(parameter, std=0.3)
    inputs = torch.randn(3, 7, plain_backbone(backbone).config.hidden_size).bfloat16()

    def outcome(casts, train):
        for layer in layers:
            layer.cast_input_dtype_enabled = casts
        backbone.train(train).zero_grad()
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            states = plain_backbone(backbone)(inputs_embeds=inputs).last_hidden_state
        (states.float() * inputs.float().sin()).sum().backward()
        return [states, *(parameter.grad for parameter in trained)]

    assert torch.equal(outcome(True, False)[0], outcome(False, False)[0])
    for with_casts, without in zip(outcome(True, True), outcome(False, True), strict=True):
        assert (with_casts - without).norm() <= 0.02 * with_casts.norm()


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
    for name in ("manifest.json", "run.json"):  # which would say that the files have changed
        (moved / name).unlink()
    assert backbone_input(str(moved))["digest"] == original["digest"]
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "model.safetensors").write_bytes(weights)
    other_weights = backbone_input(str(moved))["digest"]
    config = json.loads((moved / "config.json").read_text()) | {"rope_theta": 5.0}
    (moved / "config.json").write_text(json.dumps(config))
    assert len({original["digest"], other_weights, backbone_input(str(moved))["digest"]}) == 3


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "merges.txt", "tokenizer.model",
             "spm.model", "source.spm", "chat_template.jinja", "qwen.tiktoken", "additional_chat_templates/tools.jinja"]
)  # fmt: skip
def test_the_tokenizer_is_a_part_of_the_base_model(tiny_backbone, tmp_path, name):
    """Another one makes other tokens of the prompt; other documents say nothing."""
    foreign = shutil.copytree(tiny_backbone, tmp_path / "foreign", ignore=shutil.ignore_patterns("manifest.json", "run.json"))
    (foreign / name).parent.mkdir(exist_ok=True)
    if not (foreign / name).exists():
        (foreign / name).write_text("{}")
    before = backbone_input(str(foreign))
    (foreign / "README.md").write_text("a model")
    assert backbone_input(str(foreign)) == before
    (foreign / name).write_text((foreign / name).read_text() + " ")
    after = backbone_input(str(foreign))
    assert after["digest"] != before["digest"] and after["weights"] == before["weights"]


def test_recognises_its_own_random_checkpoints(tiny_backbone, tmp_path):
    assert written_by_this_project(str(tiny_backbone))
    LlamaConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    assert not written_by_this_project(str(tmp_path))


# -- checkpoints that cannot be trained on: one line each ----------------------------------------------------------------------


def without_tokenizer(directory):
    for path in directory.glob("*token*"):
        path.unlink()


def with_a_damaged_tokenizer(directory):
    (directory / "tokenizer.json").write_text('{"version": ')


def with_a_pointer(name):
    def change(directory):
        (directory / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n")

    return change


def with_content(name, content):
    def change(directory):
        (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def with_config(**changes):
    def change(directory):
        config = json.loads((directory / "config.json").read_text()) | changes
        (directory / "config.json").write_text(json.dumps(config))

    return change


def with_token_vectors(number):
    def change(directory):
        with_config(vocab_size=number)(directory)
        weights = load_file(directory / "model.safetensors")
        weights["embed_tokens.weight"] = weights["embed_tokens.weight"][:number].contiguous()
        save_file(weights, directory / "model.safetensors", {"format": "pt"})

    return change


TINY = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
REMOTE = {"auto_map": {"AutoConfig": "configuration_foo.FooConfig", "AutoModel": "modeling_foo.Foo"}, "model_type": "foo"}


@pytest.mark.parametrize(
    "change, line",
    [
        (without_tokenizer, "no tokenizer that can be read"),
        (with_a_damaged_tokenizer, "tokenizer.json: not valid JSON"),
        (with_content("tokenizer.json", "[" * 100_000), "tokenizer.json: not valid JSON (nested too deeply"),
        (with_content("tokenizer.json", '{"version": "1.0", "model": []}'), "no tokenizer that can be read"),
        (with_content("tokenizer_config.json", "[]"), "tokenizer_config.json: not a JSON object"),
        (with_content("tokenizer_config.json", b"\xff\xfe"), "tokenizer_config.json: not valid JSON"),
        (with_content("tokenizer_config.json", '{"tokenizer_class": -1}'), "no tokenizer that can be read"),
        (with_content("tokenizer_config.json", '{"model_max_length": "x"}'), "its tokenizer cannot be used"),
        (with_content("config.json", "[]"), "config.json: not a JSON object"),
        (
            with_content("config.json", '{"model_type": "llama", "bos_token_id": ' + 9 * "9" * 500 + "}"),
            "config.json: not valid JSON",
        ),
        (with_config(hidden_act="x"), "no model can be made by its config.json ('x')"),
        (with_config(hidden_act=None), "no checkpoint with a config.json there (Validation error for field 'hidden_act'"),
        (with_config(intermediate_size=-1), "no model can be made by its config.json (Trying to create tensor with negative"),
        (with_config(vocab_size=0), "not a language model (its config.json has no number vocab_size)"),
        (with_config(eos_token_id="9" * 5000), "no checkpoint with a config.json there"),
        (with_config(model_type="clip"), "--encoding exact knows llama, mistral, qwen2, not clip"),
        (with_a_pointer("tokenizer.json"), "tokenizer.json is a git-LFS pointer, not the file: run git lfs pull there"),
        (with_a_pointer("model.safetensors"), "model.safetensors is a git-LFS pointer"),
        (with_config(quantization_config={"quant_method": "gptq", "bits": 4}), "its weights are quantised (gptq)"),
        (with_config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "quantised (bitsandbytes)"),
        (with_token_vectors(50), "its tokenizer does not belong to it: it has 170 tokens, the model 50 token vectors"),
        (with_content("adapter_config.json", "{}"), "has a peft adapter beside its weights (adapter_config.json); merge it into"),
        (with_config(**REMOTE), "only its own code knows its kind (foo), and no code of a checkpoint is ever run"),
        (with_config(model_type="bert"), "--encoding exact knows llama, mistral, qwen2, not bert"),
    ],
)
def test_bases_that_cannot_work(tiny_backbone, tiny_flags, tmp_path, monkeypatch, change, line):
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("the user was asked whether to run a checkpoint's code"))
    base = shutil.copytree(tiny_backbone, tmp_path / "base", ignore=shutil.ignore_patterns("manifest.json", "run.json"))
    change(base)
    with pytest.raises(InputError, match=re.escape(line)) as raised:
        finetune.main(tiny_flags(base_model=base, output_dir=tmp_path / "out"))
    assert "\n" not in str(raised.value) and len(str(raised.value)) < len(str(base)) + 300
    assert {path.name for path in tmp_path.iterdir()} == {"base"}


@pytest.mark.parametrize(
    "model, line",
    [
        (BertModel(BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)), "see later ones"),
        (T5Model(T5Config(vocab_size=20, d_model=8, d_ff=8, num_layers=1, num_heads=2, d_kv=4)), "not a decoder"),
    ],
)
def test_models_that_see_the_future_or_are_no_decoder(model, line):
    with pytest.raises(InputError, match=line):
        require_causal(model.eval(), "somewhere")


def test_a_pointer_that_nobody_reads_is_no_trouble(tiny_backbone, tmp_path):
    """`git lfs pull --include "*.safetensors"` leaves the same weights in another format as they were."""
    base = shutil.copytree(tiny_backbone, tmp_path / "base", ignore=shutil.ignore_patterns("manifest.json", "run.json"))
    with_a_pointer("pytorch_model.bin")(base)
    assert load_backbone_config(str(base)).num_hidden_layers == 4
    (base / "model.safetensors").unlink()
    with pytest.raises(InputError, match="pytorch_model.bin is a git-LFS pointer"):
        load_backbone_config(str(base))


def test_other_decoders_are_causal():
    for model in (GPT2Model(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2)), LlamaModel(LlamaConfig(**TINY))):
        require_causal(model.eval(), "somewhere")


def test_a_changed_bit_in_a_checkpoint_of_ours_is_noticed(write_backbone, tmp_path):
    directory = write_backbone(tmp_path / "backbone", num_layers=1)
    weights = bytearray((directory / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (directory / "model.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match="model.safetensors: damaged or changed since it was written"):
        backbone_input(str(directory))


def test_all_weights_of_somebody_else_s_checkpoint_are_read_when_asked(write_backbone, tmp_path):
    """Their sha256 is recorded, and no part of the digest; the Hugging Face cache names files by theirs."""
    made = write_backbone(tmp_path / "made", num_layers=1)
    plain = shutil.copytree(made, tmp_path / "plain", ignore=shutil.ignore_patterns("manifest.json", "run.json"))
    digest = hashlib.sha256((plain / "model.safetensors").read_bytes()).hexdigest()
    asked, unasked = backbone_input(str(plain), whole=True), backbone_input(str(plain))
    assert asked == unasked | {"sha256": {"model.safetensors": digest}}
    for name, right in ((digest, True), ("0" * 64, False)):
        (tmp_path / "blobs").mkdir(exist_ok=True)
        shutil.copy(made / "model.safetensors", tmp_path / "blobs" / name)
        (plain / "model.safetensors").unlink()
        (plain / "model.safetensors").symlink_to(tmp_path / "blobs" / name)
        if right:
            assert backbone_input(str(plain), whole=True) == asked
        else:
            with pytest.raises(InputError, match=f"damaged: its sha256 is {digest}, and the cache has it as 0000"):
                backbone_input(str(plain), whole=True)


@pytest.mark.parametrize("content", ["[]", "{}", '{"manifest_version": 3}'])
def test_a_manifest_of_somebody_else_in_a_checkpoint_says_nothing(write_backbone, tmp_path, content):
    directory = write_backbone(tmp_path / "backbone", num_layers=1)
    (directory / "run.json").unlink()
    (directory / "manifest.json").write_text(content)
    assert backbone_input(str(directory))["base_model"] == "backbone" and not written_by_this_project(str(directory))


@pytest.mark.parametrize("content", ["", "{", "\0\0\0", None, "[]"])
def test_a_damaged_manifest_does_not_turn_our_checkpoint_into_a_pretrained_one(write_backbone, tmp_path, content):
    """It would get LoRA on random weights, in silence."""
    directory = write_backbone(tmp_path / "backbone", num_layers=1)
    (directory / "manifest.json").unlink()
    if content is not None:
        (directory / "manifest.json").write_text(content)
    (tmp_path / "link").symlink_to(directory)
    for place in (directory, tmp_path / "link"):
        with pytest.raises(InputError, match="manifest.json: (not|no such file)"):
            written_by_this_project(str(place))


def test_no_call_leaves_it_open_whether_a_checkpoint_may_bring_code():
    """transformers asks on the terminal where it is not told."""
    root, kinds = Path(__file__).resolve().parents[2], {"AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer"}
    found = []
    for path in [*root.glob("*.py"), *root.glob("slmrec/**/*.py"), *root.glob("reproduce/**/*.py")]:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr.startswith("from_"):
                if isinstance(call.func.value, ast.Name) and call.func.value.id in kinds:
                    given = [keyword.arg or ast.unparse(keyword.value) for keyword in call.keywords]
                    found.append(path.name)
                    assert {"trust_remote_code", "NO_REMOTE_CODE", "source"} & set(given), f"{path}:{call.lineno}"
    assert {"backbone.py", "make_backbone.py", "language_model.py", "base_model.py", "cases.py"} <= set(found)


def test_frozen_weights_that_two_models_have_in_common_are_held_once(tiny_backbone):
    """A student of 2 layers and its teacher of 4: embeddings, final norm and the first two layers are the same numbers."""
    student, teacher = (add_lora(load_backbone(str(tiny_backbone), layers), 4, 4, 0.0, ["up_proj"]) for layers in (2, 4))
    vectors = torch.randn(1, 5, 32)
    before = student(inputs_embeds=vectors).last_hidden_state
    frozen = sum(weight.nbytes for weight in student.parameters() if not weight.requires_grad)
    assert share_frozen(student, teacher) == frozen and share_frozen(student, teacher) == 0
    assert torch.equal(student(inputs_embeds=vectors).last_hidden_state, before)
    held = {weight.data_ptr() for model in (student, teacher) for weight in model.parameters() if not weight.requires_grad}
    assert held == {weight.data_ptr() for weight in teacher.parameters() if not weight.requires_grad}
    trained = [{weight.data_ptr() for weight in model.parameters() if weight.requires_grad} for model in (student, teacher)]
    assert trained[0].isdisjoint(trained[1])
    student.double()  # moved once, for both
    assert all(weight.dtype == torch.float64 for weight in student.parameters())


def test_other_numbers_are_not_shared(tiny_backbone):
    student, teacher = (add_lora(load_backbone(str(tiny_backbone), 2), 4, 4, 0.0, ["up_proj"]) for _ in range(2))
    with torch.no_grad():
        plain_backbone(teacher).layers[1].mlp.gate_proj.weight[0, 0] += 1
    share_frozen(student, teacher)
    ours, theirs = (plain_backbone(model).layers[1].mlp.gate_proj.weight for model in (student, teacher))
    assert ours is not theirs and not torch.equal(ours, theirs)
