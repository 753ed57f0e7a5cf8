"""Saving and loading an E-LLMRec: what makes it up lies in one directory, the frozen backbone excepted.

recommender.json            architecture: base model, layers, prompt tokens, targets, supervised layers ...
heads.safetensors           the linear layers outside the backbone
adapter_model.safetensors   LoRA, with adapter_config.json (peft's own format), or
backbone/                   the whole trained backbone (Hugging Face format), for --train_strategy full
item_embeddings.safetensors in the stage directory only, as text_vectors.safetensors where it reads texts; checkpoint-N share it
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModel

from slmrec.artifacts import file_sha256, first_difference, json_sha256, read_json, read_manifest, stage_directory, write_json
from slmrec.checkpoints import require_whole
from slmrec.embeddings import read_item_embeddings, read_text_vectors
from slmrec.errors import InputError
from slmrec.llm.adapter_folder import described_base, find_base, save_adapters
from slmrec.llm.arguments import EllmArguments
from slmrec.llm.backbone import (
    NO_REMOTE_CODE,
    add_lora,
    load_backbone,
    load_backbone_config,
    plain_backbone,
    require_causal,
    require_layers_named,
    shallow_config,
    written_by_this_project,
)
from slmrec.llm.ellmrec import EllmModel, EllmRecommender
from slmrec.llm.encoding import require_exact_support
from slmrec.llm.four_bits import dtype_read, how_read
from slmrec.llm.map_start import start_passing
from slmrec.llm.prompt import Prompt, load_tokenizer, tokenize_prompt
from slmrec.tensors import read_tensors

RECOMMENDER = "recommender.json"
HEADS = "heads.safetensors"
BACKBONE = "backbone"
FOUR_BITS = "four_bits"  # in recommender.json, where the base was read so


def resolve_train_strategy(arguments: Any) -> str:
    """`auto` trains a random checkpoint of ours whole and puts LoRA on anything pretrained."""
    if arguments.train_strategy != "auto":
        return arguments.train_strategy
    return "full" if written_by_this_project(arguments.base_model) else "lora"


def check_base_model(arguments: EllmArguments) -> None:
    """Raises InputError when a new model cannot stand on its base model: layers, tokenizer, adapters. Loads no weights."""
    config = shallow_config(arguments.base_model, arguments.num_layers)
    tokenize_prompt(load_tokenizer(arguments.base_model), arguments.targets, config.vocab_size)
    if arguments.encoding == "exact":
        require_exact_support(config)
    if resolve_train_strategy(arguments) == "lora":
        require_layers_named(config, arguments.lora_target_modules)
    else:
        arguments.refuse_adapters()


def new_recommender(
    arguments: EllmArguments,
    item_embeddings: torch.Tensor,
    dtype: torch.dtype = torch.float32,
    supervised_layers: tuple[int, ...] = (),
    projected_layers: dict[int, int] | None = None,
    text_vectors: torch.Tensor | None = None,
    seed: int = 0,
) -> EllmRecommender:
    """Build an untrained E-LLMRec on its base model. `dtype` is that of frozen weights; trained ones are float32.

    `seed` is that of the passing start, which models of different depths then share; random maps are torch's next ones.
    """
    config = load_backbone_config(arguments.base_model)
    if arguments.encoding == "exact":
        require_exact_support(config)
    strategy = resolve_train_strategy(arguments)
    prompt = tokenize_prompt(load_tokenizer(arguments.base_model), arguments.targets, config.vocab_size)
    dtype = torch.float32 if strategy == "full" else dtype
    backbone = load_backbone(arguments.base_model, arguments.num_layers, dtype, arguments.load_in_4bit)
    if arguments.encoding == "reference":  # what the exact one knows is causal
        require_causal(backbone, arguments.base_model)
    if strategy == "lora":
        targets = arguments.lora_target_modules
        backbone = add_lora(backbone, arguments.lora_r, arguments.lora_alpha, arguments.lora_dropout, targets)
    model = EllmRecommender(
        backbone,
        item_embeddings,
        prompt,
        max_length=arguments.max_length,
        targets=arguments.targets,
        encoding=arguments.encoding,
        supervised_layers=supervised_layers,
        item_dropout=arguments.item_dropout,
        projected_layers=projected_layers,
        text_vectors=text_vectors,
        train_items=arguments.train_items,
    )
    if arguments.start == "passing":
        start_passing(model, arguments.start_ratio, seed, arguments.user_length)
    return model


def save_weights(model: EllmModel, base_model: str, directory: Path) -> None:
    """Write every part of a model, but for the item embeddings, into `directory`."""
    for place, part in model.parts().items():
        _save_part(part, base_model, directory / place)


def _save_part(model: EllmRecommender, base_model: str, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    save_file(model.heads().state_dict(), directory / HEADS)
    if isinstance(model.backbone, PeftModel):
        save_adapters(model.backbone, base_model, directory, "An E-LLMRec")
    else:
        plain_backbone(model.backbone).save_pretrained(directory / BACKBONE)
    described = {"base_model": described_base(base_model, directory), "encoding": model.encoding}
    write_json(directory / RECOMMENDER, described | _architecture(model))


def _architecture(model: EllmRecommender) -> dict:
    """What two models must share to share weights, as JSON values."""
    there: dict = {} if model.text_projection is None else {"text_width": model.text_projection.in_features}
    if read := how_read(plain_backbone(model.backbone)):
        there[FOUR_BITS] = read
    return there | {
        "train_strategy": "lora" if isinstance(model.backbone, PeftModel) else "full",
        "num_layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "targets": model.targets,
        "max_length": model.max_length,
        "supervised_layers": [int(layer) for layer in model.block_projections],
        "projected_layers": {layer: projection.out_features for layer, projection in model.state_projections.items()},
        "trains_items": model.trained_items is not None,
        "prompt": {"before": list(model.prompt.before), "after": list(model.prompt.after)},
    }


def restore_weights(model: EllmModel, directory: Path) -> None:
    """Put the trained weights of a checkpoint into `model`. Raises InputError when its architecture is another one."""
    for place, part in model.parts().items():
        _restore_part(part, directory / place)


def go_on_from(model: EllmRecommender, directory: Path) -> None:
    """Put the weights of a model that was trained on the first of the items into `model`, whose other items keep their vectors.

    Raises InputError when its architecture is another one.
    """
    heads = load_heads(directory)
    if model.trained_items is not None and "trained_items.weight" in heads:
        known = heads["trained_items.weight"]
        heads["trained_items.weight"] = torch.cat([known, model.trained_items.weight.detach()[len(known) :]])
    _restore_part(model, directory, heads)


def _restore_part(model: EllmRecommender, directory: Path, heads: dict[str, torch.Tensor] | None = None) -> None:
    architecture = {FOUR_BITS: None} | _architecture(model)
    saved = read_json(directory / RECOMMENDER)
    difference = first_difference({name: saved.get(name) for name in architecture}, architecture)
    if difference:
        raise InputError(f"{directory}: its {difference[0]} is {difference[1]}, that of the model {difference[2]}")
    _load_heads(model, directory, heads)
    if isinstance(model.backbone, PeftModel):
        model.backbone.load_adapter(directory, "default", is_trainable=True)
    else:
        model.backbone.load_state_dict(AutoModel.from_pretrained(directory / BACKBONE, **NO_REMOTE_CODE).state_dict())


def load_ellmrec(directory: str | Path, encoding: str | None = None, dtype: torch.dtype = torch.float32) -> EllmRecommender:
    """Load a teacher or student from its stage directory or from a checkpoint-N inside one, on the CPU.

    `encoding` overrides the one it was trained with; the results are equal. A base that was read in 4 bits is so again, with the
    dtype of its training. Raises InputError where that cannot be.
    """
    directory = Path(directory)
    if not (directory / RECOMMENDER).is_file():
        raise InputError(f"{directory}: no E-LLMRec here (it has no {RECOMMENDER})")
    saved, stage = read_json(directory / RECOMMENDER), stage_directory(directory)
    model = EllmRecommender(
        _load_trained_backbone(directory, saved, dtype),
        read_item_embeddings(stage),
        Prompt(tuple(saved["prompt"]["before"]), tuple(saved["prompt"]["after"])),
        max_length=saved["max_length"],
        targets=saved["targets"],
        encoding=encoding or saved["encoding"],
        supervised_layers=tuple(saved["supervised_layers"]),
        projected_layers={int(layer): width for layer, width in saved["projected_layers"].items()},
        text_vectors=read_text_vectors(stage) if "text_width" in saved else None,
        train_items=saved["trains_items"],
    )
    _load_heads(model, directory)
    return model


def _load_heads(model: EllmRecommender, directory: Path, heads: dict[str, torch.Tensor] | None = None) -> None:
    try:
        model.heads().load_state_dict(heads or load_heads(directory))
    except RuntimeError as error:
        raise InputError(f"{directory / HEADS}: not the heads of this model ({str(error).splitlines()[-1].strip()})") from None


def load_heads(directory: Path) -> dict[str, torch.Tensor]:
    """A saved model's linear layers by name, float32: item_projection.weight [d1, d0], user_projection.weight [d0, d1] ..."""
    return read_tensors(directory / HEADS)


