"""A tiny Open-P5 in memory, on a random causal language model with a head of its own or with the token vectors."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from slmrec.data.dataset import SequenceDataset
from slmrec.llm.backbone import add_lora
from slmrec.openp5.item_index import build_index
from slmrec.openp5.model import OpenP5Recommender
from slmrec.openp5.prompting import Prompter
from slmrec.runtime import seed_everything

WORDS = 40


class Letters:
    """A tokenizer of single letters."""

    name_or_path, bos_token_id, vocab_size = "letters", 1, WORDS

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [2 + ord(letter) % (WORDS - 2) for letter in text]}


@pytest.fixture
def letters():
    return Letters()


@pytest.fixture
def small_data():
    """30 users of 4 to 12 actions on 25 items, two thirds of whom go around in a circle."""
    random = np.random.default_rng(0)
    lengths = random.integers(4, 13, 30)
    items = np.concatenate([(random.integers(25) + np.arange(n) * (1 if n % 3 else 7)) % 25 + 1 for n in lengths])
    return SequenceDataset(items.astype(np.int32), np.concatenate([[0], lengths.cumsum()]), 25)


@pytest.fixture
def make_openp5(letters):
    """make_openp5(dataset, indexing="sequential", softmax="vocabulary", tied=True, lora=False, ...): a random one of width 32."""

    def make(dataset, indexing="sequential", softmax="vocabulary", tied=True, lora=False, user_ids=False, layers=2, **sizes):
        seed_everything(0)
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2} | sizes
        config = LlamaConfig(
            vocab_size=WORDS, num_hidden_layers=layers, tie_word_embeddings=tied, initializer_range=0.2, bos_token_id=1, **sizes
        )
        backbone = LlamaForCausalLM(config)
        if lora:
            backbone = add_lora(backbone, 4, 8, 0.0, ["q_proj", "v_proj"])
            for name, parameter in backbone.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.2)
        index = build_index(dataset, indexing, 0, 3, 4)
        prompter = Prompter(letters, index, WORDS, dataset.num_users if user_ids else 0)
        return OpenP5Recommender(backbone, index, prompter, max_length=10, softmax=softmax).eval()

    return make
