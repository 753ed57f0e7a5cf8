"""Packing: rows of different lengths laid side by side in rows of one width, so that padding costs next to nothing.

Shapes: B rows with lengths [B], T = lengths.sum() tokens in row order, R packed rows of W slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from slmrec.ragged import indices, row_numbers

FEW = 4  # rows of the usual width, up to which it is fitted to what they hold


@dataclass
class Packing:
    """Where each of T tokens stands in the packed matrix.

    Attributes:
        slot: int64 [T], index into the flattened [R * W] matrix.
        segment: int64 [R, W], which of the B rows a slot belongs to, -1 where the slot is empty.
        last: int64 [B], slot of the last token of each row (rows of length 0 have no token; do not read theirs).
    """

    slot: torch.Tensor
    segment: torch.Tensor
    last: torch.Tensor

    def pack(self, tokens: torch.Tensor) -> torch.Tensor:
        """[T, ...] -> [R, W, ...], zeros in the empty slots."""
        rows, width = self.segment.shape
        packed = tokens.new_zeros((rows * width, *tokens.shape[1:]))
        return packed.index_copy(0, self.slot, tokens).unflatten(0, (rows, width))

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """[R, W, ...] -> [T, ...]."""
        return packed.flatten(0, 1).index_select(0, self.slot)

    def take_last(self, packed: torch.Tensor) -> torch.Tensor:
        """[R, W, ...] -> [B, ...], the last token of each row."""
        return packed.flatten(0, 1).index_select(0, self.last)

    def causal_mask(self) -> torch.Tensor:
        """bool [R, W, W], true where a slot may attend: to earlier slots of its own segment and to itself."""
        same = self.segment.unsqueeze(2) == self.segment.unsqueeze(1)
        return same.tril_()


def pack_rows(lengths: np.ndarray | torch.Tensor, width: int, device: torch.device | str = "cpu") -> Packing:
    """First-fit-decreasing packing of rows into the fewest rows of `width` slots that it finds.

    Raises ValueError when a row is longer than `width`.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if len(lengths) and lengths.max() > width:
        raise ValueError(f"a row of {lengths.max()} tokens does not fit into {width} slots")
    starts, num_rows = _first_fit(lengths, width)
    token_row = row_numbers(lengths)
    slot = indices(starts, lengths)
    segment = np.full(num_rows * width, -1, dtype=np.int64)
    segment[slot] = token_row
    last = np.maximum(starts + lengths - 1, 0)
    return Packing(*(torch.from_numpy(array).to(device) for array in (slot, segment.reshape(num_rows, width), last)))


def fitting_width(lengths: np.ndarray, width: int) -> int:
    """The width for `pack_rows`: `width`, or for few rows a narrower one that leaves fewer slots empty; at least the longest row.

    Many rows fill any width; few of them, as when one user asks, would leave the half of it empty.
    """
    total, longest = int(lengths.sum()), int(lengths.max(initial=1))
    if total > FEW * width or longest >= width:
        return max(width, longest)
    even = [-(-total // number) for number in range(1, 2 * FEW)]
    widths = {width, *(one for one in even if longest <= one <= width), *range(longest, width + 1, longest)}
    return min(widths, key=lambda one: (_first_fit(lengths, one)[1] * one, -one))


def _first_fit(lengths: np.ndarray, width: int) -> tuple[np.ndarray, int]:
    """Start slot of each row in the flattened packed matrix, and the number of packed rows."""
    free: list[int] = []
    starts = np.zeros(len(lengths), dtype=np.int64)
    open_from = 0  # packed rows before this one are full
    for row in np.argsort(-lengths, kind="stable"):
        length = int(lengths[row])
        place = next((i for i in range(open_from, len(free)) if free[i] >= length), len(free))
        if place == len(free):
            free.append(width)
        starts[row] = place * width + (width - free[place])
        free[place] -= length
        while open_from < len(free) and free[open_from] == 0:
            open_from += 1
    return starts, max(len(free), 1)
