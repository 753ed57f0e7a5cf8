"""The decoder below an E-LLMRec: loading the first layers of a Hugging Face checkpoint, LoRA, parameter counts."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Set
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from slmrec.artifacts import file_sha256, json_sha256, read_manifest
from slmrec.checkpoint_directory import named_digests, opening, require_readable, tokenizer_files
from slmrec.errors import InputError
from slmrec.files import first_bytes
from slmrec.llm.four_bits import four_bit_options, how_read, number_of_weights, same_numbers
from slmrec.ownership import stage_of

CHECKED_BYTES = 1 << 30  # of weights that this project made: up to there every start reads them whole (docs/reliability.md)
ADAPTER = "adapter_config.json"
FINGERPRINT_BYTES = 1 << 20  # of each weight file; hashing 13 GB at every start would cost more than it tells
# What a checkpoint's own code could do is never asked for; without this, transformers would ask the user whether to run it
NO_REMOTE_CODE = {"trust_remote_code": False}


def load_backbone_config(base_model: str, flag: str = "--base_model") -> PretrainedConfig:
    """The configuration of a checkpoint directory or hub name, which `flag` gave.

    Raises InputError when there is none, or the checkpoint is one that cannot be trained on: quantised, with an adapter beside
    its weights, or with git-LFS pointers in place of its files.
    """
    require_readable(base_model, flag)
    if (Path(base_model) / ADAPTER).is_file():  # transformers would put it into the layers, and ours would go on top of it
        raise InputError(f"{flag} {base_model}: has a peft adapter beside its weights ({ADAPTER}); merge it into them first")
    with opening(base_model, flag, "no checkpoint with a config.json there"):
        config = AutoConfig.from_pretrained(base_model, **NO_REMOTE_CODE)
    for name in ("num_hidden_layers", "hidden_size", "vocab_size"):
        if not isinstance(getattr(config, name, None), int) or getattr(config, name) < 1:
            raise InputError(f"{flag} {base_model}: not a language model (its config.json has no number {name})")
    quantised = getattr(config, "quantization_config", None)
    if quantised:
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised.quant_method
        raise InputError(
            f"{flag} {base_model}: its weights are quantised ({method}); give the checkpoint that they were made from, "
            "or a GGUF file"
        )
    return config


def shallow_config(base_model: str, num_layers: int) -> PretrainedConfig:
    """The checkpoint's configuration with its first `num_layers` decoder layers only."""
    config = load_backbone_config(base_model)
    if not 1 <= num_layers <= config.num_hidden_layers:
        raise InputError(f"--num_layers {num_layers}: {base_model} has {config.num_hidden_layers} layers")
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:num_layers]
    return config


def load_backbone(
    base_model: str, num_layers: int, dtype: torch.dtype = torch.float32, four_bits: bool = False
) -> PreTrainedModel:
    """The first `num_layers` decoder layers with embeddings and final norm, on the CPU; `four_bits`: see `slmrec.llm.four_bits`.

    The layers above are never built: their weights stay in the file. Raises InputError when a weight that is needed is missing.
    """
    return load_layers(AutoModel, base_model, num_layers, dtype, more=four_bit_options(dtype) if four_bits else {})[0]


def load_layers(
    kind: Any,
    base_model: str,
    num_layers: int,
    dtype: torch.dtype,
    may_lack: Set[str] = frozenset(),
    more: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[PreTrainedModel, set[str]]:
    """`load_backbone` for any of transformers' AutoModel classes, and which of the weights `may_lack` the checkpoint has not.

    `more` are further arguments of from_pretrained.
    """
    config = shallow_config(base_model, num_layers)
    options = {"config": config, "dtype": dtype, "attn_implementation": "sdpa", "output_loading_info": True, **more}
    report = logging.getLogger("transformers.modeling_utils")
    level = report.level
    report.setLevel(logging.ERROR)  # it warns of the layers above; what matters is missing weights, which are refused below
    try:
        with opening(base_model, "--base_model", "its weights cannot be loaded"):
            backbone, loaded = kind.from_pretrained(base_model, **options, **NO_REMOTE_CODE)
    finally:
        report.setLevel(level)
    lacks = set(loaded["missing_keys"])
    if lacks - may_lack:
        missing = sorted(lacks - may_lack)
        raise InputError(f"--base_model {base_model}: its weights lack {missing[0]} ({len(missing)} such tensors)")
    return backbone, lacks


@torch.no_grad()
def is_causal(model: PreTrainedModel, **unlike_at_the_end: torch.Tensor) -> bool:
    """Whether no token sees later ones, by two rows of three tokens [2, 3, ...] of which only the last ones differ."""
    states = model(**unlike_at_the_end).last_hidden_state
    return torch.allclose(states[0, :2], states[1, :2], atol=1e-6)


def require_causal(backbone: PreTrainedModel, base_model: str) -> None:
    """Raise InputError for a model in which a token sees later ones: it would be shown the items that it has to predict."""
    unlike_at_the_end = torch.tensor([[0, 1, 2], [0, 1, 3]])
    rows = torch.eye(4, backbone.config.hidden_size, dtype=backbone.dtype)[unlike_at_the_end]  # [2, 3, d]
    try:
        causal = is_causal(backbone, inputs_embeds=rows)
    except (ValueError, TypeError) as error:
        raise InputError(f"--base_model {base_model}: not a decoder that reads vectors ({str(error).splitlines()[0]})") from None
    if not causal:
        raise InputError(f"--base_model {base_model}: its tokens see later ones; a decoder of the LLaMA kind is needed")


def add_lora(backbone: nn.Module, r: int, alpha: int, dropout: float, target_modules: list[str]) -> PeftModel:
    """Freeze the backbone and put LoRA adapters on the named linear layers (Table 5: gate, up and down projections)."""
    config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=target_modules, bias="none")
    try:
        model = get_peft_model(backbone, config)
    except ValueError as error:
        raise InputError(f"--lora_target_modules {' '.join(target_modules)}: {str(error).splitlines()[0]}") from None
    for module in model.modules():
        if isinstance(module, LoraLinear):  # it would turn its input into float32, which autocast undoes at once
            module.cast_input_dtype_enabled = False
    return model


