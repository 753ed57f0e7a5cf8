"""The distillation terms as pure functions of states (paper, Eq. 3 to 6), and the released code's variants of them.

Shapes: every argument is one tensor [n, d] per block, n the read positions of a batch and d the hidden size; results are scalars
in float32, averaged over n.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

Blocks = Sequence[torch.Tensor]


def mean_cosine(teacher: Blocks, student: Blocks) -> torch.Tensor:
    """D_cos of Eq. 3: the cosine between teacher and student states, averaged over blocks (and positions)."""
    return torch.stack(_cosines(teacher, student)).mean()


def mean_squared_distance(teacher: Blocks, student: Blocks) -> torch.Tensor:
    """D_norm of Eq. 4: the squared L2 distance between teacher and student states, averaged over blocks (and positions)."""
    return torch.stack([distance.square().mean() for distance in _distances(teacher, student)]).mean()


def mean_loss(block_losses: Sequence[torch.Tensor]) -> torch.Tensor:
    """L_ms of Eq. 5: the next-item loss of the supervised blocks 1..B-1, averaged over them."""
    return torch.stack(list(block_losses)).mean()


def summed_cosine_gap(teacher: Blocks, student: Blocks) -> torch.Tensor:
    """Released code instead of 1 - D_cos: the sum over blocks of (1 - mean cosine)."""
    return torch.stack([1 - cosine for cosine in _cosines(teacher, student)]).sum()


def summed_distance(teacher: Blocks, student: Blocks) -> torch.Tensor:
    """Released code instead of D_norm: the sum over blocks of the (unsquared) L2 distance."""
    return torch.stack([distance.mean() for distance in _distances(teacher, student)]).sum()


def summed_loss(block_losses: Sequence[torch.Tensor]) -> torch.Tensor:
    """Released code instead of L_ms: the sum over the supervised blocks."""
    return torch.stack(list(block_losses)).sum()


def _cosines(teacher: Blocks, student: Blocks) -> list[torch.Tensor]:
    pairs = zip(teacher, student, strict=True)
    return [F.cosine_similarity(ours.float(), theirs.float(), dim=1).mean() for theirs, ours in pairs]


def _distances(teacher: Blocks, student: Blocks) -> list[torch.Tensor]:
    pairs = zip(teacher, student, strict=True)
    return [torch.linalg.vector_norm(theirs.float() - ours.float(), dim=1) for theirs, ours in pairs]
