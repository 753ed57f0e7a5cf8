"""The exact log-likelihood of every item's answer, with everything that prompts and answers share computed once.

A prompt goes through the model once; its keys and values serve all answers. The answers are a tree: each inner node, a beginning
that some answers share, goes through once too, attending to the prompt and to the nodes above it, at the position that it has in
its answers. What comes out there says how likely each token is to come next, and an item's score is the sum over its way down. So
12,101 items of five digits cost 1,310 tokens a user instead of 12,101 times the prompt and an answer.

Shapes: B prompts, P tokens of the longest, T nodes at once, K tokens of the alphabet, I inner nodes, N items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

from slmrec.openp5.trie import Trie

if TYPE_CHECKING:
    from slmrec.openp5.model import OpenP5Recommender

NODES_AT_ONCE = 128  # of a user: more of them waste attention on each other
TOKENS_AT_ONCE = 2**12  # of all users together


def catalogue_log_likelihoods(model: OpenP5Recommender, prompts: Sequence[Sequence[int]], trie: Trie) -> torch.Tensor:
    """log p(answer | prompt) of all items that a tree holds, float32 [B, N + 1]; 0 for PAD.

    Args:
        prompts: token numbers; those of like length are best given side by side.
    """
    pieces = trie.pieces(NODES_AT_ONCE)
    longest = max(NODES_AT_ONCE, *map(len, prompts))
    rows = max(1, TOKENS_AT_ONCE // longest)
    found = [trie.total(_steps(model, prompts[start : start + rows], trie, pieces)) for start in range(0, len(prompts), rows)]
    return torch.cat(found)


def _steps(model: OpenP5Recommender, prompts: Sequence[Sequence[int]], trie: Trie, pieces: list) -> torch.Tensor:
    """How likely each token is to come next at every inner node, as logarithms, float32 [B, I, K]."""
    tokens, lengths = _padded(prompts, model.id_vectors.device)  # [B, P]
    cache = DynamicCache()
    states = model.states(tokens, past_key_values=cache, use_cache=True)  # what pads the right end is seen by no real token
    last = states[torch.arange(len(prompts), device=lengths.device), lengths - 1]
    steps = [model.log_probabilities(last).unsqueeze(1)]
    real = torch.arange(tokens.shape[1], device=lengths.device) < lengths.unsqueeze(1)  # [B, P]
    for piece in pieces:
        nodes, sees = piece.nodes.to(lengths.device), piece.sees.to(lengths.device)
        shape = len(prompts), len(nodes), -1
        mask = torch.cat([real.unsqueeze(1).expand(shape), sees.expand(shape)], dim=2)  # [B, T, P + T]
        states = model.states(
            (trie.token.to(lengths.device)[nodes] + model.num_tokens).expand(len(prompts), -1),
            attention_mask=mask.unsqueeze(1),
            position_ids=lengths.unsqueeze(1) + trie.depth.to(lengths.device)[nodes] - 1,
            past_key_values=cache,
            use_cache=True,
        )
        cache.crop(-len(nodes))
        new = states[:, piece.repeated :]
        steps.append(model.log_probabilities(new.flatten(0, 1)).unflatten(0, new.shape[:2]))
    return torch.cat(steps, dim=1)


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of tokens as int64 [B, P] with zeros on the right, and their lengths int64 [B]."""
    lengths = torch.tensor([len(row) for row in rows], device=device)
    table = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    return table.to(device), lengths
