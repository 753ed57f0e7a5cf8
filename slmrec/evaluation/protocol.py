"""Leave-one-out evaluation of any Recommender: the rank of each user's target among candidates, or among all items.

rank = 1 + number of rivals that score at least as high as the target, so a tie counts against the target and a model that
scores everything alike gets the last place, not the first. A user who has touched every item has no rival and no rank (0 stands
for it): such users are counted and left out of the metrics. Scores that are not finite stop the run.

Shapes: U users in all, B in a batch, d the width of the vectors, C candidates, N items.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from slmrec import processes
from slmrec.accelerate_configuration import sharding
from slmrec.data.batches import SplitRows
from slmrec.data.candidates import candidates_digest, draw_candidates, row_digests
from slmrec.data.dataset import PAD, SequenceDataset
from slmrec.errors import InputError
from slmrec.evaluation.metrics import UNDEFINED, summarise
from slmrec.progress import Counter, in_pipeline
from slmrec.ragged import row_numbers
from slmrec.recommender import Recommender

MIN_ACTIONS = 3  # one to read, one target for validation, one for test
SCORE_FLOATS = 2**24  # floats that scoring may hold at once (64 MiB); batches are cut into pieces that keep to it
FEWEST_USERS = 16  # that are scored at once: a catalogue for which SCORE_FLOATS would allow fewer is cut into blocks of items

logger = logging.getLogger(__name__)


class NotFiniteError(InputError):
    """A model's vectors or scores hold NaN or infinity."""


@dataclass
class Evaluation:
    """The outcome of `evaluate_recommender`.

    Attributes:
        metrics: {"sampled": {...}, "full": {...}}, as far as asked for; fractions, ready for metrics.json.
        ranks: the same keys, int32 [U] in the order of the data set's users; 0 where there is no rival, or who is not ranked.
        seconds: wall time of "encode", "candidates" (drawing them) and "score".
    """

    metrics: dict[str, dict]
    ranks: dict[str, np.ndarray]
    seconds: dict[str, float]


def evaluate_recommender(
    model: Recommender,
    dataset: SequenceDataset,
    split: str,
    *,
    seed: int = 0,
    num_candidates: int = 999,
    sampled: bool = True,
    full_ranking: bool = False,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    progress: bool = True,
    score_floats: int | None = None,
    users: np.ndarray | None = None,
) -> Evaluation:
    """Rank every user's target of a split.

    Several processes share the batches, each of which is what it would be in one process, and all have the whole outcome.

    Args:
        model: stands on `device` already; its training flags are as before afterwards.
        split: "valid" or "test".
        seed: of the candidates, not of the model.
        sampled: rank among `num_candidates` items that the user never touched.
        full_ranking: rank among all items, those masked that the user touched before the target.
        score_floats: how many floats scoring may hold at once; default SCORE_FLOATS.
        users: int64, those whose targets are ranked, each against the candidates that it always has; default: all.

    Raises InputError when a user has too few actions, and NotFiniteError when the model's vectors or scores are not finite.
    """
    if not sampled and not full_ranking:
        raise ValueError("nothing to do: neither sampled nor full ranking is asked for")
    rows = _split_rows(dataset, split, model.max_length, users)
    seconds = {"encode": 0.0, "candidates": 0.0, "score": 0.0}
    rankings: dict[str, _SampledRanking | _FullRanking] = {}
    floats = score_floats or SCORE_FLOATS
    if sampled:
        rankings["sampled"] = _SampledRanking(dataset, split, seed, num_candidates, seconds, floats)
    if full_ranking:
        rankings["full"] = _FullRanking(dataset, split, seconds, floats)
    order = np.argsort(-rows.lengths, kind="stable")  # like lengths together: little padding; the longest show their memory first
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    own = batches[processes.rank() :: processes.number()]
    counter = Counter(f"ranking {split}", sum(map(len, own)), unit="users", shown=progress)
    with _evaluating(model), torch.inference_mode(), counter:
        for chosen in own:
            batch = rows.collate(chosen)
            ranked = batch["users"].numpy()
            with _timed(seconds, "encode"):
                on_device = {name: tensor.to(device) for name, tensor in batch.items()}
                vectors = model.encode(on_device)  # [B, d]
                _require_finite(vectors, ranked, "user vector")
            for ranking in rankings.values():
                ranking.add(model, ranked, vectors, on_device["targets"])
            counter.update(len(ranked))
        if sharding() and len(own) < len(batches[:: processes.number()]):
            model.encode({name: tensor.to(device) for name, tensor in rows.collate(batches[0]).items()})  # all compute together
    for ranking in rankings.values():
        ranking.gather()
    metrics = {name: ranking.metrics(rows.users) for name, ranking in rankings.items()}
    return Evaluation(metrics, {name: ranking.ranks for name, ranking in rankings.items()}, seconds)


