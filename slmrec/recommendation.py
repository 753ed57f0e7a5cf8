"""Using a trained model: `slmrec.load(DIR)` gives recommendations for histories of source ids.

model = slmrec.load("runs/demo/slmrec_4_8")
for item in model.recommend(["B0008Y81WQ", "B000050B6U"], k=10):
    print(item.item, item.title, item.score)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import torch

from slmrec.catalogue import Catalogue, load_catalogue
from slmrec.checks import one_of
from slmrec.data.dataset import PAD
from slmrec.errors import InputError
from slmrec.open_model import load_recommender
from slmrec.ragged import indices
from slmrec.recommender import Recommender
from slmrec.runtime import pick_device
from slmrec.topk import best_items

if TYPE_CHECKING:  # polars imports it where a frame of it comes in or goes out, and nobody else waits for it
    import pandas as pd

BATCH = 512  # users that are scored at a time: their scores stay near the processor
UNKNOWN_USER = -1  # a history that belongs to no user of the training data
FRAME_COLUMNS = ("user", "rank", "item", "title", "score")

logger = logging.getLogger(__name__)


class Recommendation(NamedTuple):
    """One recommended item: its source id, its title ("" where it has none), and the model's score."""

    item: str
    title: str
    score: float


@dataclass(frozen=True)
class Query:
    """What is asked for one history; see `Model.recommend` for the fields."""

    history: Iterable[str]
    k: int = 10
    filter_viewed: bool = True
    exclude: Iterable[str] = ()
    only: Iterable[str] | None = None
    unknown: str = "skip"


@dataclass(frozen=True)
class Recommendations(Sequence):
    """The best items for one history, best first.

    Attributes:
        items: at most k of them; fewer where the catalogue has no more.
        unknown: ids of the history that the model does not know and that were skipped.
        by_popularity: nothing of the history was known, so these are the items that were bought most.
    """

    items: tuple[Recommendation, ...]
    unknown: tuple[str, ...] = ()
    by_popularity: bool = False

    def __getitem__(self, index):
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)


@dataclass
class Histories:
    """Histories of item numbers, back to back.

    Attributes:
        users: what each row is called in the result.
        items: int64 [T], 1..N; row r owns items[offsets[r]:offsets[r + 1]].
        offsets: int64 [B + 1].
        numbers: int64 [B], the user's number in the training data, or UNKNOWN_USER.
    """

    users: list[str]
    items: np.ndarray
    offsets: np.ndarray
    numbers: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __post_init__(self):
        if len(self.numbers) != len(self.users):
            self.numbers = np.full(len(self.users), UNKNOWN_USER, dtype=np.int64)

    def take(self, rows: Sequence[int]) -> Histories:
        """These rows, in this order."""
        chosen = np.asarray(rows, dtype=np.int64)
        lengths = np.diff(self.offsets)[chosen]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        flat = indices(self.offsets[chosen], lengths)
        return Histories([self.users[row] for row in chosen], self.items[flat], ends, self.numbers[chosen])


