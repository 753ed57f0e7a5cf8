import shutil

import pytest
from transformers import LlamaConfig

from slmrec.llm.prompt import AFTER_ITEMS, BEFORE_ITEMS, Prompt, load_tokenizer, tokenize_prompt


class Characters:
    """A tokenizer that gives every character its code."""

    name_or_path = "characters"

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [ord(letter) for letter in text]}


def test_prompt_stands_before_and_after_the_items():
    prompt = tokenize_prompt(Characters(), "last")
    assert "".join(map(chr, prompt.before)) == BEFORE_ITEMS and "".join(map(chr, prompt.after)) == AFTER_ITEMS


def test_nothing_follows_the_items_when_every_item_is_read():
    prompt = tokenize_prompt(Characters(), "all")
    assert prompt == Prompt(tokenize_prompt(Characters(), "last").before, ())


def test_wording_is_the_released_template():
    assert BEFORE_ITEMS == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nGiven the user's purchase history, predict next possible item to be purchased.\n\n### Input:\n"
    )
    assert AFTER_ITEMS == "\n### Response:\n"


def test_checkpoints_of_this_project_give_62_and_7_tokens(tiny_backbone):
    tokenizer = load_tokenizer(str(tiny_backbone))
    prompt = tokenize_prompt(tokenizer, "last")
    assert (len(prompt.before), len(prompt.after)) == (62, 7)
    assert tokenizer.unk_token_id not in prompt.before + prompt.after


@pytest.mark.parametrize("configured", [False, True])
def test_llama_tokenizer_gives_62_and_7_tokens(shared_data, tmp_path, configured):
    """Also where the directory holds the SentencePiece file and the configuration only, as Meta distributes it."""
    shutil.copy(shared_data / "llama_tokenizer" / "tokenizer.model", tmp_path)
    LlamaConfig().save_pretrained(tmp_path)
    if configured:
        load_tokenizer(str(tmp_path)).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    prompt = tokenize_prompt(tokenizer, "last")
    assert (len(prompt.before), len(prompt.after)) == (62, 7)
    assert prompt.before[:3] == (13866, 338, 385)  # LLaMA's "_Below", "_is", "_an"
    assert tokenizer.decode(prompt.before) == BEFORE_ITEMS
