"""What an E-LLMRec's maps know before any training: validation MRR of an untrained model, by how they start.

    python -m reproduce.analysis.starts --data runs/mine/data --embeddings runs/mine/embeddings --base_model smollm2-135m

No model is trained; the first --users users are ranked among 1 + 999 candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from reproduce.efficiency.environment import environment
from slmrec.artifacts import stage_input, write_json
from slmrec.checks import at_least, each
from slmrec.command_line import parse_arguments
from slmrec.data.dataset import SequenceDataset, load_dataset
from slmrec.embeddings import load_item_embeddings
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.llm.arguments import EllmArguments
from slmrec.llm.backbone import backbone_input
from slmrec.llm.base_model import local_base_model
from slmrec.llm.model_directory import new_recommender
from slmrec.runtime import run_main, seed_everything

STARTS = (("random", None), ("passing", 1.0), ("passing", 3.0), ("passing", 10.0), ("passing", 30.0), ("passing", 100.0))


@dataclass
class StartArguments:
    """Which untrained models are ranked, on whom."""

    data: str = field(metadata={"help": "directory of the data stage"})
    embeddings: str = field(metadata={"help": "directory of item embeddings of the same data"})
    base_model: str = field(metadata={"help": "as finetune.py's"})
    models_dir: str = field(default="models", metadata={"help": "where known base models are kept"})
    num_layers: int = field(default=4, metadata={"help": "first decoder layers that are kept"})
    users: int = field(default=1500, metadata={"help": "the first so many users are ranked"})
    seed: int = field(default=0, metadata={"help": "of the maps"})
    json: str | None = field(default=None, metadata={"help": "file of the result"})

    def __post_init__(self):
        each(at_least, self, "num_layers users", 1)


def first_users(dataset: SequenceDataset, number: int) -> SequenceDataset:
    offsets = dataset.offsets[: number + 1]
    return SequenceDataset(dataset.items[: offsets[-1]], offsets, dataset.num_items)


def untrained_mrr(arguments: StartArguments, base_model: str, start: str, ratio: float | None) -> float:
    """Validation MRR among 1 + 999 of a model as it starts."""
    seed_everything(arguments.seed)
    changes = {} if ratio is None else {"start_ratio": ratio}
    built = EllmArguments(
        base_model, num_layers=arguments.num_layers, train_strategy="lora", targets="all", start=start, **changes
    )
    model = new_recommender(built, load_item_embeddings(arguments.embeddings), seed=arguments.seed).eval()
    dataset = first_users(load_dataset(arguments.data), arguments.users)
    return evaluate_recommender(model, dataset, "valid", progress=False).metrics["sampled"]["MRR"]


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments(StartArguments, argv, description=__doc__)
    base_model = local_base_model(arguments.base_model, arguments.models_dir)
    found = []
    for start, ratio in STARTS:
        with torch.inference_mode():
            mrr = untrained_mrr(arguments, base_model, start, ratio)
        print(f"{start:<8} {'' if ratio is None else f'{ratio:g}':>4}  validation MRR {100 * mrr:.2f}", flush=True)
        found.append({"start": start, "start_ratio": ratio, "valid_MRR": float(np.round(mrr, 6))})
    if arguments.json:
        inputs = {
            "data": stage_input(arguments.data, "data")["digest"],
            "embeddings": stage_input(arguments.embeddings)["digest"],
        }
        size = {"num_layers": arguments.num_layers, "users": arguments.users, "seed": arguments.seed}
        described = {"base_model": backbone_input(base_model), "inputs": inputs}
        machine = environment("reproduce.analysis.starts", argv, torch.device("cpu"))
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(arguments.json), {"starts": found} | size | described | {"environment": machine})


if __name__ == "__main__":
    run_main(main)