class Model:
    """A trained model with its catalogue, ready to recommend. `slmrec.load` makes one.

    Attributes:
        recommender: the network, in eval mode.
        catalogue: ids, titles and popularity of its items.
    """

    def __init__(self, recommender: Recommender, catalogue: Catalogue, device: torch.device):
        self.recommender, self.catalogue, self.device = recommender, catalogue, device

    # -- one history -------------------------------------------------------------------------------------------------------

    def recommend(
        self,
        history: Iterable[str],
        k: int = 10,
        *,
        filter_viewed: bool = True,
        exclude: Iterable[str] = (),
        only: Iterable[str] | None = None,
        unknown: str = "skip",
    ) -> Recommendations:
        """The k best items after a history of source ids, oldest first.

        Args:
            history: longer ones are cut to the latest items that the model reads; of an empty one, or one without a known
                item, the most popular items are returned, and `by_popularity` says so.
            filter_viewed: leave out all items of the history, also those that the model does not read.
            exclude, only: source ids that must not, or that alone may, be recommended.
            unknown: "skip" ids that the model does not know (a warning names them) or "refuse" them.

        Raises InputError for k below 1, and for unknown ids where they are refused.
        """
        return self.recommend_many([Query(history, k, filter_viewed, exclude, only, unknown)])[0]

    def recommend_many(self, queries: Sequence[Query]) -> list[Recommendations]:
        """The answers to several queries, whose histories go through the model as one batch; each equals `recommend`'s."""
        understood = [self._understood(query) for query in queries]
        lengths = [len(items) for items, _, _, _ in understood]
        histories = Histories(
            [""] * len(queries),
            np.asarray([item for items, _, _, _ in understood for item in items], dtype=np.int64),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        )
        rows, items = (torch.from_numpy(array).to(self.device) for array in _pairs([out for _, _, out, _ in understood]))
        only = {row: allowed for row, (_, _, _, allowed) in enumerate(understood) if allowed is not None}
        most = min(max(query.k for query in queries), len(self.catalogue))
        scores, best = self._best(histories, most, (rows, items), only=only)
        return [
            self._answer(scores[row, : query.k], best[row, : query.k], understood[row][1], not lengths[row])
            for row, query in enumerate(queries)
        ]

    def similar_items(self, item: str, k: int = 10) -> list[Recommendation]:
        """The k items whose vectors have the highest cosine with that of `item` (a source id), itself left out.

        Raises InputError for an unknown id, and for a model that only counts and has no item vectors.
        """
        _require_k(k)
        (number,), _ = self._numbers([item], "similar_items", "refuse")
        with torch.inference_mode():
            vectors = torch.nn.functional.normalize(self.recommender.item_matrix().float(), dim=1)  # [N + 1, d]
            scores = vectors[number : number + 1] @ vectors.T
            excluded = torch.tensor([0], device=scores.device), torch.tensor([number], device=scores.device)
            most = min(k, len(self.catalogue))
            values, items = best_items(lambda start, stop: scores[:, start:stop], 1, len(self.catalogue), most, excluded=excluded)
        return list(self._answer(values[0], items[0], [], False))

    # -- many histories -----------------------------------------------------------------------------------------------------

    def recommend_all(
        self, source: str | Path | pd.DataFrame | pl.DataFrame, k: int = 10, **options
    ) -> pd.DataFrame | pl.DataFrame:
        """The k best items of every user, as a frame with the columns user, rank (from 1), item, title, score.

        Args:
            source: a directory of the data stage (every user's whole sequence is read), or a frame with the columns user and
                item (source ids) in order of time, or with a column time to be sorted by.
            options: filter_viewed, exclude, only and batch_size, as in `recommend_batches`.

        Returns:
            A pandas frame; for a polars frame a polars frame.
        """
        frames = list(self.recommend_batches(self.histories(source), k, **options))
        table = pl.concat(frames) if frames else pl.DataFrame(schema=dict.fromkeys(FRAME_COLUMNS, pl.String))
        return table if isinstance(source, pl.DataFrame) else table.to_pandas()

    def histories(self, source: str | Path | pd.DataFrame | pl.DataFrame) -> Histories:
        """The histories of a data directory or of a frame, see `recommend_all`. Unknown items are skipped and counted."""
        if isinstance(source, (str, Path)):
            return self._stored_histories(Path(source))
        frame = source if isinstance(source, pl.DataFrame) else pl.from_pandas(source)
        missing = {"user", "item"} - set(frame.columns)
        if missing:
            raise InputError(
                f"the frame has no column {sorted(missing)[0]!r} (columns user and item are needed, time may be there)"
            )
        frame = frame.sort("time", maintain_order=True) if "time" in frame.columns else frame
        numbers = pl.DataFrame({"item": self.catalogue.source_ids, "number": np.arange(1, len(self.catalogue) + 1)})
        rows = frame.select(pl.col("user").cast(pl.String), pl.col("item").cast(pl.String))
        rows = rows.join(numbers, on="item", how="left", maintain_order="left")
        if unknown := rows["number"].null_count():
            named = ", ".join(rows.filter(pl.col("number").is_null())["item"].unique(maintain_order=True).head(3).to_list())
            logger.warning("%d actions on items that the model does not know are skipped (%s ...)", unknown, named)
        grouped = rows.group_by("user", maintain_order=True).agg(pl.col("number").drop_nulls())
        lengths = grouped["number"].list.len().to_numpy().astype(np.int64)
        items = grouped["number"].explode(empty_as_null=False).to_numpy().astype(np.int64)
        return Histories(grouped["user"].to_list(), items, np.concatenate([[0], np.cumsum(lengths)]))

    def recommend_batches(
        self,
        histories: Histories,
        k: int = 10,
        *,
        filter_viewed: bool = True,
        exclude: Iterable[str] = (),
        only: Iterable[str] | None = None,
        batch_size: int = BATCH,
    ) -> Iterator[pl.DataFrame]:
        """Frames of `batch_size` users each, in the order of the histories; only one is in memory at a time."""
        _require_k(k)
        k = min(k, len(self.catalogue))
        never, _ = self._numbers(exclude, "exclude", "skip")
        allowed = None if only is None else self._numbers(only, "only", "skip")[0]
        names = pl.Series([None, *self.catalogue.source_ids], dtype=pl.String)
        titles = pl.Series([None, *self.catalogue.titles], dtype=pl.String)
        for start in range(0, len(histories.users), batch_size):
            part = histories.take(range(start, min(start + batch_size, len(histories.users))))
            rows = len(part.users)
            viewed = np.repeat(np.arange(rows), np.diff(part.offsets)), part.items
            banned = np.repeat(np.arange(rows), len(never)), np.tile(np.asarray(never, dtype=np.int64), rows)
            pairs = [np.concatenate(both) for both in zip(viewed, banned)] if filter_viewed else banned
            of, items = (torch.from_numpy(one).to(self.device) for one in pairs)
            only_rows = None if allowed is None else dict.fromkeys(range(rows), allowed)
            scores, best = self._best(part, k, (of, items), only_rows)
            flat = best.cpu().numpy().ravel()
            columns = {
                "user": pl.Series(part.users, dtype=pl.String).gather(np.repeat(np.arange(rows), k)),
                "rank": np.tile(np.arange(1, k + 1), rows),
                "item": names.gather(flat),
                "title": titles.gather(flat),
                "score": scores.cpu().numpy().ravel(),
            }
            yield pl.DataFrame(columns).filter(pl.Series(flat != PAD))

    # -- inside ---------------------------------------------------------------------------------------------------------------

    def _stored_histories(self, directory: Path) -> Histories:
        from slmrec.data.dataset import load_dataset

        dataset = load_dataset(directory)
        users = pl.read_csv(directory / "users.csv", schema_overrides={"source_id": pl.String})["source_id"].to_list()
        theirs = pl.read_csv(directory / "items.csv", schema_overrides={"source_id": pl.String})["source_id"].to_list()
        if theirs != self.catalogue.source_ids:
            raise InputError(
                f"{directory}: its items are numbered otherwise than the model's; give a frame of source ids instead"
            )
        return Histories(users, dataset.items.astype(np.int64), dataset.offsets, np.arange(dataset.num_users))

    def _numbers(self, ids: Iterable[str], where: str, unknown: str) -> tuple[list[int], list[str]]:
        if isinstance(ids, str):
            raise InputError(f"{where}: a list of ids is needed, not one text")
        known, missing = self.catalogue.known([str(one) for one in ids])
        if missing and unknown == "refuse":
            raise InputError(f"{where}: the model does not know {', '.join(map(repr, missing[:5]))}{_more(missing, 5)}")
        if missing:
            logger.warning("%s: skipped, unknown to the model: %s%s", where, ", ".join(map(repr, missing[:5])), _more(missing, 5))
        return known, missing

    def _understood(self, query: Query) -> tuple[list[int], list[str], list[int], list[int] | None]:
        """Item numbers of a query's history, its unknown ids, the numbers that must not come back, and those that alone may."""
        one_of("unknown", query.unknown, ("skip", "refuse"))
        _require_k(query.k)
        items, missing = self._numbers(query.history, "the history", query.unknown)
        excluded, _ = self._numbers(query.exclude, "exclude", query.unknown)
        allowed = None if query.only is None else self._numbers(query.only, "only", query.unknown)[0]
        return items, missing, excluded + (items if query.filter_viewed else []), allowed

    def _answer(self, scores: torch.Tensor, items: torch.Tensor, unknown: list[str], by_popularity: bool) -> Recommendations:
        pairs = [(item, score) for item, score in zip(items.tolist(), scores.tolist()) if item != PAD]
        return Recommendations(tuple(self._named(*pair) for pair in pairs), tuple(unknown), by_popularity)

    def _named(self, item: int, score: float) -> Recommendation:
        return Recommendation(self.catalogue.source_ids[item - 1], self.catalogue.titles[item - 1], score)

    def _best(
        self,
        histories: Histories,
        k: int,
        excluded: tuple[torch.Tensor, torch.Tensor],
        only: dict[int, list[int]] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores float32 [B, k] and items int64 [B, k] of the histories; an empty one is answered by popularity.

        Args:
            excluded: (row int64 [E], item int64 [E]), what must not come back.
            only: row -> the items that alone may come back there.
        """
        rows, lengths = len(histories.users), np.diff(histories.offsets)
        read = np.flatnonzero(lengths > 0)
        if len(read) < rows:
            logger.warning("%d of %d histories hold no known item: answered by popularity", rows - len(read), rows)
        with torch.inference_mode():
            popularity = torch.from_numpy(np.concatenate([[0], self.catalogue.popularity]).astype(np.float32)).to(self.device)
            users = self._encode(histories, read)
            place = torch.full((rows,), -1, dtype=torch.int64, device=self.device)  # of each row among the users' vectors
            place[torch.from_numpy(read).to(self.device)] = torch.arange(len(read), device=self.device)

            def scores(start: int, stop: int) -> torch.Tensor:
                if len(read) == rows:
                    return self.recommender.score_block(users, start, stop)
                block = popularity[start:stop].repeat(rows, 1)
                if len(users):
                    block[place >= 0] = self.recommender.score_block(users, start, stop)
                return block

            values, items = best_items(scores, rows, len(self.catalogue), k, excluded=excluded)
            for row, allowed in (only or {}).items():
                out = set(excluded[1][excluded[0] == row].tolist())
                chosen = torch.tensor(sorted(set(allowed) - out), dtype=torch.int64, device=self.device)
                mine = users[place[row] : place[row] + 1] if place[row] >= 0 else None
                found = popularity[chosen] if mine is None else self.recommender.score(mine, chosen.unsqueeze(0))[0]
                values[row], items[row] = -math.inf, PAD
                order = found.sort(descending=True, stable=True).indices[:k]
                values[row, : len(order)], items[row, : len(order)] = found[order], chosen[order]
            return values, items

    def _encode(self, histories: Histories, rows: np.ndarray) -> torch.Tensor:
        """User vectors [len(rows), d] of histories that are not empty; of no rows there are none."""
        if not len(rows):
            return torch.empty(0, 0, device=self.device)
        ends = histories.offsets[1:][rows]
        lengths = np.minimum(ends - histories.offsets[:-1][rows], self.recommender.max_length)
        arrays = {
            "users": histories.numbers[rows],
            "history": histories.items[indices(ends - lengths, lengths)],
            "lengths": lengths,
        }
        with torch.inference_mode():
            return self.recommender.encode({name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()})


def load(directory: str | Path, device: str = "auto", precision: str = "fp32") -> Model:
    """Open the directory of any trained model of this repository (encoder, teacher or student) for use.

    Args:
        precision: "fp32", which is what `evaluate.py` ranks with, or for an E-LLMRec "bf16".

    Raises InputError when it is none.
    """
    one_of("precision", precision, ("fp32", "bf16"))
    chosen = pick_device(device)
    return Model(load_recommender(directory, chosen).answering(precision), load_catalogue(directory), chosen)


def _pairs(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Row and value of every entry, int64 [E] each."""
    lengths = [len(one) for one in lists]
    return np.repeat(np.arange(len(lists)), lengths), np.asarray([value for one in lists for value in one], dtype=np.int64)


def _require_k(k: int) -> None:
    if k < 1:
        raise InputError(f"k {k}: must be at least 1")


def _more(names: list[str], shown: int) -> str:
    return f" and {len(names) - shown} more" if len(names) > shown else ""
