"""Building, saving and loading an Open-P5: all but a frozen base model lies in one directory.

openp5.json                 architecture: base model, layers, what an answer is
item_index.csv              how items are written
id_tokens.safetensors       vectors of the alphabet's tokens, never drawn again
adapter_model.safetensors   LoRA, with adapter_config.json (peft's own format), or
backbone/                   the whole trained language model with its tokenizer, for --train_strategy full
"""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from slmrec.artifacts import first_difference, read_json, write_json
from slmrec.errors import InputError
from slmrec.llm.adapter_folder import described_base, find_base, save_adapters
from slmrec.llm.backbone import (
    NO_REMOTE_CODE,
    add_lora,
    load_backbone_config,
    load_layers,
    plain_backbone,
    require_layers_named,
    shallow_config,
)
from slmrec.llm.encoding import EXACT_MODEL_TYPES, attention_window
from slmrec.llm.model_directory import BACKBONE, resolve_train_strategy
from slmrec.llm.prompt import load_tokenizer
from slmrec.openp5.arguments import OpenP5Arguments
from slmrec.openp5.item_index import ItemIndex, load_index
from slmrec.openp5.model import OpenP5Recommender
from slmrec.openp5.prompting import Prompter
from slmrec.tensors import read_tensors

RECOMMENDER = "openp5.json"
ID_TOKENS = "id_tokens.safetensors"


def check_base_model(arguments: OpenP5Arguments) -> None:
    """Raises InputError when a model cannot stand on its base model. Loads no weights; sets the number of layers if none is."""
    config = load_backbone_config(arguments.base_model)
    arguments.num_layers = arguments.num_layers or config.num_hidden_layers
    shallow_config(arguments.base_model, arguments.num_layers)
    if config.model_type not in EXACT_MODEL_TYPES:
        raise InputError(f"--base_model {arguments.base_model}: a {config.model_type}, not one of {', '.join(EXACT_MODEL_TYPES)}")
    load_tokenizer(arguments.base_model)
    if resolve_train_strategy(arguments) == "lora":
        require_layers_named(config, arguments.lora_target_modules)
    else:
        arguments.refuse_adapters()


def new_openp5(
    arguments: OpenP5Arguments, index: ItemIndex, num_users: int, dtype: torch.dtype = torch.float32
) -> OpenP5Recommender:
    """An untrained model on its base model. `dtype` is that of frozen weights; trained ones are float32.

    `num_users` of the training data have names where names are asked for.
    """
    assert arguments.num_layers  # see check_base_model
    full = resolve_train_strategy(arguments) == "full"
    backbone: nn.Module = load_language_model(arguments.base_model, arguments.num_layers, torch.float32 if full else dtype)
    if not full:
        targets = arguments.lora_target_modules
        backbone = add_lora(backbone, arguments.lora_r, arguments.lora_alpha, arguments.lora_dropout, targets)
    named = num_users if arguments.user_ids else 0
    return _assembled(backbone, load_tokenizer(arguments.base_model), index, arguments.max_length, arguments.softmax, named)


def load_language_model(base_model: str, num_layers: int, dtype: torch.dtype) -> PreTrainedModel:
    """The first layers of a causal language model. One without a head of its own (a random one of this project) writes with the
    vectors that it reads."""
    head = "lm_head.weight"
    model, lacks = load_layers(AutoModelForCausalLM, base_model, num_layers, dtype, may_lack={head})
    if head in lacks:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    return model


def _assembled(
    backbone: nn.Module, tokenizer: PreTrainedTokenizerBase, index: ItemIndex, max_length: int, softmax: str, num_users: int
) -> OpenP5Recommender:
    language_model = plain_backbone(backbone)
    num_tokens = language_model.get_input_embeddings().num_embeddings
    prompter = Prompter(tokenizer, index, num_tokens, num_users)
    _require_reach(language_model.config, prompter.longest(max_length), f"--base_model {tokenizer.name_or_path}")
    return OpenP5Recommender(backbone, index, prompter, max_length=max_length, softmax=softmax)


