"""The base model's frozen weights in 4 bits (--load_in_4bit): bitsandbytes' NF4, as QLoRA has it (Dettmers et al., 2023).

What is quantised are the decoder's linear layers, in blocks of 64 weights, while the checkpoint is read. Token embeddings and
norms stay in the run's precision, in which the products are computed too. Adapters are trained on top; recommender.json keeps how
the base of a model so trained was read, and it is read so again.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from slmrec.errors import InputError

FLAG = "--load_in_4bit"
QUANT_TYPE = "nf4"


def require_four_bits(asks: str, device: str = "auto") -> None:
    """Raises InputError where 4-bit weights cannot be computed with. `asks` is what wants them, `device` the run's --device."""
    if device == "cpu" or not torch.cuda.is_available():
        given = "--device cpu excludes" if device == "cpu" else "is not there"
        raise InputError(f"{asks}: weights in 4 bits need a CUDA device, which {given}")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"{asks}: weights in 4 bits need bitsandbytes: pip install -e '.[four_bits]'")


def four_bit_options(dtype: torch.dtype) -> dict[str, Any]:
    """What from_pretrained is told. The weights are quantised on the CPU and move to the GPU with the rest of the model."""
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=QUANT_TYPE, bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": config, "device_map": {"": "cpu"}}


def how_read(decoder: PreTrainedModel) -> dict[str, str] | None:
    """For recommender.json: how a decoder's weights were quantised, and from which dtype; None where they were not."""
    config = getattr(decoder.config, "quantization_config", None)
    if config is None:
        return None
    return {"quant_type": config.bnb_4bit_quant_type, "dtype": str(config.bnb_4bit_compute_dtype).removeprefix("torch.")}


def dtype_read(directory: Any, described: dict[str, str]) -> torch.dtype:
    """The dtype in what `how_read` said of the model in `directory`. Raises InputError where this machine cannot read it so."""
    require_four_bits(f"{directory}: its base model was read with {FLAG}")
    if described["quant_type"] != QUANT_TYPE:
        raise InputError(f"{directory}: its base model was read as {described['quant_type']}, which is not known here")
    return getattr(torch, described["dtype"])


def number_of_weights(parameter: nn.Parameter) -> int:
    """Two 4-bit weights lie in one element."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()


def same_numbers(weight: nn.Parameter, other: nn.Parameter) -> bool:
    """Whether two parameters of one dtype stand for the same weights; 4-bit ones have a scale for each block besides."""
    ours, theirs = (getattr(one, "quant_state", None) for one in (weight, other))
    if ours is None or theirs is None:
        return ours is theirs and torch.equal(weight, other)
    return torch.equal(weight, other) and torch.equal(ours.absmax, theirs.absmax)