def _load_trained_backbone(directory: Path, saved: dict, dtype: torch.dtype) -> nn.Module:
    if saved["train_strategy"] == "full":
        return AutoModel.from_pretrained(directory / BACKBONE, dtype=dtype, attn_implementation="sdpa", **NO_REMOTE_CODE)
    base_model = find_base(saved["base_model"], directory)
    width = load_backbone_config(base_model).hidden_size
    if width != saved["hidden_size"]:
        raise InputError(f"{directory}: its adapters are {saved['hidden_size']} wide, {base_model} is {width}")
    four_bits = FOUR_BITS in saved
    dtype = dtype_read(directory, saved[FOUR_BITS]) if four_bits else dtype
    return PeftModel.from_pretrained(load_backbone(base_model, saved["num_layers"], dtype, four_bits), directory)


def model_input(directory: str | Path, stage: str | tuple[str, ...]) -> dict:
    """Describe a model as a stage input, like `artifacts.stage_input`; a checkpoint-N adds its own weights to the digest."""
    directory = Path(directory)
    manifest = read_manifest(stage_directory(directory), stage)
    described = {"directory": str(directory), "stage": manifest["stage"], "digest": manifest["digest"]}
    if stage_directory(directory) == directory:
        return described
    if not (directory / RECOMMENDER).is_file():
        raise InputError(f"{directory}: not a checkpoint of an E-LLMRec (it has no {RECOMMENDER})")
    require_whole(directory)
    weights = [file_sha256(path) for path in sorted(directory.rglob("*.safetensors"))]
    return described | {"digest": json_sha256([manifest["digest"], weights])}