def _require_reach(config: PretrainedConfig, longest: int, named: str) -> None:
    """Raises InputError where a layer has a sliding window: a tree's nodes and packed rows attend to all that is before them."""
    windows = [attention_window(config, layer, longest) for layer in range(1, config.num_hidden_layers + 1)]
    shortest = min((window for window in windows if window), default=None)
    if shortest:
        raise InputError(
            f"{named}: looks back {shortest} tokens, and a prompt with its answer has up to {longest}; "
            "give a smaller --max_length"
        )


# -- on disk --------------------------------------------------------------------------------------------------------------------


def save_openp5(model: OpenP5Recommender, base_model: str, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    model.index.save(directory)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in _id_tokens(model).items()}, directory / ID_TOKENS)
    if isinstance(model.backbone, PeftModel):
        save_adapters(model.backbone, base_model, directory, "An Open-P5")
    else:
        model.language_model.save_pretrained(directory / BACKBONE)
        load_tokenizer(base_model).save_pretrained(directory / BACKBONE)
    write_json(directory / RECOMMENDER, {"base_model": described_base(base_model, directory)} | _architecture(model))


def _id_tokens(model: OpenP5Recommender) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {"id_vectors": model.id_vectors}
    return tensors if model.id_heads is None else tensors | {"id_heads": model.id_heads}


def _architecture(model: OpenP5Recommender) -> dict:
    """What two models must share to share weights, as JSON values."""
    return {
        "train_strategy": "lora" if isinstance(model.backbone, PeftModel) else "full",
        "num_layers": model.num_layers,
        "hidden_size": model.id_vectors.shape[1],
        "num_tokens": model.num_tokens,
        "symbols": list(model.index.symbols),
        "max_length": model.max_length,
        "softmax": model.softmax,
        "num_users": model.prompter.num_users,
    }


def restore_openp5(model: OpenP5Recommender, directory: Path) -> None:
    """Put the trained weights of a checkpoint into `model`. Raises InputError when its architecture is another one."""
    architecture, saved = _architecture(model), read_json(directory / RECOMMENDER)
    difference = first_difference({name: saved.get(name) for name in architecture}, architecture)
    if difference:
        raise InputError(f"{directory}: its {difference[0]} is {difference[1]}, that of the model {difference[2]}")
    _load_id_tokens(model, directory)
    if isinstance(model.backbone, PeftModel):
        model.backbone.load_adapter(directory, "default", is_trainable=True)
    else:
        trained = AutoModelForCausalLM.from_pretrained(directory / BACKBONE, **NO_REMOTE_CODE)
        model.language_model.load_state_dict(trained.state_dict())


def _load_id_tokens(model: OpenP5Recommender, directory: Path) -> None:
    saved, wanted = read_tensors(directory / ID_TOKENS), _id_tokens(model)
    shapes = {name: tensor.shape for name, tensor in wanted.items()}
    if {name: tensor.shape for name, tensor in saved.items()} != shapes:
        raise InputError(f"{directory / ID_TOKENS}: not the id tokens of this model")
    for name, tensor in wanted.items():
        tensor.data.copy_(saved[name])


def load_openp5(directory: str | Path, dtype: torch.dtype = torch.float32) -> OpenP5Recommender:
    """Load a trained model from its stage directory or from a checkpoint-N inside one, on the CPU."""
    directory = Path(directory)
    if not (directory / RECOMMENDER).is_file():
        raise InputError(f"{directory}: no Open-P5 here (it has no {RECOMMENDER})")
    saved, index = read_json(directory / RECOMMENDER), load_index(directory)
    if saved["train_strategy"] == "full":
        source = str(directory / BACKBONE)
        backbone = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, attn_implementation="sdpa", **NO_REMOTE_CODE)
    else:
        source = find_base(saved["base_model"], directory, tokenizer=True)
        backbone = PeftModel.from_pretrained(load_language_model(source, saved["num_layers"], dtype), directory)
    if list(index.symbols) != saved["symbols"]:
        raise InputError(f"{directory}: its item index is not the one that it was trained with")
    how = saved["max_length"], saved["softmax"], saved.get("num_users", 0)  # earlier versions did not count them
    model = _assembled(backbone, load_tokenizer(source), index, *how)
    _load_id_tokens(model, directory)
    return model
