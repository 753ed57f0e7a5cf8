"""Write a small randomly initialised LLaMA as a real Hugging Face checkpoint directory.

    python -m slmrec.llm.make_backbone --output_dir runs/demo/backbone --hidden_size 128 --num_layers 8

    python -m slmrec.llm.make_backbone --output_dir runs/demo/backbone_smollm2 --like smollm2-135m --num_layers 8

The second is the control for a pretrained base model: its shape and tokenizer, random weights.
It is loaded by exactly the code that loads a pretrained one; only names and sizes differ.
"""

from __future__ import annotations

from dataclasses import asdict

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModel, LlamaConfig, PretrainedConfig, PreTrainedTokenizerFast

from slmrec.arguments import OutputArguments
from slmrec.artifacts import Stage
from slmrec.checkpoint_directory import opening
from slmrec.command_line import parse_arguments
from slmrec.llm.arguments import BackboneArguments
from slmrec.llm.backbone import NO_REMOTE_CODE, backbone_input, shallow_config
from slmrec.llm.base_model import local_base_model
from slmrec.llm.prompt import AFTER_ITEMS, BEFORE_ITEMS, load_tokenizer
from slmrec.runtime import run_main, seed_everything

# With this many entries the prompt is 62 + 7 tokens long, as with LLaMA's own tokenizer, so that rows have the published shape.
VOCABULARY = 170


def train_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer that knows the prompt's words and nothing else."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    punctuation = pre_tokenizers.Split(Regex(r"##|[\n:,.']"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="first"), punctuation])
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([BEFORE_ITEMS, AFTER_ITEMS], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def small_llama_config(arguments: BackboneArguments) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=arguments.hidden_size,
        intermediate_size=arguments.intermediate_size,
        num_hidden_layers=arguments.num_layers,
        num_attention_heads=arguments.num_heads,
        max_position_embeddings=2048,
        initializer_range=arguments.initializer_range,
        attention_dropout=arguments.attention_dropout,
    )


def config_like(base_model: str, arguments: BackboneArguments) -> PretrainedConfig:
    """The shape of a base model, cut to --num_layers."""
    config = shallow_config(base_model, arguments.num_layers)
    config.initializer_range, config.attention_dropout = arguments.initializer_range, arguments.attention_dropout
    return config


def main(argv: list[str] | None = None) -> None:
    arguments, output = parse_arguments((BackboneArguments, OutputArguments), argv, description=__doc__)
    base = local_base_model(arguments.like, arguments.models_dir, "--like") if arguments.like else None
    config = asdict(arguments)
    del config["models_dir"]  # a place
    inputs = {"like": backbone_input(base, flag="--like")} if base else {}
    stage = Stage("backbone", output.output_dir, config, inputs, overwrite=output.overwrite_output_dir, seed=arguments.seed)
    if stage.up_to_date:
        return
    with stage:
        seed_everything(arguments.seed)
        shape = small_llama_config(arguments) if base is None else config_like(base, arguments)
        with opening(arguments.like or "a random LLaMA", "--like", "no model can be made by its config.json"):
            model = AutoModel.from_config(shape, dtype=torch.float32, **NO_REMOTE_CODE)
        model.save_pretrained(stage.path)
        (train_tokenizer() if base is None else load_tokenizer(base)).save_pretrained(stage.path)
        size = f"{arguments.num_layers} layers of width {shape.hidden_size}, {model.num_parameters():,} parameters"
        stage.result = f"a random LLaMA: {size}"


if __name__ == "__main__":
    run_main(main)
