"""How much there is to compute: tokens and floating-point operations of the two encodings, counted from their shapes.

Counted are the matrix products of the decoder layers (q, k, v, o, gate, up, down, LoRA), the two products of attention and, in
training, those of the catalogue softmax; 2 FLOPs per multiplication and addition. Norms, activations and the optimiser are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slmrec.llm.encoding import PACKED_WIDTH
from slmrec.packing import fitting_width, pack_rows


@dataclass(frozen=True)
class LayerShape:
    """A decoder layer: d = hidden, f = intermediate; `lora_r` on gate, up and down (0 without).

    `key_share` is the number of key heads over that of query heads: 1, or less with grouped queries.
    """

    hidden: int
    intermediate: int
    lora_r: int = 0
    key_share: float = 1.0

    @property
    def key_value(self) -> float:
        """FLOPs per token of the k and v projections."""
        return 2 * 2 * self.hidden**2 * self.key_share

    @property
    def others(self) -> int:
        """FLOPs per token of the q, o, gate, up and down projections."""
        return 2 * (2 * self.hidden**2 + 3 * self.hidden * self.intermediate)

    @property
    def lora(self) -> int:
        """FLOPs per token of the adapters."""
        return 2 * 3 * self.lora_r * (self.hidden + self.intermediate)


@dataclass(frozen=True)
class Work:
    """FLOPs of a forward pass, by what a training step multiplies them with.

    Attributes:
        linear: projections of the backbone.
        lora: adapters.
        attention: queries times keys, weights times values.
    """

    linear: float
    lora: float
    attention: float

    @property
    def forward(self) -> float:
        return self.linear + self.lora + self.attention

    def training(self, frozen: bool) -> float:
        """Forward and backward. A product with trained weights costs three (output, gradients of input and weight), one with
        frozen weights two; attention has two inputs with gradients, so three."""
        return (2 if frozen else 3) * self.linear + 3 * self.lora + 3 * self.attention


@dataclass(frozen=True)
class Tokens:
    """Token positions of one batch, per decoder layer but the last.

    Attributes:
        reference: B rows of P + max_length + S.
        prompt: of the shared prompt; none where its keys and values are kept from before.
        exact: what exact encoding computes: the prompt once and R packed rows of W slots.
        minimum: the prompt once, the real items and the closing tokens.
        packed_rows, width: R and W.
        queries: last tokens per packed row for which the last layer makes room.
    """

    reference: int
    prompt: int
    exact: int
    minimum: int
    packed_rows: int
    width: int
    queries: int


@dataclass(frozen=True)
class RowShape:
    """P = before, item slots = max_length, S = after."""

    before: int
    after: int
    max_length: int

    @property
    def reference(self) -> int:
        return self.before + self.max_length + self.after


def count_tokens(lengths: np.ndarray, shape: RowShape, kept: bool = False) -> Tokens:
    """Tokens of a batch with histories of `lengths` [B]; `kept`: the prompt's keys and values are there already."""
    totals = lengths + shape.after
    width = fitting_width(totals, PACKED_WIDTH)
    packing = pack_rows(totals, width)
    packed_rows, prompt = len(packing.segment), 0 if kept else shape.before
    return Tokens(
        reference=len(lengths) * shape.reference,
        prompt=prompt,
        exact=prompt + packed_rows * width,
        minimum=prompt + int(totals.sum()),
        packed_rows=packed_rows,
        width=width,
        queries=int(np.bincount(packing.last.numpy() // width).max()),
    )


def reference_work(layer: LayerShape, num_layers: int, num_rows: int, shape: RowShape) -> Work:
    """Every layer computes every token; attention is dense."""
    tokens = num_layers * num_rows * shape.reference
    return Work(
        linear=tokens * (layer.key_value + layer.others),
        lora=tokens * layer.lora,
        attention=tokens * 4 * layer.hidden * shape.reference,
    )


def exact_work(layer: LayerShape, num_layers: int, num_rows: int, shape: RowShape, tokens: Tokens) -> Work:
    """What exact encoding computes, empty slots included; the last layer goes beyond keys and values for B tokens only."""
    slots = tokens.packed_rows * tokens.width
    keys = shape.before + tokens.width
    below = (num_layers - 1) * tokens.exact
    attended = (num_layers - 1) * (tokens.prompt**2 + slots * keys) + tokens.packed_rows * tokens.queries * keys
    return Work(
        linear=below * (layer.key_value + layer.others) + tokens.exact * layer.key_value + num_rows * layer.others,
        lora=(below + num_rows) * layer.lora,
        attention=4 * layer.hidden * attended,
    )


def minimum_work(layer: LayerShape, num_layers: int, lengths: np.ndarray, shape: RowShape, kept: bool = False) -> Work:
    """The least that gives the same result: real tokens, each attending to the prompt and its own row up to itself."""
    totals = (lengths + shape.after).astype(np.float64)
    tokens = float(totals.sum()) + (0 if kept else shape.before)
    own = totals * shape.before + totals * (totals + 1) / 2
    prompt = 0 if kept else shape.before * (shape.before + 1) / 2
    attended = (num_layers - 1) * (prompt + float(own.sum())) + float((shape.before + totals).sum())
    below = (num_layers - 1) * tokens
    return Work(
        linear=below * (layer.key_value + layer.others) + tokens * layer.key_value + len(lengths) * layer.others,
        lora=(below + len(lengths)) * layer.lora,
        attention=4 * layer.hidden * attended,
    )


def loss_flops(num_rows: int, num_items: int, width: int) -> float:
    """Catalogue softmax with frozen items, forward and backward: logits, and the gradient of the user vectors."""
    return 2 * 2.0 * num_rows * num_items * width
