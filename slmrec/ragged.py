"""Rows of different lengths that lie back to back, as batches hold them: where rows end, and where in its row an item stands.

All functions take numpy arrays as well as torch tensors, and give what they were given (tensors on the same device).

Shapes: B rows with `lengths` int64 [B], T items in all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:  # the data stage indexes rows too and has no need of torch
    import torch

Array = TypeVar("Array", np.ndarray, "torch.Tensor")


def row_starts(lengths: Array) -> Array:
    """Index of each row's first item, int64 [B]; of an empty row, where it would be."""
    return lengths.cumsum(0) - lengths


def row_ends(lengths: Array) -> Array:
    """Index of each row's last item, int64 [B]."""
    return lengths.cumsum(0) - 1


def row_numbers(lengths: Array) -> Array:
    """Which row each item belongs to, int64 [T]."""
    return spread(_first_numbers(len(lengths), lengths), lengths)


def places(lengths: Array) -> Array:
    """0, 1, .. within each row, int64 [T]."""
    return indices(lengths - lengths, lengths)


def places_from_end(lengths: Array) -> Array:
    """.., 1, 0 within each row, int64 [T]: 0 is the last item, as if rows were padded on the left."""
    ends = spread(row_ends(lengths), lengths)
    return ends - _first_numbers(len(ends), lengths)


def indices(starts: Array, lengths: Array) -> Array:
    """start, start + 1, .. for each row, int64 [T]: where its items stand, if row b begins at starts[b], int64 [B]."""
    moved = spread(starts - row_starts(lengths), lengths)  # [T] from where an item stands here to where it stands there
    return _first_numbers(len(moved), lengths) + moved


def spread(values: Array, lengths: Array) -> Array:
    """Each row's value [B] once for each of its items, [T]."""
    if isinstance(values, np.ndarray):
        return np.repeat(values, lengths)
    return values.repeat_interleave(lengths)


def _first_numbers(count: int, like: Array) -> Array:
    """0, 1, .., count - 1 as int64, where `like` is."""
    if isinstance(like, np.ndarray):
        return np.arange(count)
    import torch

    return torch.arange(count, device=like.device)
