"""Cross-entropy over the whole catalogue (paper, Eq. 1) that never holds the full [T, N] matrix of logits.

Shapes: T predictions, d the width of the item space, N items.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

# Predictions per chunk: many make good matrix products, few keep a chunk's logits in the cache of a CPU. On two CPU cores, 12,101
# items, d = 128, a SASRec step of 1,500 predictions took 0.29 s with 256 a chunk, 0.33 s with 192, 0.32 s with 64, and 0.43 s
# with torch 2.13's linear_cross_entropy, whose products with the items last run at half the speed.
SMALLEST_CHUNK, LARGEST_CHUNK = 128, 256
CHUNK_LOGITS = 2**23


def catalogue_cross_entropy(
    vectors: torch.Tensor, item_matrix: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Mean of -log softmax(vectors @ items)[target] over T predictions, the softmax running over items 1..N (Eq. 1).

    Args:
        vectors: [T, d], of any dtype.
        item_matrix: [N + 1, d]; row 0 belongs to PAD and takes no part. May be frozen.
        targets: int64 [T], item ids 1..N.
        dtype: float32, or bfloat16 for the factors of the matrix products; softmax, sums and gradients are float32 in any case.

    Returns:
        float32 scalar. The logits of at most 256 predictions (128 where N > 65,536) exist at a time, and once: where
        gradients are wanted they are computed along with the value, and the backward pass only scales them.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors, items = vectors.float(), item_matrix[1:].float()
        return _MeanCrossEntropy.apply(vectors, items, targets - 1, _chunk_rows(len(items)), dtype)


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


class _MeanCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of vectors [T, d] over items [N, d] at targets int64 [T], in chunks of `rows` predictions.

    Logits stand with the items first, [N, rows]: on a CPU that product takes half the time of [rows, N].
    With p = softmax and e the items, the gradient is (sum_j p_j e_j - e_target) / T for a vector, and for item j the sum over
    predictions of (p_j - [j is the target]) v / T. The division by the sum of the exponentials is done on the d-wide side.
    """

    @staticmethod
    def forward(
        context, vectors: torch.Tensor, items: torch.Tensor, targets: torch.Tensor, rows: int, dtype: torch.dtype
    ) -> torch.Tensor:
        wanted = context.needs_input_grad
        vectors, items = vectors.detach(), items.detach()
        vector_gradient = torch.empty_like(vectors) if wanted[0] else None
        item_gradient = torch.zeros_like(items) if wanted[1] else None
        total = vectors.new_zeros((), dtype=torch.float64)
        buffer = items.new_empty(min(rows, len(targets)) * len(items))
        item_factor = items.to(dtype)
        for start in range(0, len(targets), rows):
            chunk = slice(start, start + rows)
            part, target = vectors[chunk], targets[chunk]
            logits = buffer[: len(part) * len(items)].view(len(items), len(part))  # [N, rows]
            _product(item_factor, part.T.to(dtype), logits)
            positive, highest = logits.gather(0, target.unsqueeze(0)).squeeze(0), logits.amax(0)
            weights = logits.sub_(highest).exp_()
            norm = weights.sum(0)  # [rows]
            total += (norm.log() + highest - positive).sum(dtype=torch.float64)
            weights = weights.to(dtype)
            if vector_gradient is not None:
                vector_gradient[chunk] = (weights.T @ item_factor) / norm.unsqueeze(1) - items[target]
            if item_gradient is not None:
                _add_product(weights, (part / norm.unsqueeze(1)).to(dtype), item_gradient)
                item_gradient.index_add_(0, target, part, alpha=-1)
        context.gradients, context.number = (vector_gradient, item_gradient), len(targets)
        return (total / len(targets)).to(vectors.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scaled = (None if gradient is None else gradient * (upstream / context.number) for gradient in context.gradients)
        return *scaled, None, None, None


def _product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """out = left @ right, where `out` may be of a wider dtype than the factors."""
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(left @ right)


def _add_product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """out += left @ right, where `out` may be of a wider dtype than the factors."""
    if left.dtype == out.dtype:
        torch.addmm(out, left, right, out=out)
    else:
        out += left @ right