class _SampledRanking:
    """Ranks among candidates, as the batches come in."""

    def __init__(
        self, dataset: SequenceDataset, split: str, seed: int, num_candidates: int, seconds: dict[str, float], floats: int
    ):
        self.dataset, self.split, self.seed, self.num_candidates = dataset, split, seed, num_candidates
        self.seconds, self.floats = seconds, floats
        self.ranks = np.zeros(dataset.num_users, dtype=np.int32)
        self.counts = np.zeros(dataset.num_users, dtype=np.int32)  # candidates without PAD
        self.digests = np.zeros((dataset.num_users, 32), dtype=np.uint8)

    def add(self, model: Recommender, users: np.ndarray, vectors: torch.Tensor, targets: torch.Tensor) -> None:
        for piece in _pieces(len(users), self.num_candidates, self.floats):
            self._add_piece(model, users[piece], vectors[piece], targets[piece])

    def _add_piece(self, model: Recommender, users: np.ndarray, vectors: torch.Tensor, targets: torch.Tensor) -> None:
        with _timed(self.seconds, "candidates"):
            candidates = draw_candidates(
                self.seed,
                self.split,
                users,
                *self.dataset.sequences_until(users, self.dataset.offsets[users + 1]),
                self.dataset.num_items,
                self.num_candidates,
            )
            self.counts[users] = (candidates != PAD).sum(axis=1)
            self.digests[users] = row_digests(candidates)
        row_floats = max(
            self.num_candidates * vectors.shape[1], model.floats_per_row(self.num_candidates + 1, self.dataset.num_items + 1)
        )
        with _timed(self.seconds, "score"):
            rivals = torch.from_numpy(candidates).to(vectors.device, torch.int64)
            for piece in _pieces(len(users), row_floats, self.floats):
                self.ranks[users[piece]] = _sampled_ranks(model, users[piece], vectors[piece], targets[piece], rivals[piece])
            self.ranks[users[self.counts[users] == 0]] = UNDEFINED

    def gather(self) -> None:
        """What the other processes found; each user is in one of them, and 0 in the others."""
        self.ranks, self.counts = processes.summed(self.ranks), processes.summed(self.counts)
        self.digests = processes.summed(self.digests)

    def metrics(self, users: np.ndarray) -> dict:
        fewest = int(self.counts[self.counts > 0].min(initial=self.num_candidates))
        small = fewest < self.num_candidates
        if small and not in_pipeline():  # there the table at the end says it, once
            _warn_small_catalogue(self.dataset.num_items, self.num_candidates, fewest)
        return _summary(self.ranks[users]) | {
            "candidates": fewest,  # of the user with the fewest, where the catalogue is small; else everybody's number
            "small_catalogue": small,
            "candidates_digest": candidates_digest(self.digests[users]),
            "seed": self.seed,
        }