def merge_adapters(backbone: nn.Module) -> nn.Module:
    """The decoder with its adapters added, in place, to the weights that they adapt, for a model that is not trained any more.

    One without adapters stays as it is, and one in 4 bits, whose weights would have to be rounded anew.
    """
    if not isinstance(backbone, PeftModel) or how_read(plain_backbone(backbone)):
        return backbone
    return backbone.merge_and_unload()


def in_bfloat16(backbone: nn.Module) -> nn.Module:
    """The decoder with weights in bfloat16. What is computed from positions stays float32: angles must not be rounded."""
    for weight in backbone.parameters():
        weight.data = weight.data.to(torch.bfloat16)
    return backbone


def require_layers_named(config: PretrainedConfig, target_modules: list[str]) -> None:
    """Raises InputError unless every name is that of a linear layer; peft itself is content when one of them is."""
    with torch.device("meta"), opening(config.name_or_path, "--base_model", "no model can be made by its config.json"):
        skeleton = AutoModel.from_config(config, **NO_REMOTE_CODE)
    linear = [name for name, module in skeleton.named_modules() if isinstance(module, nn.Linear)]
    for target in target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            there = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linear}))
            raise InputError(f"--lora_target_modules {target}: no layer has this name; there are {there}")


def plain_backbone(backbone: nn.Module) -> PreTrainedModel:
    """The decoder itself, whether or not peft wraps it (adapters are inside its layers either way)."""
    return backbone.get_base_model() if isinstance(backbone, PeftModel) else backbone


def share_frozen(model: nn.Module, other: nn.Module) -> int:
    """Let two backbones hold the frozen weights that they have in common once: the same name, dtype and numbers.

    Both lie on one device; adapters and whatever else is trained stay each one's own, and so do weights that are shared out among
    processes. Returns the bytes that are saved.
    """
    theirs = _frozen_and_whole(other)
    modules, saved = dict(plain_backbone(model).named_modules()), 0
    for name, weight in _frozen_and_whole(model).items():
        twin = theirs.get(name)
        if twin is None or twin is weight or twin.dtype != weight.dtype:
            continue
        if same_numbers(weight, twin):
            place, _, leaf = name.rpartition(".")
            setattr(modules[place], leaf, twin)
            saved += weight.nbytes
    return saved


def _frozen_and_whole(backbone: nn.Module) -> dict[str, nn.Parameter]:
    weights = plain_backbone(backbone).named_parameters()
    return {name: weight for name, weight in weights if not weight.requires_grad and not isinstance(weight, DTensor)}


def count_parameters(module: nn.Module) -> dict[str, int]:
    """Parameters in all and those that are trained (Table 5 counts inference and training parameters this way)."""
    return {
        "parameters": sum(map(number_of_weights, module.parameters())),
        "trained_parameters": sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
    }


def written_by_this_project(base_model: str) -> bool:
    """Whether the checkpoint is a randomly initialised one that `slmrec.llm.make_backbone` wrote."""
    return stage_of(base_model) == "backbone"


def backbone_input(base_model: str, whole: bool = False, flag: str = "--base_model") -> dict:
    """Describe the backbone as a stage input: a digest of its configuration, its tokenizer, its weights' sizes and first bytes.

    `weights` is the digest without the tokenizer: runs that share it start from the same numbers. A checkpoint that this project
    made is compared with its manifest, if it is small; with `whole`, all weights of any one are read, and their sha256 recorded.
    Raises InputError, which begins with the `flag` that named it, when they are not the known ones.
    """
    config = load_backbone_config(base_model, flag)
    if not Path(base_model).is_dir():
        return {"base_model": base_model, "digest": json_sha256([base_model, getattr(config, "_commit_hash", None)])}
    weights = sorted(Path(base_model).glob("*.safetensors")) or sorted(Path(base_model).glob("pytorch_model*.bin"))
    if not weights:
        raise InputError(f"{flag} {base_model}: the directory has no weights (*.safetensors or pytorch_model*.bin)")
    heads = [(path.name, path.stat().st_size, _head_sha256(path)) for path in weights]
    numbers = json_sha256([file_sha256(Path(base_model) / "config.json"), heads])
    if stage_of(base_model) and (whole or sum(path.stat().st_size for path in weights) <= CHECKED_BYTES):
        read_manifest(base_model)
    tokenizer = named_digests(tokenizer_files(base_model), base_model)
    described = {"base_model": Path(base_model).name, "digest": json_sha256([numbers, tokenizer])}
    return described | {"weights": numbers} | ({"sha256": _whole_sha256(weights)} if whole else {})


def _whole_sha256(weights: list[Path]) -> dict[str, str]:
    """File name -> sha256. Raises InputError for a file of the Hugging Face cache that is not the one it is named for."""
    digests = {path.name: file_sha256(path) for path in weights}
    for path in weights:
        named = path.resolve().name
        if re.fullmatch("[0-9a-f]{64}", named) and named != digests[path.name]:
            raise InputError(f"{path}: damaged: its sha256 is {digests[path.name]}, and the cache has it as {named}")
    return digests


def _head_sha256(path: Path) -> str:
    return hashlib.sha256(first_bytes(path, FINGERPRINT_BYTES)).hexdigest()
