"""Random indexing: the numbers of sequential indexing, dealt out by chance. What others gain is their order's."""

from __future__ import annotations

import numpy as np

from slmrec.openp5.indexing.sequential import numbered


def random_ids(num_items: int, seed: int) -> list[tuple[str, ...]]:
    """The digits of every item's number; looks at no action at all."""
    return numbered(1 + np.random.default_rng(seed).permutation(num_items))
