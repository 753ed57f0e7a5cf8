"""The k best items of each user, exactly, in bounded memory: blocks of users against blocks of items.

A plain product with the item matrix, a block at a time, keeping the k best so far. The order is that of a full stable sort: a
higher score first, of equal scores the lower item number.

Shapes: B users, N items, d the width of the vectors, k items asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from slmrec.data.dataset import PAD

BLOCK_FLOATS = 2**24  # scores that may exist at once (64 MiB)
Scores = Callable[[int, int], torch.Tensor]  # (start, stop) -> float32 [B, stop - start], the scores of items start..stop - 1


def best_items(
    scores: Scores,
    num_users: int,
    num_items: int,
    k: int,
    *,
    excluded: tuple[torch.Tensor, torch.Tensor] | None = None,
    block_floats: int = BLOCK_FLOATS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best of items 1..N for B users.

    Args:
        scores: gives any block of columns; item 0 is PAD and never comes back.
        excluded: (row int64 [E], item int64 [E]), pairs that must not come back.
        block_floats: how many scores may exist at once.

    Returns:
        scores float32 [B, k] and items int64 [B, k]. Where fewer than k items are left, -inf and PAD fill the row.
    """
    width = max(block_floats // max(num_users, 1), k + 1)
    if excluded is not None:
        order = excluded[1].argsort()
        excluded = excluded[0][order], excluded[1][order]
    best = None
    for start in range(1, num_items + 1, width):
        stop = min(start + width, num_items + 1)
        block = scores(start, stop)
        if excluded is not None:
            block = _masked(block, start, stop, *excluded)
        found = _stable_topk(block, k)
        found = found[0], torch.where(found[0] == -math.inf, PAD, found[1] + start)
        best = found if best is None else _merge(best, found, k)
    assert best is not None  # there is an item
    values, items = best
    if values.shape[1] < k:
        missing = k - values.shape[1]
        values = torch.nn.functional.pad(values, (0, missing), value=-math.inf)
        items = torch.nn.functional.pad(items, (0, missing), value=PAD)
    return values, items


def _masked(block: torch.Tensor, start: int, stop: int, rows: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """-inf at the pairs (row, item) that lie in it, in a copy where it is a part of something else; pairs are sorted by item."""
    first, last = torch.searchsorted(items, torch.tensor([start, stop], device=items.device)).tolist()
    places = rows[first:last], items[first:last] - start
    wrong = block[places].isnan()
    if wrong.any():
        raise _not_a_number(places[0][wrong])
    block = block.clone() if block._is_view() else block
    return block.index_put_(places, block.new_tensor(-math.inf))


def _not_a_number(rows: torch.Tensor) -> ValueError:
    return ValueError(f"row {int(rows.min())}: a score is not a number")


def _stable_topk(block: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first k columns of a stable descending sort, without sorting the rest. Raises ValueError for NaN."""
    k = min(k, block.shape[1])
    more = block.topk(min(k + 1, block.shape[1]), dim=1)
    if more.values[:, 0].isnan().any():
        raise _not_a_number(more.values[:, 0].isnan().nonzero())
    values, columns = more.values[:, :k].clone(), more.indices[:, :k].clone()
    tied = (more.values[:, k - 1] == more.values[:, -1]).nonzero().squeeze(1)  # of equal scores at the edge topk takes any
    tied = tied if block.shape[1] > k else tied[:0]
    if len(tied):
        sorted_values, sorted_columns = block[tied].sort(dim=1, descending=True, stable=True)
        values[tied], columns[tied] = sorted_values[:, :k], sorted_columns[:, :k]
    return _order(values, columns)


def _order(values: torch.Tensor, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorted by column, then stably by value: equal values keep the lower column first."""
    columns, order = columns.sort(dim=1)
    values, again = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, again)


def _merge(first: tuple[torch.Tensor, torch.Tensor], second: tuple[torch.Tensor, torch.Tensor], k: int):
    """The k best of two sorted lists whose items in `first` are all lower than those in `second`."""
    values = torch.cat([first[0], second[0]], dim=1)
    values, order = values.sort(dim=1, descending=True, stable=True)
    items = torch.cat([first[1], second[1]], dim=1).gather(1, order)
    return values[:, :k], items[:, :k]
