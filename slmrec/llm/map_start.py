"""How an E-LLMRec's linear maps start (the paper is silent about it; no equation changes).

With random maps a pretrained decoder first has to learn what the encoder already knows. The passing start
lets an item through: with Q, orthonormal columns [d1, d0], an item e enters as c Q e; a decoder that adds nothing hands that on
to its final norm, which divides it by its root mean square and multiplies it by its weight g; the user map Q^T / g undoes both,
so that the user vector is e again, at the mean length of the item embeddings or another one. The score of an item is then its
similarity to the last one in the history, and training starts from there.

A student starts from its trained teacher's maps where nothing else is asked for: they suit the same items, and what is distilled
are states between them.

Shapes: N items of width d0, decoder of width d1. Where d1 < d0, Q has orthonormal rows instead, and what passes is e's
projection on them.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from slmrec.errors import InputError
from slmrec.llm.arguments import EllmArguments
from slmrec.llm.backbone import plain_backbone, shallow_config
from slmrec.llm.ellmrec import EllmRecommender

TOKENS_AT_ONCE = 8192  # of a vocabulary, when their lengths are taken


def resolve_start(arguments: EllmArguments, teacher_width: int | None = None) -> str:
    """`auto` takes the maps of a trained teacher whose decoder is as wide as the student's, and else random ones.

    Args:
        teacher_width: hidden size of the trained teacher; None where there is none.
    """
    if arguments.start != "auto":
        return arguments.start
    return "teacher" if teacher_width == shallow_config(arguments.base_model, 1).hidden_size else "random"


def passing_maps(
    item_embeddings: torch.Tensor,
    token_length: float,
    norm_weight: torch.Tensor,
    ratio: float,
    seed: int,
    user_length: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The item map float32 [d1, d0] and the user map [d0, d1] of the passing start.

    Args:
        item_embeddings: float32 [N + 1, d0]; row 0 (PAD) does not count.
        token_length: mean length of the decoder's token vectors.
        norm_weight: float32 [d1], of the final norm, none of it zero.
        ratio: c is chosen so that a mean item vector enters this many times as long as a token vector.
        user_length: of the user vectors; None for the mean length of the item embeddings.
        seed: of Q; models with the same seed and widths have the same Q, whatever their depths.
    """
    width = len(norm_weight)
    item_length = item_embeddings[1:].norm(dim=1).mean()
    directions = nn.init.orthogonal_(torch.empty(width, item_embeddings.shape[1]), generator=torch.Generator().manual_seed(seed))
    item_map = directions * (ratio * token_length / item_length)
    user_map = directions.T / norm_weight * ((user_length or item_length) / width**0.5)
    return item_map, user_map


@torch.no_grad()
def start_passing(model: EllmRecommender, ratio: float, seed: int, user_length: float | None = None) -> None:
    """Give a model the passing start. Raises InputError for decoders without a final RMS norm."""
    decoder = plain_backbone(model.backbone)
    token_length, norm_weight = mean_token_length(decoder), final_norm_weight(decoder)
    maps = passing_maps(model.item_matrix().cpu(), token_length, norm_weight, ratio, seed, user_length)
    _set_maps(model, *maps)


@torch.no_grad()
def start_from_teacher(model: EllmRecommender, heads: dict[str, torch.Tensor]) -> None:
    """Give a student the maps among its teacher's saved heads, which belong to a decoder of the same width.

    Intermediate blocks of a decoder whose final norm is no RMS norm keep the maps that they have.
    """
    maps = heads["item_projection.weight"], heads["user_projection.weight"]
    _set_maps(model, *maps, heads["item_projection.bias"])
    if model.text_projection is not None and "text_projection.weight" in heads:
        model.text_projection.weight.copy_(heads["text_projection.weight"])


def _set_maps(model: EllmRecommender, item_map: torch.Tensor, user_map: torch.Tensor, bias: torch.Tensor | float = 0.0) -> None:
    """Put maps into a model, and let its intermediate blocks read with the same user map.

    Their states come before the final norm: its weight is multiplied in, and instead of each state's root mean square stands
    that of a mean item as it enters.
    """
    model.item_projection.weight.copy_(item_map)
    model.item_projection.bias.copy_(torch.as_tensor(bias))
    model.user_projection.weight.copy_(user_map)
    entering = model.item_projection(model.item_matrix()[1:]).square().mean(dim=1).sqrt().mean()
    weight = _rms_weight(plain_backbone(model.backbone))
    if weight is None:
        return
    for projection in model.block_projections.values():
        assert isinstance(projection, nn.Linear)
        projection.weight.copy_(user_map * weight / entering)


def mean_token_length(decoder: PreTrainedModel) -> float:
    """Mean length of the decoder's token vectors, as they enter it."""
    embed = decoder.get_input_embeddings()
    numbers = torch.arange(embed.weight.shape[0], device=embed.weight.device).split(TOKENS_AT_ONCE)
    return float(torch.cat([embed(part).float().norm(dim=1) for part in numbers]).mean())


def final_norm_weight(decoder: PreTrainedModel) -> torch.Tensor:
    """What the final norm multiplies by, float32 [d1]. Raises InputError unless it is an RMS norm."""
    weight = _rms_weight(decoder)
    if weight is None:
        raise InputError("--start passing needs a decoder whose final norm is an RMS norm without zeros: use --start random")
    return weight


def _rms_weight(decoder: PreTrainedModel) -> torch.Tensor | None:
    """The final norm's answer to ones, whose root mean square is 1; None of another kind of norm, whose answer has zeros."""
    norm = getattr(decoder, "norm", None)
    if norm is None:
        return None
    weight = norm(torch.ones(decoder.config.hidden_size, dtype=decoder.dtype)).float()
    return weight if (weight.isfinite() & (weight != 0)).all() else None
