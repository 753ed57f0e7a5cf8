"""What an Open-P5 costs a user: exact scores over the tree of ids, ten beams as OpenP5 has them, the paper's 1,000 candidates.

    python -m reproduce.analysis.generation --model runs/mine/openp5 --users 20 --slow_users 1

The paper ranks 1,000 candidates by generating them, one user at a time (Table 5: 4,942 hours). Tokens are those that go through
the decoder's layers, counted there. How far beam and exact scores differ: the share of the exact top ten that ten beams find.

Writes metrics.json into <model>/generation-<split>; seconds for all users are extrapolated and marked so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from slmrec.artifacts import Stage, require_same_item_map, stage_directory, stage_input
from slmrec.checks import at_least, each, one_of
from slmrec.command_line import parse_arguments
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import load_dataset
from slmrec.open_model import data_directory
from slmrec.openp5.beam import beam_search
from slmrec.openp5.directory import load_openp5
from slmrec.openp5.model import OpenP5Recommender
from slmrec.runtime import pick_device, run_main

BEAMS, CANDIDATES = 10, 1000  # OpenP5's own number; the paper's (Section 5.3)


@dataclass
class GenerationArguments:
    """Which model is timed, and on how many users."""

    model: str = field(metadata={"help": "directory of a finished Open-P5"})
    split: str = field(default="test", metadata={"help": "whose histories are read: valid or test"})
    users: int = field(default=20, metadata={"help": "evenly spaced over the data, for exact scores and ten beams"})
    slow_users: int = field(default=1, metadata={"help": "the first so many of them, for 1,000 beams"})
    output_dir: str | None = field(default=None, metadata={"help": "default: generation-<split> in the model's directory"})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "replace a directory that holds another run"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})

    def __post_init__(self):
        one_of("split", self.split, ("valid", "test"))
        each(at_least, self, "users slow_users", 1)


@contextmanager
def counted(model: OpenP5Recommender) -> Iterator[list[int]]:
    """A list that grows by the tokens of every pass through the decoder's layers."""
    counts: list[int] = []
    layer = model.language_model.base_model.layers[0]
    hook = layer.register_forward_pre_hook(lambda _, inputs: counts.append(inputs[0].shape[0] * inputs[0].shape[1]))
    try:
        yield counts
    finally:
        hook.remove()


def timed(model: OpenP5Recommender, users: int, work: Callable) -> tuple[dict, list]:
    """Seconds and tokens a user of work(0) ... work(users - 1), and what each gave."""
    with counted(model) as counts:
        started = time.perf_counter()
        results = [work(user) for user in range(users)]
        seconds = time.perf_counter() - started
    return {"users": users, "seconds_per_user": seconds / users, "tokens_per_user": sum(counts) / users}, results


def compare(model: OpenP5Recommender, rows: SplitRows, users: np.ndarray, slow_users: int, device: torch.device) -> dict:
    """What the three ways cost, and the mean overlap of ten beams with the exact top ten."""
    batch = {name: tensor.to(device) for name, tensor in rows.collate(users).items()}
    prompts = model.prompts(batch)
    most = min(CANDIDATES, len(model.index))
    with torch.inference_mode():
        model.encode(rows.collate(users[:1]))  # the first pass of a process makes room
    exact, (scores,) = timed(model, 1, lambda _: model.encode(batch))
    exact = {"users": len(users)} | {name: value / len(users) for name, value in exact.items() if name != "users"}
    best = (1 + scores[:, 1:].topk(min(BEAMS, len(model.index))).indices).tolist()
    beam, found = timed(model, len(users), lambda user: beam_search(model, prompts[user], min(BEAMS, len(model.index)))[0])
    slow, _ = timed(model, slow_users, lambda user: beam_search(model, prompts[user], most))
    overlaps = [len(set(ours) & set(theirs)) / len(ours) for ours, theirs in zip(best, found)]
    same_first = [ours[0] == theirs[0] for ours, theirs in zip(best, found) if theirs]
    ways = {"exact scores": exact, f"{BEAMS} beams": beam, f"{most} beams": slow}
    for way in ways.values():
        way["hours_for_all_users_extrapolated"] = way["seconds_per_user"] * len(rows) / 3600
    return {"ways": ways, "overlap_at_10": float(np.mean(overlaps)), "same_first": float(np.mean(same_first))}


def main(argv: list[str] | None = None) -> None:
    (args,) = parse_arguments(GenerationArguments, argv, description=__doc__)
    data = data_directory(args.model)
    require_same_item_map(stage_directory(args.model), data)
    dataset, device = load_dataset(data), pick_device(args.device)
    stage = Stage(
        "generation",
        args.output_dir or stage_directory(args.model) / f"generation-{args.split}",
        {"split": args.split, "users": args.users, "slow_users": args.slow_users},
        {"data": stage_input(data, "data"), "model": stage_input(stage_directory(args.model), "openp5")},
        overwrite=args.overwrite_output_dir,
        item_map=dataset.item_map,
    )
    if stage.up_to_date:
        return
    with stage:
        model = load_openp5(args.model).to(device).eval()
        rows = SplitRows(dataset, args.split, model.max_length)
        users = np.unique(np.linspace(0, len(rows) - 1, min(args.users, len(rows))).astype(np.int64))
        with torch.no_grad():
            found = compare(model, rows, users, min(args.slow_users, len(users)), device)
        stage.device, stage.metrics = str(device), found | {"items": dataset.num_items, "all_users": len(rows)}
        stage.result = f"ten beams find {found['overlap_at_10']:.1%} of the exact top ten"
    for name, way in found["ways"].items():
        hours = way["hours_for_all_users_extrapolated"]
        per_user = f"{way['seconds_per_user']:.3f} s and {way['tokens_per_user']:,.0f} tokens a user"
        print(f"{name:<13} {per_user}, {hours:.2f} hours for all users (extrapolated from {way['users']})")


if __name__ == "__main__":
    run_main(main)
