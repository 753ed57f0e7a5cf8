"""Rows of different lengths that lie back to back, as batches hold them: where rows end, and where in its row an item stands.

Shapes: B rows with `lengths` int64 [B], T items in all.
"""

from __future__ import annotations

import torch


def row_ends(lengths: torch.Tensor) -> torch.Tensor:
    """Index of each row's last item, int64 [B]."""
    return lengths.cumsum(0) - 1


def row_numbers(lengths: torch.Tensor) -> torch.Tensor:
    """Which row each item belongs to, int64 [T]."""
    return torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)


def places(lengths: torch.Tensor) -> torch.Tensor:
    """0, 1, .. within each row, int64 [T]."""
    starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    return torch.arange(len(starts), device=lengths.device) - starts


def places_from_end(lengths: torch.Tensor) -> torch.Tensor:
    """.., 1, 0 within each row, int64 [T]: 0 is the last item, as if rows were padded on the left."""
    ends = row_ends(lengths).repeat_interleave(lengths)
    return ends - torch.arange(len(ends), device=lengths.device)
