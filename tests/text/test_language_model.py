"""Texts through a checkpoint: a tiny one of each kind, pooled by hand."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from slmrec.errors import InputError
from slmrec.text.language_model import embed_texts, encoder_input, mean_of_tokens, read_pooling

WORDS = ["[PAD]", "</s>", "red", "nail", "polish", "drum", "sticks"]
TEXTS = ["red nail polish", "drum", "drum sticks red nail", "nail"]
SIZES = {"vocab_size": 7, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2}
MEAN, FIRST = {"pooling_mode_mean_tokens": True}, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}


@pytest.fixture(scope="module", params=["bert", "llama"])
def checkpoint(request, tmp_path_factory):
    """A directory with random weights; the decoder's tokenizer has no padding token."""
    directory = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    kinds = {"bert": (BertConfig, BertModel), "llama": (LlamaConfig, LlamaModel)}
    config, model = kinds[request.param]
    model(config(**SIZES)).save_pretrained(directory)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    padding = {"pad_token": "[PAD]"} if request.param == "bert" else {}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", **padding).save_pretrained(directory)
    return directory


def states_one_by_one(checkpoint, layer, start=False):
    """Each text by itself, without padding: [T, d] each; with `start`, after a decoder's start token, which is left out."""
    first = ["</s>"] * (start and "llama" in checkpoint.name)
    model = (BertModel if "bert" in checkpoint.name else LlamaModel).from_pretrained(checkpoint).eval()
    with torch.no_grad():
        rows = [torch.tensor([[WORDS.index(word) for word in [*first, *text.split()]]]) for text in TEXTS]
        return [model(row, output_hidden_states=True).hidden_states[layer][0, len(first) :] for row in rows]


@pytest.mark.parametrize("layer, index", [(None, 3), (2, 2)])
def test_the_mean_of_a_layers_states_whatever_shares_the_batch(checkpoint, layer, index):
    expected = torch.stack([states.mean(0) for states in states_one_by_one(checkpoint, index, start=True)]).numpy()
    for batch_size in (1, 3):
        vectors = embed_texts(TEXTS, str(checkpoint), layer, 16, batch_size, "cpu")
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_a_start_token_that_the_tokenizer_puts_first_is_not_put_twice(checkpoint, tmp_path):
    """A decoder's vectors are the same whether its tokenizer puts it there."""
    if "bert" in checkpoint.name:
        pytest.skip("an encoder has none")
    putting = shutil.copytree(checkpoint, tmp_path / "putting")
    tokenizer = Tokenizer.from_file(str(putting / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 1)])
    tokenizer.save(str(putting / "tokenizer.json"))
    there, put = (embed_texts(TEXTS, str(directory), None, 16, 4, "cpu") for directory in (putting, checkpoint))
    np.testing.assert_allclose(there, put, atol=1e-6)


def test_long_texts_are_cut(checkpoint):
    vectors = embed_texts(["red nail polish", "red nail"], str(checkpoint), None, 2, 2, "cpu")
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


def test_there_is_no_deeper_layer_than_the_last(checkpoint):
    with pytest.raises(InputError, match="--layer 4: .* has 3 layers"):
        embed_texts(TEXTS, str(checkpoint), 4, 16, 2, "cpu")


def with_modules(checkpoint, directory, kinds, pooling):
    """A copy of the checkpoint with sentence-transformers files."""
    for path in checkpoint.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    (directory / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]))
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 8} | pooling))
    return directory


@pytest.mark.parametrize("pooling", [MEAN, FIRST])
@pytest.mark.parametrize("normalize", [False, True])
def test_sentence_transformers_files_are_followed(checkpoint, tmp_path, pooling, normalize):
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * normalize
    vectors = embed_texts(TEXTS, str(with_modules(checkpoint, tmp_path, kinds, pooling)), None, 16, 4, "cpu")
    states = states_one_by_one(checkpoint, 3)
    expected = torch.stack([rows.mean(0) if pooling is MEAN else rows[0] for rows in states]).numpy()
    if normalize:
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize(
    "kinds, pooling, message",
    [
        (["Transformer", "Pooling", "Dense"], MEAN, "has a Dense module"),
        (["Transformer", "Pooling"], {"pooling_mode_max_tokens": True}, "asks for pooling_mode_max_tokens"),
    ],
)
def test_files_that_are_not_understood_are_refused(checkpoint, tmp_path, kinds, pooling, message):
    with pytest.raises(InputError, match=message):
        embed_texts(TEXTS, str(with_modules(checkpoint, tmp_path, kinds, pooling)), None, 16, 4, "cpu")


@pytest.mark.parametrize("modules", [[1], [{}], [{"type": None}], ["Transformer"]])
def test_a_damaged_list_of_modules(checkpoint, tmp_path, modules):
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match="its modules.json is no list of modules"):
        read_pooling(tmp_path)


def test_weights_that_are_missing_are_not_drawn(checkpoint, tmp_path):
    lacking = shutil.copytree(checkpoint, tmp_path / "lacking")
    weights = load_file(lacking / "model.safetensors")
    lost = next(name for name in weights if "layer" in name)
    save_file({name: tensor for name, tensor in weights.items() if name != lost}, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=f"its weights lack {lost} .1 such tensors."):
        embed_texts(TEXTS, str(lacking), None, 16, 2, "cpu")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "vocab.txt", "merges.txt"])
def test_whatever_shapes_a_vector_is_in_the_digest(checkpoint, tmp_path, name):
    changed = shutil.copytree(checkpoint, tmp_path / "changed")
    (changed / name).touch()
    before = encoder_input(str(changed))["digest"]
    (changed / name).write_bytes((changed / name).read_bytes() + b" ")
    assert encoder_input(str(changed))["digest"] != before


def test_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match="no checkpoint there"):
        encoder_input(str(tmp_path / "nothing"))


def test_the_mean_by_hand():
    states = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]]])
    assert mean_of_tokens(states, torch.tensor([[1, 1, 0]])).tolist() == [[2.0, 4.0]]
