"""The text vectors of all items: what stands where an item has no text, and what stands in their place as a control."""

from __future__ import annotations

import numpy as np
import torch


def fill_missing(known: np.ndarray, vectors: np.ndarray) -> torch.Tensor:
    """Vectors of all items, float32 [N + 1, d_text], from those of the items that have a text.

    Args:
        known: bool [N], which items have one.
        vectors: float32 [known.sum(), d_text], theirs in the same order; the others get their mean.
    """
    table = np.zeros((len(known) + 1, vectors.shape[1]), dtype=np.float32)
    table[1:] = vectors.mean(0)
    table[1:][known] = vectors
    return torch.from_numpy(table)


def control_vectors(table: torch.Tensor, control: str, seed: int) -> torch.Tensor:
    """What stands in the place of the text vectors [N + 1, d_text] so that all but their meaning stays alike.

    Args:
        control: none (the vectors themselves), shuffled (each item gets another item's) or gaussian (standard normal vectors).
    """
    generator = torch.Generator().manual_seed(seed)
    replaced = table.clone()
    if control == "shuffled":
        replaced[1:] = table[1:][torch.randperm(len(table) - 1, generator=generator)]
    elif control == "gaussian":
        replaced[1:] = torch.randn(table[1:].shape, generator=generator)
    return replaced
