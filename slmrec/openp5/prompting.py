"""Prompts as token numbers: the words by the base model's tokenizer, items and users in the alphabet behind its vocabulary.

Words and ids are never tokenised together, so that an id is the same tokens wherever it stands.
"""

from __future__ import annotations

from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from slmrec.errors import InputError
from slmrec.llm.prompt import require_vectors
from slmrec.openp5.item_index import ItemIndex
from slmrec.openp5.templates import HISTORY, SEEN, SEPARATOR, UNSEEN, USER, parts

FIRST_USER = 1001  # users are numbered as items are


class Prompter:
    """Writes prompts.

    Args:
        tokenizer: of the base model.
        index: of the items.
        num_tokens: V, vectors that the base model has for tokens; place p of the alphabet is token V + p.
        num_users: that a prompt names, those of the training data; 0 names nobody.

    Raises InputError when the tokenizer has or gives tokens that the model has no vectors for.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, index: ItemIndex, num_tokens: int, num_users: int):
        require_vectors(tokenizer, num_tokens)
        self.num_tokens, self.num_users = num_tokens, num_users
        self.items = [[num_tokens + place for place in code] for code in index.coded]
        self.digits = [num_tokens + index.places[digit] for digit in "0123456789"]
        self.separator = self._words(tokenizer, SEPARATOR)
        self.start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self.anybody, self.somebody = self._words(tokenizer, " the user"), self._words(tokenizer, " user")
        self.templates = {
            task: [self._tokenised(tokenizer, template) for template in (*SEEN[task], UNSEEN[task])] for task in SEEN
        }

    def _tokenised(self, tokenizer: PreTrainedTokenizerBase, template: str) -> list[str | list[int]]:
        """A template as placeholders and token numbers, in turn."""
        return [part if part in (HISTORY, USER) else self._words(tokenizer, part) for part in parts(template)]

    def _words(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        if tokens and max(tokens) >= self.num_tokens:
            raise InputError(
                f"--base_model {tokenizer.name_or_path}: its tokenizer does not belong to it: a prompt has token {max(tokens)}, "
                f"the model {self.num_tokens} token vectors"
            )
        return tokens

    def prompt(self, task: str, template: int, history: Iterable[int], user: int) -> list[int]:
        """Token numbers of a prompt.

        Args:
            task: "sequential" or "straightforward".
            template: 0 ... 9 of SEEN, -1 for the UNSEEN one.
            history: items 1..N, oldest first.
            user: number from 0, or -1 for one whom the training data do not have.
        """
        tokens = list(self.start)
        for part in self.templates[task][template]:
            if part == HISTORY:
                tokens += self._listed(history)
            elif part == USER:
                tokens += self._named(user)
            else:
                tokens += part
        return tokens

    def longest(self, max_length: int) -> int:
        """Tokens of the longest prompt that can be, with an item's id after it."""
        item = max(range(len(self.items)), key=lambda number: len(self.items[number]))
        templates = [(task, number) for task, texts in self.templates.items() for number in range(len(texts))]
        prompts = [self.prompt(*template, [item] * max_length, self.num_users - 1) for template in templates]
        return max(map(len, prompts)) + len(self.items[item])

    def _listed(self, history: Iterable[int]) -> list[int]:
        tokens: list[int] = []
        for item in history:
            tokens += [*(self.separator if tokens else []), *self.items[item]]
        return tokens

    def _named(self, user: int) -> list[int]:
        if not 0 <= user < self.num_users:
            return self.anybody
        return [*self.somebody, *(self.digits[int(digit)] for digit in str(FIRST_USER + user))]
