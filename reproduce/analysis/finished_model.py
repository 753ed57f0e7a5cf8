"""What the analyses share: a finished E-LLMRec, the data it was trained on, and a stage directory for what is found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from slmrec.artifacts import Stage, require_same_item_map, stage_directory, stage_input
from slmrec.checks import at_least, one_of
from slmrec.data.dataset import SequenceDataset, load_dataset
from slmrec.errors import InputError
from slmrec.llm.backbone import plain_backbone
from slmrec.llm.ellmrec import EllmRecommender
from slmrec.llm.model_directory import model_input
from slmrec.open_model import data_directory

ELLMREC_STAGES = ("finetune", "distill")


@dataclass
class AnalysisArguments:
    """Which model is looked at, and on which histories."""

    model: str = field(metadata={"help": "directory of a finished teacher or student, or a checkpoint-N inside one"})
    split: str = field(default="test", metadata={"help": "whose histories are read: valid or test"})
    data: str | None = field(
        default=None, metadata={"help": "directory of the data stage; default: the one that the model was trained on"}
    )
    output_dir: str | None = field(default=None, metadata={"help": "default: <analysis>-<split> in the model's directory"})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "replace a directory that holds another run"})
    eval_batch_size: int = field(default=512, metadata={"help": "users per batch; it has no influence on the result"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})

    def __post_init__(self):
        one_of("split", self.split, ("valid", "test"))
        at_least("eval_batch_size", self.eval_batch_size, 1)


def open_analysis(name: str, args: AnalysisArguments, config: dict, seed: int | None = None) -> tuple[Stage, SequenceDataset]:
    """The stage directory of one analysis, and the data that it reads; `config` is what determines the result beside the split.

    Raises InputError when the model is no E-LLMRec, is not finished, or numbers the items of the data differently.
    """
    model = model_input(args.model, ELLMREC_STAGES)
    data = args.data or data_directory(args.model)
    require_same_item_map(stage_directory(args.model), data)
    dataset = load_dataset(data)
    stage = Stage(
        name,
        args.output_dir or Path(args.model) / f"{name}-{args.split}",
        {"split": args.split} | config,
        {"data": stage_input(data, "data"), "model": model},
        overwrite=args.overwrite_output_dir,
        item_map=dataset.item_map,
        seed=seed,
    )
    return stage, dataset


def final_norm(model: EllmRecommender) -> nn.Module:
    """The norm behind the decoder's last layer. Raises InputError for a decoder that has none under LLaMA's name."""
    decoder = plain_backbone(model.backbone)
    if not hasattr(decoder, "norm"):
        raise InputError(f"a {decoder.config.model_type} decoder has no final norm where LLaMA has it")
    return decoder.norm
