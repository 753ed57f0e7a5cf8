"""Which layers of teacher and student stand opposite each other (paper, Section 4)."""

from __future__ import annotations

from slmrec.errors import InputError


def block_ends(num_layers: int, num_blocks: int, owner: str) -> tuple[int, ...]:
    """The last layer of each block, 1-based: k * (num_layers / B) for k = 1..B.

    `owner` ("teacher" or "student") is for the message of the InputError when the block count does not divide the layers.
    """
    if num_blocks < 1 or num_layers % num_blocks:
        raise InputError(f"--num_blocks {num_blocks} does not divide the {owner}'s {num_layers} layers")
    layers_per_block = num_layers // num_blocks
    return tuple(layers_per_block * k for k in range(1, num_blocks + 1))
