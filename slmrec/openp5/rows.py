"""Training rows: a prompt with the user's items so far, and the answer, which is the next one.

Every item of a training part but its first is an answer once (every prefix). Shapes: B rows, T tokens of theirs in all, A tokens
of their answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch

from slmrec.data.dataset import SequenceDataset
from slmrec.openp5.item_index import ItemIndex
from slmrec.openp5.prompting import Prompter
from slmrec.openp5.templates import SEEN
from slmrec.ragged import indices, row_numbers


class PrefixRows(torch.utils.data.Dataset):
    """The rows of one epoch. An element is a row number; `collate` turns row numbers into a batch.

    Which prefixes an epoch has, their tasks and their templates are a pure function of (seed, epoch), so a run that is resumed
    sees what an uninterrupted one does.

    A batch holds:
        tokens: int64 [T], the rows back to back, each a prompt and its answer but for the answer's last token.
        lengths: int64 [B].
        read: int64 [A], the places among T after which a token of an answer comes.
        targets: int64 [A], that token, as a place in the alphabet.

    Args:
        max_length: latest items of a history that a prompt has.
        tasks: each prefix is asked for once, by one of them.
        share: of all prefixes that an epoch has.

    Attributes:
        left_out: users whose training part is one item, which has no history.
    """

    def __init__(
        self,
        dataset: SequenceDataset,
        index: ItemIndex,
        prompter: Prompter,
        *,
        max_length: int,
        tasks: Sequence[str],
        share: float,
        seed: int,
    ):
        self.dataset, self.prompter, self.responses = dataset, prompter, index.responses
        self.max_length, self.tasks, self.seed = max_length, tuple(tasks), seed
        begin, end = dataset.offsets[:-1], dataset.target_positions("train")
        number = np.maximum(end - begin, 0)  # of answers
        self.users = row_numbers(number)  # [P] of each prefix
        self.ends = indices(begin + 1, number)  # [P] of each answer in dataset.items
        self.left_out = int((number == 0).sum())
        self.size = max(1, round(share * len(self.users))) if len(self.users) else 0
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Draw the prefixes of an epoch, from 0, and how each is asked for."""
        random = np.random.default_rng([self.seed, epoch])
        self.chosen = random.permutation(len(self.users))[: self.size]
        self.task = random.integers(len(self.tasks), size=self.size)
        self.template = random.integers(len(SEEN["sequential"]), size=self.size)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: int) -> int:
        return row

    def num_targets(self, rows: np.ndarray) -> int:
        """How many tokens the answers of these rows have."""
        return sum(len(self.row(row)[1]) for row in rows)

    def row(self, row: int) -> tuple[list[int], list[int]]:
        """Token numbers of a row's prompt, and places in the alphabet of its answer."""
        user, end = self.users[self.chosen[row]], self.ends[self.chosen[row]]
        start = max(self.dataset.offsets[user], end - self.max_length)
        history = self.dataset.items[start:end].tolist()
        prompt = self.prompter.prompt(self.tasks[self.task[row]], int(self.template[row]), history, int(user))
        return prompt, self.responses[self.dataset.items[end]]

    def collate(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        prompts, answers = zip(*(self.row(row) for row in rows))
        spoken = [[self.prompter.num_tokens + place for place in answer[:-1]] for answer in answers]
        lengths = np.asarray([len(prompt) + len(said) for prompt, said in zip(prompts, spoken)])
        steps = np.asarray([len(answer) for answer in answers])
        arrays = {
            "tokens": np.asarray([token for both in zip(prompts, spoken) for part in both for token in part]),
            "lengths": lengths,
            "read": indices(lengths.cumsum() - steps, steps),
            "targets": np.asarray(list(chain.from_iterable(answers))),
        }
        return {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}
