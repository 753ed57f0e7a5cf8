"""From item vectors to decoder states: the plain definition, and the same result for a fraction of the work.

Every row of the published implementation is P prompt tokens, `max_length` item slots (left-padded, padding masked) and S
closing tokens, at positions 0 .. P + max_length + S - 1. `reference_states` computes exactly that; `exact_states` returns the
same states:

* the prompt is the same for everybody and attends only to itself, so its keys and values are computed once per batch, or once
  and for all where the decoder's weights are final (`prompt_memory`);
* padding is never computed: rows carry their real items and the closing tokens, at the positions they have in the reference,
  and several rows share one packed row (`slmrec.packing`);
* in the last layer only the tokens that are read go beyond keys and values.

Gradients flow through the shared prompt. Dropout inside the prompt (LoRA's) is then drawn once per batch, not once per row.

Shapes: B rows, T items in all, P and S prompt tokens before and after, d hidden size, R packed rows of W slots, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.llama.modeling_llama import rotate_half

from slmrec.errors import InputError
from slmrec.packing import Packing, fitting_width, pack_rows
from slmrec.ragged import places, row_starts, spread

EXACT_MODEL_TYPES = ("llama", "mistral", "qwen2")  # decoders whose layers have LLaMA's structure
PACKED_WIDTH = 96  # slots: 95% full with rows of 7 to 37 tokens, and narrow enough that masked attention costs little
ATTENTION = "attention"  # may be asked for beside the layers: the last layer's attention weights
States = dict[int | str, torch.Tensor]
DecoderLayer = Any  # each model family has a class of its own, with the same parts by the same names


@dataclass
class PromptedRows:
    """One batch as the decoder sees it.

    Attributes:
        items: float [T, d], the item vectors of all rows back to back, oldest first.
        lengths: int64 [B] on the CPU, items per row.
        before, after: float [P, d] and [S, d], the prompt's token vectors.
        max_length: item slots per row in the reference.
        read: "last" (the last token of each row) or "all" (every item; only without closing tokens).
    """

    items: torch.Tensor
    lengths: np.ndarray
    before: torch.Tensor
    after: torch.Tensor
    max_length: int
    read: str

    @property
    def length(self) -> int:
        """Tokens of a row in the reference."""
        return len(self.before) + self.max_length + len(self.after)

    def __post_init__(self):
        if self.read == "all" and len(self.after):
            raise ValueError("states are read at every item only when nothing follows the items")
        if len(self.lengths) and self.lengths.max() > self.max_length:
            raise ValueError(f"a history of {self.lengths.max()} items does not fit into {self.max_length} slots")
        if not len(self.after) and len(self.lengths) and self.lengths.min() == 0:
            raise ValueError("a row without items has no token to be read when nothing follows the items")


def reference_states(decoder: PreTrainedModel, rows: PromptedRows, layers: set[int]) -> States:
    """The definition: every row padded to P + max_length + S tokens, one plain forward pass.

    Returns for each layer in `layers` (1-based) its output at the read tokens, float [B, d] or [T, d]; the output of the last
    layer is taken after the final norm, as Hugging Face reports it.
    """
    if ATTENTION in layers:
        raise InputError("attention weights are read with --encoding exact only")
    num_rows, device = len(rows.lengths), rows.items.device
    lengths = torch.from_numpy(rows.lengths).to(device)
    filled = torch.arange(rows.max_length, device=device) >= rows.max_length - lengths.unsqueeze(1)  # [B, max_length]
    slots = rows.items.new_zeros(num_rows, rows.max_length, rows.items.shape[1])
    slots = slots.masked_scatter(filled.unsqueeze(2), rows.items)
    before, after = (part.to(slots.dtype).expand(num_rows, -1, -1) for part in (rows.before, rows.after))
    inputs = torch.cat([before, slots, after], dim=1)  # [B, P + max_length + S, d]
    mask = torch.cat([filled.new_ones(before.shape[:2]), filled, filled.new_ones(after.shape[:2])], dim=1)
    positions = torch.arange(inputs.shape[1], device=device).expand(num_rows, -1)
    outputs = decoder(
        inputs_embeds=inputs, attention_mask=mask.long(), position_ids=positions, output_hidden_states=True, use_cache=False
    )
    if rows.read == "last":
        return {layer: outputs.hidden_states[layer][:, -1] for layer in layers}
    return {layer: outputs.hidden_states[layer][:, before.shape[1] :][filled] for layer in layers}


class SharedPrompt:
    """Stands where a decoder layer expects its key-value cache: keeps the prompt's keys and values for the rows that follow.

    Given a layer of `prompt_memory`, it has them from the start.
    """

    def __init__(self, memory: torch.Tensor | None = None):
        self.prompt: tuple[torch.Tensor, torch.Tensor] | None = None if memory is None else (memory[0], memory[1])

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_) -> tuple[torch.Tensor, torch.Tensor]:
        """First call [1, H, P, d/H]: kept. Second call [R, H, W, d/H]: returned behind the prompt's, [R, H, P + W, d/H]."""
        if self.prompt is None:
            self.prompt = keys, values
            return keys, values
        prompt_keys, prompt_values = (part.expand(keys.shape[0], -1, -1, -1) for part in self.prompt)
        return torch.cat([prompt_keys, keys], dim=2), torch.cat([prompt_values, values], dim=2)


