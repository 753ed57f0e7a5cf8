"""Write a small randomly initialised LLaMA as a real Hugging Face checkpoint directory.

    python -m slmrec.llm.make_backbone --output_dir runs/demo/backbone --hidden_size 128 --num_layers 8

It is loaded by exactly the code that loads a pretrained one; only names and sizes differ.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import HfArgumentParser, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from slmrec.arguments import OutputArguments
from slmrec.artifacts import Stage
from slmrec.checks import share_below_one
from slmrec.errors import InputError
from slmrec.llm.prompt import AFTER_ITEMS, BEFORE_ITEMS
from slmrec.runtime import run_main, seed_everything


@dataclass
class BackboneArguments:
    """Size of a randomly initialised LLaMA."""

    hidden_size: int = field(default=128, metadata={"help": "width of the decoder (paper: 4096)"})
    intermediate_size: int | None = field(default=None, metadata={"help": "width of its MLP; default: 2.6875 times, as LLaMA-7B"})
    num_layers: int = field(default=8, metadata={"help": "decoder layers (paper: 32)"})
    num_heads: int = field(default=4, metadata={"help": "attention heads (paper: 32)"})
    initializer_range: float = field(default=0.02, metadata={"help": "standard deviation of the weights (LLaMA: 0.02)"})
    attention_dropout: float = field(default=0.0, metadata={"help": "of attention weights when it is trained (LLaMA: 0)"})
    seed: int = field(default=0, metadata={"help": "of the random weights"})

    def __post_init__(self):
        if self.hidden_size % (2 * self.num_heads):
            raise InputError(
                f"--hidden_size {self.hidden_size}: rotary heads need an even share for each of {self.num_heads} heads"
            )
        share_below_one("attention_dropout", self.attention_dropout)
        if self.initializer_range <= 0:
            raise InputError(f"--initializer_range {self.initializer_range}: must be above 0")
        if self.intermediate_size is None:
            self.intermediate_size = self.hidden_size * 43 // 16


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


def main(argv: list[str] | None = None) -> None:
    arguments, output = HfArgumentParser((BackboneArguments, OutputArguments)).parse_args_into_dataclasses(argv)
    stage = Stage(
        "backbone", output.output_dir, asdict(arguments), {}, overwrite=output.overwrite_output_dir, seed=arguments.seed
    )
    if stage.up_to_date:
        return
    with stage:
        seed_everything(arguments.seed)
        model = LlamaModel(small_llama_config(arguments))
        model.save_pretrained(stage.path)
        train_tokenizer().save_pretrained(stage.path)
        size = f"{arguments.num_layers} layers of width {arguments.hidden_size}, {model.num_parameters():,} parameters"
        stage.result = f"a random LLaMA: {size}"


if __name__ == "__main__":
    run_main(main)
