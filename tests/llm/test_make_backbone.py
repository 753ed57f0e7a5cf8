import pytest
from safetensors.torch import load_file
from transformers import AutoConfig

from slmrec.artifacts import read_manifest
from slmrec.errors import InputError
from slmrec.llm import make_backbone
from slmrec.llm.backbone import written_by_this_project
from slmrec.llm.prompt import load_tokenizer, tokenize_prompt


def test_writes_a_hugging_face_checkpoint(tiny_backbone):
    config = AutoConfig.from_pretrained(tiny_backbone)
    assert (config.model_type, config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == ("llama", 32, 4, 4)
    assert config.intermediate_size == 86  # 32 * 11008 / 4096
    assert config.vocab_size == make_backbone.VOCABULARY
    assert read_manifest(tiny_backbone, "backbone")["config"]["hidden_size"] == 32


def test_the_seed_makes_the_weights(tiny_backbone, tmp_path):
    flags = ["--hidden_size", "32", "--num_layers", "4", "--num_heads", "4"]
    make_backbone.main([*flags, "--output_dir", str(tmp_path / "same")])
    make_backbone.main([*flags, "--output_dir", str(tmp_path / "other"), "--seed", "1"])
    places = (tiny_backbone, tmp_path / "same", tmp_path / "other")
    original, same, other = (load_file(place / "model.safetensors") for place in places)
    assert all(original[name].equal(same[name]) for name in original)
    assert not original["embed_tokens.weight"].equal(other["embed_tokens.weight"])


def test_up_to_date_on_the_second_start(tiny_backbone, capsys):
    make_backbone.main(["--hidden_size", "32", "--num_layers", "4", "--num_heads", "4", "--output_dir", str(tiny_backbone)])
    assert "up to date" in capsys.readouterr().out


def test_width_that_the_heads_cannot_share(tmp_path):
    with pytest.raises(InputError, match="--hidden_size 30: rotary heads need an even share for each of 4 heads"):
        make_backbone.main(["--hidden_size", "30", "--output_dir", str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())


def test_the_shape_of_another_model_with_random_weights(tiny_gguf, tmp_path):
    """Grouped queries, tied embeddings and tokenizer as there; no weight of it."""
    flags = ["--like", str(tiny_gguf[0]), "--models_dir", str(tmp_path / "models"), "--num_layers", "1"]
    make_backbone.main([*flags, "--output_dir", str(tmp_path / "like")])
    config, model = AutoConfig.from_pretrained(tmp_path / "like"), tiny_gguf[1].model
    assert (config.num_hidden_layers, config.num_key_value_heads, config.hidden_size) == (1, 2, 32)
    weights = load_file(tmp_path / "like" / "model.safetensors")
    assert weights.keys() == {name for name in model.state_dict() if not name.startswith("layers.1.")}
    assert float(weights["layers.0.mlp.up_proj.weight"].std()) == pytest.approx(0.02, rel=0.1)
    prompts = [
        tokenize_prompt(load_tokenizer(str(place)), "last") for place in (tmp_path / "like", *tmp_path.glob("models/tiny*8*/"))
    ]
    assert prompts[0] == prompts[1]
    manifest = read_manifest(tmp_path / "like", "backbone")
    assert set(manifest["inputs"]) == {"like"} and written_by_this_project(str(tmp_path / "like"))


def test_like_and_sizes_contradict_each_other(tmp_path):
    with pytest.raises(InputError, match="--like takes width and heads of its base model"):
        make_backbone.main(["--like", "x", "--hidden_size", "64", "--output_dir", str(tmp_path / "out")])
