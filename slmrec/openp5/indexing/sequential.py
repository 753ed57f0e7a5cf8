"""Sequential indexing: items are numbered as they first appear, so items that are bought together get numbers close together."""

from __future__ import annotations

import numpy as np

FIRST = 1001  # of the numbers (released OpenP5 code)


def first_appearances(items: np.ndarray, num_items: int) -> np.ndarray:
    """All items 1..num_items, int64 [N], in the order in which they first appear in `items`; those that never do come last.

    Args:
        items: int [T], the users' training parts back to back.
    """
    found, first = np.unique(items, return_index=True)
    never = np.setdiff1d(np.arange(1, num_items + 1), found)
    return np.concatenate([found[np.argsort(first)], never]).astype(np.int64)


def numbered(order: np.ndarray) -> list[tuple[str, ...]]:
    """The digits of FIRST, FIRST + 1, ... for items in this order, int64 [N]; the ids of items 1..N."""
    ids: list[tuple[str, ...]] = [()] * len(order)
    for number, item in enumerate(order.tolist(), FIRST):
        ids[item - 1] = tuple(str(number))
    return ids


def sequential_ids(items: np.ndarray, num_items: int) -> list[tuple[str, ...]]:
    """The digits of every item's number."""
    return numbered(first_appearances(items, num_items))
