"""An E-LLMRec that only answers: its weights are final, so what does not depend on the history is computed once.

The prompt's keys and values in each layer are kept from the start. Histories of one length stand at the same positions, so
several of them share a row of about WIDTH slots whose mask is the same for all rows, and nothing is laid out user by user. One
history costs its own tokens alone. On a GPU, which many small products keep waiting, the packed encoding of
`slmrec.llm.encoding` stays in use; the results are equal.

Shapes: n histories of one length, Q tokens of a row (its items and S closing tokens), R rows of m histories, W = m Q slots,
P prompt tokens, d1 hidden size, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from slmrec.llm.backbone import plain_backbone
from slmrec.llm.encoding import (
    EXACT_MODEL_TYPES,
    PromptedRows,
    SharedPrompt,
    attention_window,
    heads_of,
    keys_values,
    ropes,
    rotate,
)
from slmrec.recommender import Recommender

if TYPE_CHECKING:
    from slmrec.llm.ellmrec import EllmRecommender

WIDTH = (
    48  # slots of a row: less attention to other histories than in wider ones, fewer copies of the prompt than in narrower ones
)
TOKENS = 2048  # that go through the decoder at once, so that their states stay in the processor's cache


class Answering(Recommender):
    """The same user vectors as `model.encode`, on a CPU, for a model in eval mode that is not trained any more.

    Args:
        model: one for which `can_answer` is true.
    """

    many = 8192  # among which there are many of each length

    def __init__(self, model: EllmRecommender):
        super().__init__()
        self.model, self.max_length = model.eval(), model.max_length
        self.decoder = plain_backbone(model.backbone)
        with torch.no_grad():
            for number, part in enumerate(self._prompt()):
                self.register_buffer(f"prompt_{number}", part, persistent=False)

    def item_matrix(self) -> torch.Tensor:
        return self.model.item_matrix()

    @torch.no_grad()
    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        lengths = batch["lengths"].numpy()
        rows = self._rows(lengths)
        users = torch.empty(len(lengths), self.item_matrix().shape[1])
        ends = np.cumsum(lengths)
        for length, some in of_one_length(lengths, len(rows.after)):
            places = torch.from_numpy(ends[some][:, None] - length + np.arange(length))  # [n, L]
            states = self._last_states(rows, self.model.item_vectors(batch["history"][places]))
            users[torch.from_numpy(some)] = self.model.user_projection(states.float())
        return users

    def _rows(self, lengths: np.ndarray) -> PromptedRows:
        """What is the same for all histories; their items follow a group at a time."""
        nothing = self.model.item_vectors(torch.zeros(0, dtype=torch.int64))
        embed = self.decoder.get_input_embeddings()
        before, after = embed(self.model.before).to(nothing.dtype), embed(self.model.after).to(nothing.dtype)
        return PromptedRows(nothing, lengths, before, after, self.max_length, "last")

    def _prompt(self) -> Iterator[torch.Tensor]:
        """Keys, then values, [1, H, P, d1 / H] of each layer."""
        rows = self._rows(np.zeros(0, dtype=np.int64))
        hidden = rows.before.unsqueeze(0)  # [1, P, d1]
        (rope,) = ropes(self.decoder, rows, torch.arange(hidden.shape[1]).unsqueeze(0))
        for layer in self.decoder.layers:
            shared = SharedPrompt()
            hidden = layer(hidden, position_embeddings=rope, past_key_values=shared, attention_mask=None)
            assert shared.prompt is not None
            yield from shared.prompt

    def _kept(self, layer: int) -> SharedPrompt:
        """The prompt of a layer, from 0."""
        return SharedPrompt((self.get_buffer(f"prompt_{2 * layer}"), self.get_buffer(f"prompt_{2 * layer + 1}")))

    def _last_states(self, rows: PromptedRows, items: torch.Tensor) -> torch.Tensor:
        """What the last token of each history is after the final norm, [n, d1], for item vectors [n, L, d1]."""
        number, length = items.shape[:2]
        tokens = length + len(rows.after)
        inside = min(max(WIDTH // tokens, 1), number)  # m
        filled = torch.cat([items, items[:1].expand(-number % inside, -1, -1)])
        hidden = torch.cat([filled, rows.after.expand(len(filled), -1, -1)], dim=1).reshape(-1, inside * tokens, items.shape[2])
        first = len(rows.before) + rows.max_length
        positions = torch.arange(first - length, first + len(rows.after)).repeat(inside).unsqueeze(0)  # [1, W]
        (rope,) = ropes(self.decoder, rows, positions)
        mask = self._mask(inside, tokens, hidden.dtype)
        *others, last = self.decoder.layers
        for place, layer in enumerate(others):
            hidden = layer(hidden, position_embeddings=rope, past_key_values=self._kept(place), attention_mask=mask)
        read = slice(tokens - 1, None, tokens)  # the last token of each history
        attention, asked = last.self_attn, hidden[:, read]  # [R, m, d1]
        keys, values = keys_values(last, hidden, rope, self._kept(len(others)))
        queries = heads_of(attention.q_proj(last.input_layernorm(asked)), attention.head_dim)
        queries = rotate(queries, (rope[0][:, read], rope[1][:, read]))
        attended = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=mask[:, :, read],
            scale=attention.scaling,
            enable_gqa=keys.shape[1] != queries.shape[1],
        )
        states = asked + attention.o_proj(attended.transpose(1, 2).flatten(2))
        states = states + last.mlp(last.post_attention_layernorm(states))
        return self.decoder.norm(states).flatten(0, 1)[:number]

    def _mask(self, inside: int, tokens: int, dtype: torch.dtype) -> torch.Tensor:
        """[1, 1, W, P + W], 0 at the prompt and at earlier tokens of the same history, the lowest number elsewhere."""
        own = torch.block_diag(*[torch.ones(tokens, tokens, dtype=torch.bool).tril()] * inside)
        seen = torch.cat([own.new_ones(len(own), len(self.model.before)), own], dim=1)
        return torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)[None, None]


def of_one_length(lengths: np.ndarray, closing: int) -> Iterator[tuple[int, np.ndarray]]:
    """A length and the numbers of some histories that have it, at most TOKENS tokens of them with the closing ones."""
    order = np.argsort(lengths, kind="stable")
    for length in np.unique(lengths):
        group = order[slice(*np.searchsorted(lengths[order], [length, length + 1]))]
        most = max(TOKENS // (length + closing), 1)
        yield from ((int(length), group[start : start + most]) for start in range(0, len(group), most))


def can_answer(model: EllmRecommender) -> bool:
    """Whether `Answering` knows the model: a decoder like LLaMA's that looks at whole rows, encoded exactly, on a CPU."""
    config = plain_backbone(model.backbone).config
    if config.model_type not in EXACT_MODEL_TYPES or model.encoding != "exact" or model.before.device.type != "cpu":
        return False
    length = len(model.before) + model.max_length + len(model.after)
    return not any(attention_window(config, layer, length) for layer in range(1, config.num_hidden_layers + 1))
