"""Cross-entropy over the whole catalogue (paper, Eq. 1) that never holds the full [T, N] matrix of logits.

Shapes: T predictions, d the width of the item space, N items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.utils.checkpoint import checkpoint

# Predictions per chunk: many make good matrix products, few keep a chunk's logits in the cache of a CPU. On two CPU cores, 12,101
# items, d = 128, a SASRec step of 1,500 predictions took 0.29 s with 256 a chunk, 0.33 s with 192, 0.32 s with 64, and 0.43 s
# with torch 2.13's linear_cross_entropy, whose products with the items last run at half the speed.
SMALLEST_CHUNK, LARGEST_CHUNK = 128, 256
CHUNK_LOGITS = 2**23
# A catalogue of more items than a block is split too; the logits of a chunk over one block exist at a time, at most 256 MiB.
BLOCK_ITEMS = 2**19
# Logits between -50 and 50 need not be shifted by the greatest before exp: e^50 times ten million is far from the end of float32.
# On a CPU that saves two of the five passes over the logits.
SAFE_LOGIT = 50.0

# (vectors [T, d], item matrix [N + 1, d], targets int64 [T]) -> scalar: a next-item loss, averaged over the targets
ItemLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


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
        float32 scalar. The logits of at most 256 predictions (128 where N > 65,536) over at most 524,288 items exist at a time:
        where gradients are wanted they are computed along with the value, and the backward pass only scales them.
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
        float32 scalar. Logits are computed in the pieces of `catalogue_cross_entropy`, and once more in the backward pass.
    """
    with torch.autocast(student.device.type, enabled=False):
        items = item_matrix[1:].float()
        rows = _chunk_rows(len(items))
        blocks = items.split(BLOCK_ITEMS)
        chunks = zip((teacher.float() / temperature).split(rows), (student.float() / temperature).split(rows), strict=True)
        total = torch.cat([_divergences(theirs, ours, blocks) for theirs, ours in chunks]).sum()
        return total * temperature**2 / len(student)


def _divergences(teacher: torch.Tensor, student: torch.Tensor, blocks: Sequence[torch.Tensor]) -> torch.Tensor:
    """KL(p || q) of each row [rows], the sum over items of p (teacher's logit - student's), minus the difference of the logs of
    both sums of exponentials. Each block of items [n, d] gives its part of the three."""
    parts = [checkpoint(_block_sums, teacher, student, block, use_reentrant=False) for block in blocks]
    theirs, ours, gaps = (torch.stack(part) for part in zip(*parts, strict=True))  # [blocks, rows] each
    whole = theirs.logsumexp(0)
    return ((theirs - whole).exp() * gaps).sum(0) - whole + ours.logsumexp(0)


def _block_sums(teacher: torch.Tensor, student: torch.Tensor, items: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Of a block: log sum exp of the teacher's and of the student's logits, and the mean of their difference under p."""
    theirs, ours = teacher @ items.T, student @ items.T
    return theirs.logsumexp(1), ours.logsumexp(1), (theirs.softmax(1) * (theirs - ours)).sum(1)


def _chunk_rows(num_items: int) -> int:
    return max(SMALLEST_CHUNK, min(LARGEST_CHUNK, CHUNK_LOGITS // max(num_items, 1)))


class _MeanCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of vectors [T, d] over items [N, d] at targets int64 [T], in chunks of `rows` predictions.

    The softmax over several blocks of items goes on with the greatest logit and the sums so far, as flash attention does (Dao et
    al. 2022); where the items are trained too, the logits of each block are then computed once more.

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
        vector_gradient = torch.zeros_like(vectors) if wanted[0] else None
        item_gradient = torch.zeros_like(items) if wanted[1] else None
        total = vectors.new_zeros((), dtype=torch.float64)
        factors = items if len(items) > BLOCK_ITEMS else items.to(dtype)  # several blocks are converted one at a time
        buffer = items.new_empty(min(rows, len(targets)) * min(len(items), BLOCK_ITEMS))
        starts, safe = range(0, len(items), BLOCK_ITEMS), _all_safe(vectors, items)
        for start in range(0, len(targets), rows):
            chunk = slice(start, start + rows)
            part, target = vectors[chunk], targets[chunk]
            highest, norm, positive = part.new_full((len(part),), 0.0 if safe else -torch.inf), *part.new_zeros(2, len(part))
            for first in starts:
                block = factors[first : first + BLOCK_ITEMS].to(dtype)
                logits = _logits(block, part, buffer)
                inside = (target >= first) & (target < first + len(block))
                of_targets = logits.gather(0, (target - first).clamp(0, len(block) - 1).unsqueeze(0)).squeeze(0)
                positive = torch.where(inside, of_targets, positive)
                if not safe:
                    former, highest = highest, torch.maximum(highest, logits.amax(0))
                    logits, shrunk = logits.sub_(highest), (former - highest).exp()
                    norm = norm * shrunk
                    if vector_gradient is not None:
                        vector_gradient[chunk] *= shrunk.unsqueeze(1)
                weights = logits.exp_()
                norm, weights = norm + weights.sum(0), weights.to(dtype)  # [rows], [n, rows]
                if vector_gradient is not None:
                    vector_gradient[chunk] += weights.T @ block
            total += (norm.log() + highest - positive).sum(dtype=torch.float64)
            if vector_gradient is not None:
                vector_gradient[chunk] = vector_gradient[chunk] / norm.unsqueeze(1) - items[target]
            if item_gradient is None:
                continue
            for first in starts:
                block = factors[first : first + BLOCK_ITEMS].to(dtype)
                if len(starts) > 1:  # those of the last block are all that is left
                    weights = _logits(block, part, buffer).sub_(highest).exp_().to(dtype)
                _add_product(weights, (part / norm.unsqueeze(1)).to(dtype), item_gradient[first : first + len(block)])
            item_gradient.index_add_(0, target, part, alpha=-1)
        context.gradients, context.number = (vector_gradient, item_gradient), len(targets)
        return (total / len(targets)).to(vectors.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scaled = (None if gradient is None else gradient * (upstream / context.number) for gradient in context.gradients)
        return *scaled, None, None, None


def _all_safe(vectors: torch.Tensor, items: torch.Tensor) -> bool:
    """Whether no logit can leave the safe range, by the lengths of the vectors; asked on a CPU alone, as a GPU would wait."""
    if vectors.device.type != "cpu" or not len(items):
        return False
    longest = vectors.norm(dim=1).amax() * max(block.norm(dim=1).amax() for block in items.split(BLOCK_ITEMS))
    return bool(longest < SAFE_LOGIT)  # not where it is NaN


def _logits(items: torch.Tensor, vectors: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
    """items [n, d] @ vectors [rows, d].T, [n, rows] in the buffer, which may be of a wider dtype than the items."""
    out = buffer[: len(vectors) * len(items)].view(len(items), len(vectors))
    if items.dtype == out.dtype:
        return torch.mm(items, vectors.T, out=out)
    return out.copy_(items @ vectors.T.to(items.dtype))


def _add_product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """out += left @ right, where `out` may be of a wider dtype than the factors."""
    if left.dtype == out.dtype:
        torch.addmm(out, left, right, out=out)
    else:
        out += left @ right
