"""The prompt around the item vectors (paper, Section 3; wording of the released code's Alpaca template)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerBase

from slmrec.checkpoint_directory import opening
from slmrec.errors import InputError

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

    Raises InputError when there is no tokenizer, or a damaged one.
    """
    directory = Path(base_model)
    bare = (directory / "tokenizer.model").is_file() and not (directory / "tokenizer_config.json").is_file()
    kind = LlamaTokenizer if bare else AutoTokenizer
    with opening(base_model, "--base_model", "no tokenizer that can be read"):
        return kind.from_pretrained(base_model, trust_remote_code=False)


def require_vectors(tokenizer: PreTrainedTokenizerBase, num_tokens: int) -> None:
    """Raises InputError when a tokenizer's vocabulary, but for what was added to it, is larger than the table of vectors."""
    if tokenizer.vocab_size > num_tokens:
        raise InputError(
            f"--base_model {tokenizer.name_or_path}: its tokenizer does not belong to it: it has {tokenizer.vocab_size} tokens, "
            f"the model {num_tokens} token vectors"
        )


def tokenize_prompt(tokenizer: PreTrainedTokenizerBase, targets: str, num_tokens: int | None = None) -> Prompt:
    """The prompt's token ids, without special tokens, as in the released code.

    With targets="all" the user vectors are read at the items themselves, so nothing follows the items. `num_tokens` is the
    number of token vectors that the decoder has. Raises InputError when the prompt needs one beyond, or the tokenizer has more.
    """
    if num_tokens is not None:
        require_vectors(tokenizer, num_tokens)
    with opening(tokenizer.name_or_path, "--base_model", "its tokenizer cannot be used"):
        before = tokenizer(BEFORE_ITEMS, add_special_tokens=False)["input_ids"]
        after = tokenizer(AFTER_ITEMS, add_special_tokens=False)["input_ids"] if targets == "last" else []
    greatest = max([*before, *after])
    if num_tokens is not None and greatest >= num_tokens:
        raise InputError(
            f"--base_model {tokenizer.name_or_path}: its tokenizer does not belong to it: the prompt has token {greatest}, "
            f"the model {num_tokens} token vectors"
        )
    return Prompt(tuple(before), tuple(after))
