"""The distillation terms as pure functions: the paper's (Eq. 3 to 6), the released code's variants, and other methods' terms.

Shapes: blocks are one tensor [n, d] per block, n the read positions of a batch and d the hidden size; results are scalars in
float32, averaged over n.
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


def attention_divergence(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """Mean over positions and heads of KL(teacher || student) between attention weights (MiniLM, Wang et al. 2020, Eq. 6).

    Args:
        teacher, student: float32 [n, H, A], non-negative, summing to 1 over A; where one may not attend both are 0.
    """
    smallest = torch.finfo(student.dtype).tiny  # 0 * (log 0 - log 0) is to be 0
    log_ratio = teacher.clamp_min(smallest).log() - student.clamp_min(smallest).log()
    return (teacher * log_ratio).sum(-1).mean()


def contrastive_loss(teacher: Blocks, student: Blocks, temperature: float) -> torch.Tensor:
    """InfoNCE (van den Oord et al. 2018), averaged over blocks: a student state is to find the teacher state of its own position.

    -log of exp(c_ii / temperature) / sum_j exp(c_ij / temperature), c_ij the cosine of student state i and teacher state j.
    """
    return torch.stack([_info_nce(theirs, ours, temperature) for theirs, ours in zip(teacher, student, strict=True)]).mean()


def _info_nce(teacher: torch.Tensor, student: torch.Tensor, temperature: float) -> torch.Tensor:
    with torch.autocast(student.device.type, enabled=False):
        cosines = F.normalize(student.float(), dim=1) @ F.normalize(teacher.float(), dim=1).T  # [n, n]
        return F.cross_entropy(cosines / temperature, torch.arange(len(cosines), device=cosines.device))


def _cosines(teacher: Blocks, student: Blocks) -> list[torch.Tensor]:
    pairs = zip(teacher, student, strict=True)
    return [F.cosine_similarity(ours.float(), theirs.float(), dim=1).mean() for theirs, ours in pairs]


def _distances(teacher: Blocks, student: Blocks) -> list[torch.Tensor]:
    pairs = zip(teacher, student, strict=True)
    return [torch.linalg.vector_norm(theirs.float() - ours.float(), dim=1) for theirs, ours in pairs]
