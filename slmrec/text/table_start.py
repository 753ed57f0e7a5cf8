"""From text vectors to the start of an item table.

Shapes: N items, among which PAD is not; d_text the width of the text vectors, d that of the table.
"""

from __future__ import annotations

import torch

NEGLIGIBLE = 1e-5  # singular values below this share of the highest are rounding errors


def principal_directions(vectors: torch.Tensor, exponent: float, dimensions: int) -> torch.Tensor:
    """Centre, decompose and rescale: the leading left singular vectors of [N, d_text] times singular values ** exponent.

    With X the vectors minus their mean and X = U S V', the columns of U[:, :k] S[:k] ** exponent, k = min(dimensions, rank of X).
    Exponent 1 is PCA (LLM2SASRec and LLM2BERT4Rec: Harte et al., "Leveraging Large Language Models for Sequential
    Recommendation", RecSys 2023), 0 whitening (WhitenRec: Zhang et al., "Are ID Embeddings Necessary? Whitening Pre-trained Text
    Embeddings for Effective Sequential Recommendation", ICDE 2024). Each column's entry of largest size is positive, which a
    decomposition leaves open.

    Returns:
        float32 [N, k].
    """
    centred = vectors.double() - vectors.double().mean(0)
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    kept = min(dimensions, int((values > NEGLIGIBLE * values[:1]).sum()))
    left, values = left[:, :kept], values[:kept]
    signs = left.gather(0, left.abs().argmax(0, keepdim=True)).sign()
    return (left * signs * values**exponent).float()


def scaled_to(table: torch.Tensor, deviation: float) -> torch.Tensor:
    """The table times one number, so that the standard deviation of its entries (around 0) is `deviation`."""
    size = table.square().mean().sqrt()
    return table * (deviation / size) if size > 0 else table


def start_table(
    vectors: torch.Tensor, random: torch.Tensor, exponent: float, deviation: float, dimensions: int | None = None
) -> torch.Tensor:
    """An item table that starts from text vectors.

    Args:
        vectors: float32 [N, d_text].
        random: float32 [N, d], the table as it starts without texts; columns for which the texts have no direction stay so.
        exponent, dimensions: see `principal_directions`; None for d of them.
        deviation: of the entries of the text's columns.

    Returns:
        float32 [N, d].
    """
    width = random.shape[1]
    directions = scaled_to(principal_directions(vectors, exponent, min(dimensions or width, width)), deviation)
    return torch.cat([directions, random[:, directions.shape[1] :]], dim=1)