@torch.no_grad()
def prompt_memory(decoder: PreTrainedModel, rows: PromptedRows) -> torch.Tensor:
    """The prompt's keys and values in each of L layers, [L, 2, 1, H, P, d/H]; of `rows` only what all rows share is read."""
    require_exact_support(decoder.config)
    prompt = rows.before.to(rows.items.dtype).unsqueeze(0)  # [1, P, d]
    positions = torch.arange(prompt.shape[1], device=prompt.device).unsqueeze(0)
    (rope,) = ropes(decoder, rows, positions)
    kept = []
    for number, layer in enumerate(decoder.layers, start=1):
        shared, inside = SharedPrompt(), prompt_mask(positions, attention_window(decoder.config, number, rows.length))
        prompt = layer(prompt, position_embeddings=rope, past_key_values=shared, attention_mask=inside)
        assert shared.prompt is not None
        kept.append(torch.stack(shared.prompt))
    return torch.stack(kept)


def exact_states(
    decoder: PreTrainedModel,
    rows: PromptedRows,
    layers: set[int | str],
    recompute: bool = False,
    memory: torch.Tensor | None = None,
) -> States:
    """The states of `reference_states`, computed without the shared prompt's and the padding's repetition.

    With `recompute`, what is inside a layer is not kept for the backward pass but computed once more there. With `memory`, from
    `prompt_memory`, the prompt is not computed at all.

    `layers` may hold `ATTENTION` as well, beside the last layer: float32 [n, H, P + W], each read token's attention weights in
    the last layer. What stands at a slot depends on the packing, which is the same for all models that read the same rows.
    """
    require_exact_support(decoder.config)
    packing, hidden, positions = _pack(rows)
    prompt = rows.before.to(hidden.dtype).unsqueeze(0)  # [1, P, d]
    prompt_positions = torch.arange(prompt.shape[1], device=hidden.device).unsqueeze(0)
    prompt_rope, rope = ropes(decoder, rows, prompt_positions, positions)
    masks = Masks(packing.causal_mask(), prompt_positions, positions)
    take = packing.take_last if rows.read == "last" else packing.unpack
    states: States = {}
    depth = len(decoder.layers)
    for number, layer in enumerate(decoder.layers, start=1):
        window = attention_window(decoder.config, number, rows.length)
        mask = masks.of_rows(window)
        if number == depth:
            break
        if memory is not None:
            shared = SharedPrompt(memory[number - 1])
            hidden = layer(hidden, position_embeddings=rope, past_key_values=shared, attention_mask=mask)
        else:
            arguments = layer, prompt, hidden, prompt_rope, rope, masks.of_prompt(window), mask
            prompt, hidden = checkpoint(_layer, *arguments, use_reentrant=False) if recompute else _layer(*arguments)
        if number in layers:
            states[number] = take(hidden)
    if depth in layers:
        shared = SharedPrompt(None if memory is None else memory[-1])
        if shared.prompt is None:
            _keep_prompt(layer, prompt, prompt_rope, shared)
        if ATTENTION in layers:
            states[ATTENTION] = take(_attention_weights(layer, hidden, rope, shared, mask).transpose(1, 2))
        if rows.read == "all":
            final = take(layer(hidden, position_embeddings=rope, past_key_values=shared, attention_mask=mask))
        else:
            final = _last_tokens(layer, hidden, rope, shared, mask, packing)
        states[depth] = decoder.norm(final)
    return states