class _FullRanking:
    """Ranks among all items, as the batches come in."""

    def __init__(self, dataset: SequenceDataset, split: str, seconds: dict[str, float], floats: int):
        self.dataset, self.seconds, self.floats = dataset, seconds, floats
        self.until = dataset.target_positions(split) + 1
        self.ranks = np.zeros(dataset.num_users, dtype=np.int32)

    def add(self, model: Recommender, users: np.ndarray, vectors: torch.Tensor, targets: torch.Tensor) -> None:
        num_scores = self.dataset.num_items + 1  # with PAD's
        width = num_scores if FEWEST_USERS * num_scores <= self.floats else max(1, self.floats // max(FEWEST_USERS, len(users)))
        with _timed(self.seconds, "score"):
            for piece in _pieces(len(users), width, self.floats):
                seen = self.dataset.sequences_until(users[piece], self.until[users[piece]])
                ranked = users[piece], vectors[piece], targets[piece], *seen
                self.ranks[users[piece]] = _full_ranks(model, *ranked, num_scores, width)

    def gather(self) -> None:
        self.ranks = processes.summed(self.ranks)

    def metrics(self, users: np.ndarray) -> dict:
        return _summary(self.ranks[users]) | {"items": self.dataset.num_items}


def _sampled_ranks(
    model: Recommender, users: np.ndarray, vectors: torch.Tensor, targets: torch.Tensor, rivals: torch.Tensor
) -> np.ndarray:
    """Ranks [B] of targets [B] among rivals int64 [B, C], in which PAD stands for nobody."""
    scores = model.score(vectors, torch.cat([targets.unsqueeze(1), rivals], dim=1))  # [B, 1 + C]
    scores[:, 1:].masked_fill_(rivals == PAD, 0.0)  # whatever the model gives PAD is not a score
    _require_finite(scores, users, "score")
    ahead = (scores[:, 1:] >= scores[:, :1]) & (rivals != PAD)
    return 1 + ahead.sum(dim=1, dtype=torch.int32).cpu().numpy()


def _full_ranks(
    model: Recommender,
    users: np.ndarray,
    vectors: torch.Tensor,
    targets: torch.Tensor,
    seen: np.ndarray,
    lengths: np.ndarray,
    num_scores: int,
    width: int,
) -> np.ndarray:
    """Ranks [B] of targets [B] among all items but those seen (back to back [T], lengths [B]; each user's target is the last).

    The scores of `width` items exist at a time. Where that is not all, those of the targets' blocks are computed twice, so that a
    target and an item with the same vector have the same score.
    """
    blocks = [(start, min(start + width, num_scores)) for start in range(0, num_scores, width)]
    whole = model.score_all(vectors) if len(blocks) == 1 else None
    scores_of = lambda *block: model.score_block(vectors, *block) if whole is None else whole
    positives = vectors.new_zeros(len(users))
    for start, stop in blocks:
        here = ((targets >= start) & (targets < stop)).nonzero().squeeze(1)
        if len(here):
            positives[here] = scores_of(start, stop)[here, targets[here] - start]
    row = torch.from_numpy(row_numbers(lengths)).to(vectors.device)
    touched = torch.from_numpy(seen).to(vectors.device, torch.int64)
    ahead, rivals = torch.zeros_like(targets), torch.zeros_like(targets, dtype=torch.bool)
    for start, stop in blocks:
        scores = scores_of(start, stop)  # [B, stop - start]
        if start == PAD:
            scores[:, PAD] = 0.0
        _require_finite(scores, users, "score")
        here = (touched >= start) & (touched < stop)
        scores[row[here], touched[here] - start] = -math.inf
        if start == PAD:
            scores[:, PAD] = -math.inf
        ahead += (scores >= positives.unsqueeze(1)).sum(dim=1)
        rivals |= (scores > -math.inf).any(dim=1)
    return torch.where(rivals, 1 + ahead, UNDEFINED).to(torch.int32).cpu().numpy()


def _summary(ranks: np.ndarray) -> dict:
    if not (ranks > UNDEFINED).any():
        raise InputError("every user has touched every item of the catalogue: there is nothing to rank a target against")
    return summarise(ranks)


def _split_rows(dataset: SequenceDataset, split: str, max_length: int, users: np.ndarray | None) -> SplitRows:
    """The rows of a split, one for each user."""
    if split not in ("valid", "test"):
        raise ValueError(f"split {split!r}: valid and test have targets to rank")
    if not dataset.num_users:
        raise InputError("the data set has no users to evaluate")
    short = np.flatnonzero(dataset.lengths < MIN_ACTIONS)
    if len(short):
        raise InputError(
            f"user {short[0]} has {dataset.lengths[short[0]]} actions where {MIN_ACTIONS} are needed "
            f"({len(short)} such users); process the data again with a k-core of at least {MIN_ACTIONS}"
        )
    return SplitRows(dataset, split, max_length, chosen=users)


def _require_finite(values: torch.Tensor, users: np.ndarray, what: str) -> None:
    """Raise NotFiniteError that names the first user whose row of values [B, ...] holds a NaN or an infinity."""
    if all(math.isfinite(extreme) for extreme in values.aminmax()):  # one pass and no copy; NaN goes through to both
        return
    row = int((~values.isfinite()).any(dim=1).nonzero()[0])
    raise NotFiniteError(f"user {users[row]}: the model gives a {what} that is not finite (NaN or infinity); nothing was ranked")


@contextlib.contextmanager
def _evaluating(model: Recommender) -> Iterator[None]:
    """Evaluation mode inside; afterwards every part is in the mode it had (a frozen part stays as it was)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the wall time of the body to seconds[name]; each body ends by reading a result, so queued kernels are in it."""
    started = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - started


def _pieces(num_rows: int, row_floats: int, floats: int) -> Iterator[slice]:
    """Slices of num_rows rows, each within so many floats (but at least one row)."""
    size = max(1, floats // row_floats)
    return (slice(start, start + size) for start in range(0, num_rows, size))


@functools.cache  # once per run, not once per epoch
def _warn_small_catalogue(num_items: int, num_candidates: int, fewest: int) -> None:
    logger.warning(
        "the catalogue has %d items, so users have as few as %d candidates where %d are asked for; "
        "targets are ranked against all there are, and the metrics are easier to reach than the paper's",
        num_items,
        fewest,
        num_candidates,
    )
