"""Items that nobody has bought in training: their vectors come from their texts."""

from __future__ import annotations

import numpy as np
import torch

PENALTIES = tuple(10.0**power for power in np.arange(-2, 5.5, 0.5))  # of the map's squared size, features having deviation 1


def untrained_items(items: np.ndarray, num_items: int) -> torch.Tensor:
    """bool [N + 1], the items 1..N that do not occur among `items`, those of all training rows."""
    untrained = torch.ones(num_items + 1, dtype=torch.bool)
    untrained[0] = False
    untrained[torch.from_numpy(items.astype(np.int64))] = False
    return untrained


def fill_from_text(table: torch.Tensor, vectors: torch.Tensor, untrained: torch.Tensor) -> torch.Tensor:
    """The table with the rows of untrained items replaced by what their texts say.

    The map from texts to the table is fitted by ridge regression on the trained items, its penalty one of PENALTIES by
    leave-one-out error (generalised cross-validation). This is the linear map of the cold-start literature (DropoutNet,
    Volkovs et al. 2017, trains one along; CLCRec, Wei et al. 2021, lists others).

    Args:
        table: float32 [N + 1, d], trained.
        vectors: float32 [N + 1, d_text].
        untrained: bool [N + 1].

    Returns:
        float32 [N + 1, d], a new tensor; the same values where nothing is untrained.
    """
    from sklearn.linear_model import RidgeCV  # here: scikit-learn takes a second to import

    filled = table.detach().clone()
    trained = ~untrained
    trained[0] = False
    if not untrained.any() or not trained.any():
        return filled
    features = (vectors / vectors[1:].std().clamp_min(1e-12)).numpy()
    fitted = RidgeCV(alphas=PENALTIES).fit(features[trained], filled[trained].numpy())
    filled[untrained] = torch.from_numpy(fitted.predict(features[untrained])).to(filled.dtype)
    return filled
