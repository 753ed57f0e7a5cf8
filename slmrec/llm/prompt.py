"""The prompt around the item vectors (paper, Section 3; wording of the released code's Alpaca template)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerBase

INSTRUCTION = "Given the user's purchase history, predict next possible item to be purchased."
BEFORE_ITEMS = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    f"### Instruction:\n{INSTRUCTION}\n\n### Input:\n"
)
AFTER_ITEMS = "\n### Response:\n"


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after the items; 62 and 7 of them with LLaMA's tokenizer."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def load_tokenizer(base_model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint directory or hub name.

    Meta's own distribution holds a bare SentencePiece file. AutoTokenizer reads one without LLaMA's leading-space rule when no
    tokenizer_config.json names the class, which changes the prompt's tokens, so that case names the class here.
    """
    directory = Path(base_model)
    if (directory / "tokenizer.model").is_file() and not (directory / "tokenizer_config.json").is_file():
        return LlamaTokenizer.from_pretrained(base_model)
    return AutoTokenizer.from_pretrained(base_model)


def tokenize_prompt(tokenizer: PreTrainedTokenizerBase, targets: str) -> Prompt:
    """The prompt's token ids, without special tokens, as in the released code.

    With targets="all" the user vectors are read at the items themselves, so nothing follows the items.
    """
    before = tokenizer(BEFORE_ITEMS, add_special_tokens=False)["input_ids"]
    after = tokenizer(AFTER_ITEMS, add_special_tokens=False)["input_ids"] if targets == "last" else []
    return Prompt(tuple(before), tuple(after))