def _layer(
    layer: DecoderLayer,
    prompt: torch.Tensor,
    hidden: torch.Tensor,
    prompt_rope,
    rope,
    inside: torch.Tensor | None,
    mask: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One decoder layer of the prompt [1, P, d] and, after it, of the packed rows [R, W, d], with their attention masks."""
    shared = SharedPrompt()
    prompt = layer(prompt, position_embeddings=prompt_rope, past_key_values=shared, attention_mask=inside)
    return prompt, layer(hidden, position_embeddings=rope, past_key_values=shared, attention_mask=mask)


def require_exact_support(config: PretrainedConfig) -> None:
    """Raise InputError for decoders that `exact_states` does not know."""
    if config.model_type not in EXACT_MODEL_TYPES:
        known = ", ".join(EXACT_MODEL_TYPES)
        raise InputError(f"--encoding exact knows {known}, not {config.model_type}: use --encoding reference")


def ropes(decoder: PreTrainedModel, rows: PromptedRows, *positions: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Cosines and sines, each [..., head_size], of position ids [...].

    They are taken from those of a whole row of the reference: some kinds of rotary embedding (longrope, dynamic) depend on the
    greatest position that they are asked for.
    """
    whole = torch.arange(rows.length, device=positions[0].device).unsqueeze(0)
    cos, sin = decoder.rotary_emb(rows.items, whole)
    return [(cos[0][some], sin[0][some]) for some in positions]


def attention_window(config: PretrainedConfig, layer: int, row_length: int) -> int | None:
    """How many of the latest positions a layer (1-based) attends to, where that is less than a whole row.

    As the models of transformers have it, whatever else a configuration says: a Mistral has the window in all layers, a Qwen2 in
    those of that type, a LLaMA in none.
    """
    window = getattr(config, "sliding_window", None)
    if window is None or window >= row_length or config.model_type not in ("mistral", "qwen2"):
        return None
    return window if config.model_type == "mistral" or config.layer_types[layer - 1] == "sliding_attention" else None


class Masks:
    """Attention masks, true where a token may look, of layers with and without a sliding window.

    A window counts positions, as in the reference, where padding takes up some too.
    """

    def __init__(self, own: torch.Tensor, prompt_positions: torch.Tensor, positions: torch.Tensor):
        """`own` is bool [R, W, W], the packing's causal mask; the position ids are [1, P] and [R, W]."""
        self.prompt_positions, self.positions = prompt_positions, positions
        self.own = torch.cat([own.new_ones(*own.shape[:2], prompt_positions.shape[1]), own], dim=2).unsqueeze(1)
        self.windowed: dict[int, torch.Tensor] = {}

    def of_prompt(self, window: int | None) -> torch.Tensor | None:
        """None (plainly causal), or bool [1, 1, P, P]."""
        return prompt_mask(self.prompt_positions, window)

    def of_rows(self, window: int | None) -> torch.Tensor:
        """bool [R, 1, W, P + W]: the prompt, and earlier slots of the same row."""
        if window is None:
            return self.own
        if window not in self.windowed:
            keys = torch.cat([self.prompt_positions.expand(len(self.positions), -1), self.positions], dim=1)
            self.windowed[window] = self.own & _within(self.positions, keys, window)
        return self.windowed[window]


def prompt_mask(positions: torch.Tensor, window: int | None) -> torch.Tensor | None:
    """What the prompt, at position ids [1, P], sees of itself: None (plainly causal), or with a window bool [1, 1, P, P]."""
    if window is None:
        return None
    return _within(positions, positions, window) & (positions.unsqueeze(2) >= positions.unsqueeze(1)).unsqueeze(1)


def _within(queries: torch.Tensor, keys: torch.Tensor, window: int) -> torch.Tensor:
    """bool [R, 1, Q, K] of position ids [R, Q] and [R, K]."""
    return (queries.unsqueeze(2) - keys.unsqueeze(1) < window).unsqueeze(1)


def _pack(rows: PromptedRows) -> tuple[Packing, torch.Tensor, torch.Tensor]:
    """Lay items and closing tokens of every row into packed rows; returns hidden [R, W, d] and position ids [R, W] as well."""
    lengths, closing = rows.lengths, len(rows.after)
    totals = lengths + closing
    packing = pack_rows(totals, fitting_width(totals, PACKED_WIDTH), rows.items.device)
    starts = row_starts(totals)  # [B] where a row begins among all tokens in row order
    from_start = places(lengths)  # [T]
    item_token = spread(starts, lengths) + from_start  # [T]
    closing_token = ((starts + lengths)[:, None] + np.arange(closing)).ravel()  # [B * S]
    order = torch.from_numpy(np.concatenate([item_token, closing_token])).to(packing.slot.device)
    vectors = torch.cat([rows.items, rows.after.to(rows.items.dtype).repeat(len(lengths), 1)])
    slots = packing.slot[order]
    first = len(rows.before) + rows.max_length
    closing_positions = np.tile(first + np.arange(closing), len(lengths))
    positions = np.concatenate([first - spread(lengths, lengths) + from_start, closing_positions])
    return packing, _scatter(vectors, slots, packing), _scatter(torch.from_numpy(positions).to(slots.device), slots, packing)


def _scatter(tokens: torch.Tensor, slots: torch.Tensor, packing: Packing) -> torch.Tensor:
    """Tokens [n, ...] put into their slots int64 [n] of a packed matrix [R, W, ...], zeros elsewhere."""
    packed = tokens.new_zeros(packing.segment.numel(), *tokens.shape[1:])
    return packed.index_copy(0, slots, tokens).unflatten(0, packing.segment.shape)


def heads_of(projected: torch.Tensor, head_size: int) -> torch.Tensor:
    """[R, W, H * head_size] -> [R, H, W, head_size]."""
    return projected.unflatten(-1, (-1, head_size)).transpose(1, 2)


def rotate(heads: torch.Tensor, rope: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rotary position embedding of [R, H, W, head_size] with cosines and sines [R, W, head_size]."""
    cos, sin = (part.unsqueeze(1) for part in rope)
    return heads * cos + rotate_half(heads) * sin


def keys_values(layer: DecoderLayer, hidden: torch.Tensor, rope, shared: SharedPrompt) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of a layer's input, through `shared`."""
    attention, normed = layer.self_attn, layer.input_layernorm(hidden)
    keys = rotate(heads_of(attention.k_proj(normed), attention.head_dim), rope)
    return shared.update(keys, heads_of(attention.v_proj(normed), attention.head_dim))


def _keep_prompt(layer: DecoderLayer, prompt: torch.Tensor, prompt_rope, shared: SharedPrompt) -> None:
    """In the last layer nobody reads the prompt's own output, only its keys and values."""
    keys_values(layer, prompt, prompt_rope, shared)


def _attention_weights(layer: DecoderLayer, hidden: torch.Tensor, rope, shared: SharedPrompt, mask: torch.Tensor) -> torch.Tensor:
    """The softmax inside a layer's attention, float32 [R, H, W, P + W]; the fused kernels that compute the states hide it."""
    attention = layer.self_attn
    keys, _ = keys_values(layer, hidden, rope, shared)
    queries = rotate(heads_of(attention.q_proj(layer.input_layernorm(hidden)), attention.head_dim), rope)
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
    logits = (queries @ keys.transpose(2, 3)).float() * attention.scaling
    return logits.masked_fill(~mask, float("-inf")).softmax(-1)


def _last_tokens(layer: DecoderLayer, hidden: torch.Tensor, rope, shared: SharedPrompt, mask: torch.Tensor, packing: Packing):
    """One decoder layer, computed for the last token of each row only: float [B, d]."""
    attention = layer.self_attn
    keys, values = keys_values(layer, hidden, rope, shared)
    residual = packing.take_last(hidden)  # [B, d]
    queries, place, query_slot = _query_layout(packing)
    asked = attention.q_proj(layer.input_layernorm(residual))  # [B, H * head_size]
    asked = asked.new_zeros(queries[0] * queries[1], asked.shape[1]).index_copy(0, place, asked).unflatten(0, queries)
    query_rope = tuple(part.gather(1, query_slot.unsqueeze(2).expand(-1, -1, part.shape[2])) for part in rope)
    query_mask = mask.gather(2, query_slot[:, None, :, None].expand(-1, -1, -1, mask.shape[3]))  # [R, 1, Q, P + W]
    attended = F.scaled_dot_product_attention(
        rotate(heads_of(asked, attention.head_dim), query_rope),
        keys,
        values,
        attn_mask=query_mask,
        dropout_p=attention.attention_dropout if layer.training else 0.0,
        scale=attention.scaling,
        enable_gqa=keys.shape[1] != asked.shape[-1] // attention.head_dim,
    )
    attended = attended.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, place)  # [B, H * head_size]
    after_attention = residual + attention.o_proj(attended)
    return after_attention + layer.mlp(layer.post_attention_layernorm(after_attention))


def _query_layout(packing: Packing) -> tuple[tuple[int, int], torch.Tensor, torch.Tensor]:
    """Arrange the B last tokens as Q queries per packed row.

    Returns the shape (R, Q), the place of each row's query in the flattened [R * Q], and the slot in its packed row that each
    query stands for, int64 [R, Q] (unused queries repeat slot 0; their results are never read).
    """
    num_packed, width = packing.segment.shape
    last = packing.last.cpu().numpy()
    packed_row = last // width
    order = np.argsort(packed_row, kind="stable")
    counts = np.bincount(packed_row, minlength=num_packed)
    rank = np.empty_like(last)
    rank[order] = places(counts)
    per_row = int(counts.max(initial=1))
    place = packed_row * per_row + rank
    slot = np.zeros(num_packed * per_row, dtype=np.int64)
    slot[place] = last % width
    device = packing.last.device
    shape = (num_packed, per_row)
    return shape, torch.from_numpy(place).to(device), torch.from_numpy(slot.reshape(shape)).to(device)
