"""Cross-entropy over the whole catalogue (paper, Eq. 1) that never holds the full [T, N] matrix of logits.

Shapes: T predictions, d the width of the item space, N items.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

# Rows per chunk. Many rows make good matrix products, few keep a chunk's logits in the cache; measured on two CPU cores, d = 128:
# 12,101 items, 1,500 rows: 512 rows a chunk 0.128 s, 64 rows 0.146 s, one piece 0.246 s (three matrix products alone: 0.110 s);
# 376,858 frozen items, 256 rows: 128 rows a chunk 0.59 s, 32 rows 0.81 s, one piece 0.90 s.
SMALLEST_CHUNK, LARGEST_CHUNK = 128, 512
CHUNK_LOGITS = 2**23


def catalogue_cross_entropy(vectors: torch.Tensor, item_matrix: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean of -log softmax(vectors @ items)[target] over T predictions, the softmax running over items 1..N (Eq. 1).

    Args:
        vectors: [T, d], computed with in float32 whatever its dtype.
        item_matrix: [N + 1, d]; row 0 belongs to PAD and takes no part. May be frozen.
        targets: int64 [T], item ids 1..N.

    Returns:
        float32 scalar. At most 512 rows (128 where N > 65,536) of logits exist at a time, in the backward pass too.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors, items = vectors.float(), item_matrix[1:].float()
        return _mean_cross_entropy(vectors, items, targets - 1, _chunk_rows(len(items)))


def catalogue_divergence(
    teacher: torch.Tensor, student: torch.Tensor, item_matrix: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Mean over T predictions of temperature^2 * KL(p || q), p and q the softened distributions over items (Hinton et al. 2015).

    Args:
        teacher, student: [T, d] user vectors; p = softmax(teacher @ items / temperature), q likewise of the student.
        item_matrix: [N + 1, d]; row 0 belongs to PAD and takes no part.

    Returns:
        float32 scalar. Logits are computed in the chunks of `catalogue_cross_entropy`, and once more in the backward pass.
    """
    with torch.autocast(student.device.type, enabled=False):
        items = item_matrix[1:].float() / temperature
        rows = _chunk_rows(len(items))

        def chunk_sum(theirs: torch.Tensor, ours: torch.Tensor) -> torch.Tensor:
            target, log_q = F.log_softmax(theirs @ items.T, 1), F.log_softmax(ours @ items.T, 1)
            return F.kl_div(log_q, target, reduction="sum", log_target=True)

        chunks = zip(teacher.float().split(rows), student.float().split(rows), strict=True)
        total = sum(checkpoint(chunk_sum, *chunk, use_reentrant=False) for chunk in chunks)
        return total * temperature**2 / len(student)


def _chunk_rows(num_items: int) -> int:
    return max(SMALLEST_CHUNK, min(LARGEST_CHUNK, CHUNK_LOGITS // max(num_items, 1)))


def _library_mean(vectors: torch.Tensor, items: torch.Tensor, targets: torch.Tensor, rows: int) -> torch.Tensor:
    """torch's own chunked operator, which computes the gradients along with the value (torch 2.13 and later)."""
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=rows, chunking_method=None)
    return F.linear_cross_entropy(vectors, items, targets, options=options)


def _recomputing_mean(vectors: torch.Tensor, items: torch.Tensor, targets: torch.Tensor, rows: int) -> torch.Tensor:
    """The same for an older torch: each chunk's logits are computed again in the backward pass."""

    def chunk_sum(part: torch.Tensor, part_targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(part @ items.T, part_targets, reduction="sum")

    chunks = zip(vectors.split(rows), targets.split(rows), strict=True)
    return sum(checkpoint(chunk_sum, *chunk, use_reentrant=False) for chunk in chunks) / len(targets)


_mean_cross_entropy = _library_mean if hasattr(F, "linear_cross_entropy") else _recomputing_mean
