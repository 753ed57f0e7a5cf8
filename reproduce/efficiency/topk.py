"""Exact top-k of inner products: the blocked product of `slmrec.topk` against faiss's IndexFlatIP (pip install faiss-cpu).

    python -m reproduce.efficiency.topk --num_items 12000 1000000 10000000 --json results/efficiency/topk.json

Both leave out what a user has viewed: the blocked product masks it, faiss is asked for as many items more and drops them after.
The sides take turns, so ratios hold on a busy machine too. `equal` compares both with a full stable sort.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch

from reproduce.efficiency.environment import environment
from reproduce.efficiency.timing import ProcessorShare, in_turn, median_ratio
from slmrec.artifacts import write_json
from slmrec.checks import at_least
from slmrec.command_line import parse_arguments
from slmrec.errors import InputError
from slmrec.runtime import run_main
from slmrec.topk import best_items

VIEWED = 9  # items of a history


@dataclass
class TopKArguments:
    """Sizes."""

    num_items: list[int] = field(default_factory=lambda: [12_000, 1_000_000], metadata={"help": "of the catalogues"})
    num_users: list[int] = field(default_factory=lambda: [1, 64], metadata={"help": "that are answered together"})
    width: int = field(default=64, metadata={"help": "of the vectors"})
    k: int = field(default=10, metadata={"help": "items for each user"})
    repeats: int = field(default=3, metadata={"help": "timed turns; medians are reported"})
    seed: int = field(default=0, metadata={"help": "of the random vectors"})
    json: str | None = field(default=None, metadata={"help": "file of the result"})

    def __post_init__(self):
        for name in ("width", "k", "repeats"):
            at_least(name, getattr(self, name), 1)


def blocked(items: torch.Tensor, users: torch.Tensor, viewed: torch.Tensor, k: int) -> torch.Tensor:
    """Items int64 [B, k] of users [B, d] among items [N + 1, d], without those viewed int64 [B, V]."""
    rows = torch.arange(len(users)).repeat_interleave(viewed.shape[1])
    excluded = rows, viewed.flatten()
    return best_items(lambda start, stop: users @ items[start:stop].T, len(users), len(items) - 1, k, excluded=excluded)[1]


def by_faiss(index, users: torch.Tensor, viewed: torch.Tensor, k: int) -> torch.Tensor:
    """The same from an index that holds items 1..N."""
    _, found = index.search(users.numpy(), k + viewed.shape[1])
    items = torch.from_numpy(found) + 1
    seen = (items.unsqueeze(2) == viewed.unsqueeze(1)).any(dim=2)
    order = seen.to(torch.int8).sort(dim=1, stable=True).indices  # those that were not viewed first, as they came
    return items.gather(1, order)[:, :k]


def by_sorting(items: torch.Tensor, users: torch.Tensor, viewed: torch.Tensor, k: int) -> torch.Tensor:
    """The plain definition, a user at a time."""
    rows = []
    for user, seen in zip(users, viewed):
        scores = items @ user
        scores[0] = scores[seen] = -torch.inf
        rows.append(scores.sort(descending=True, stable=True).indices[:k])
    return torch.stack(rows)


def compare(args: TopKArguments, num_items: int) -> list[dict]:
    """Both sides on one catalogue, for each number of users."""
    try:
        import faiss
    except ModuleNotFoundError:
        raise InputError("faiss is not installed: pip install faiss-cpu") from None
    faiss.omp_set_num_threads(torch.get_num_threads())
    random = torch.Generator().manual_seed(args.seed)
    items = torch.randn(num_items + 1, args.width, generator=random)
    index = faiss.IndexFlatIP(args.width)
    index.add(items[1:].numpy())
    found = []
    for number in args.num_users:
        users = torch.randn(number, args.width, generator=random)
        viewed = torch.randint(1, num_items + 1, (number, VIEWED), generator=random)
        sides = {
            "blocked": lambda _, u=users, v=viewed: blocked(items, u, v, args.k),
            "faiss": lambda _, u=users, v=viewed: by_faiss(index, u, v, args.k),
        }
        seconds = in_turn(sides, args.repeats, torch.device("cpu"), f"{num_items} items, {number} users")
        before = psutil.Process().memory_info().rss
        answers = {name: side(0) for name, side in sides.items()}
        few = min(number, 8)
        plain = by_sorting(items, users[:few], viewed[:few], args.k)
        found.append(
            {
                "items": num_items,
                "users": number,
                "seconds": {name: float(np.median(times)) for name, times in seconds.items()},
                "faiss_over_blocked": median_ratio(seconds["faiss"], seconds["blocked"]),
                "equal_to_sorting": {name: bool(torch.equal(answer[:few], plain)) for name, answer in answers.items()},
                "equal_to_each_other": float((answers["blocked"] == answers["faiss"]).float().mean()),
                "item_table_mib": round(items.nbytes / 2**20, 1),
                "resident_mib": round(before / 2**20, 1),
            }
        )
    return found


def main(argv: list[str] | None = None) -> None:
    (args,) = parse_arguments(TopKArguments, argv, description=__doc__)
    share = ProcessorShare()
    result = {"sizes": [entry for number in args.num_items for entry in compare(args, number)], "processor_share": share()}
    result |= {"width": args.width, "k": args.k, "viewed": VIEWED}
    result["environment"] = environment("reproduce.efficiency.topk", argv, torch.device("cpu"))
    for entry in result["sizes"]:
        print(
            f"{entry['items']:>11,} items, {entry['users']:>3} users: faiss takes {entry['faiss_over_blocked']:.2f} times as long"
        )
    if args.json:
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(args.json), result)


if __name__ == "__main__":
    run_main(main)
