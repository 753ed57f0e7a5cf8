"""Using a trained model: `slmrec.load(DIR)` gives recommendations for histories of source ids.

model = slmrec.load("runs/demo/slmrec_4_8")
for item in model.recommend(["B0008Y81WQ", "B000050B6U"], k=10):
    print(item.item, item.title, item.score)
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import torch

from slmrec.catalogue import Catalogue, load_catalogue
from slmrec.checks import one_of
from slmrec.data.dataset import PAD
from slmrec.errors import InputError
from slmrec.open_model import load_recommender
from slmrec.recommender import Recommender
from slmrec.runtime import pick_device
from slmrec.topk import best_items

BATCH = 512
UNKNOWN_USER = -1  # a history that belongs to no user of the training data
FRAME_COLUMNS = ("user", "rank", "item", "title", "score")

logger = logging.getLogger(__name__)


class Recommendation(NamedTuple):
    """One recommended item: its source id, its title ("" where it has none), and the model's score."""

    item: str
    title: str
    score: float


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
        rows = np.asarray(rows, dtype=np.int64)
        lengths = np.diff(self.offsets)[rows]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        flat = np.arange(ends[-1]) + np.repeat(self.offsets[rows] - ends[:-1], lengths)
        return Histories([self.users[row] for row in rows], self.items[flat], ends, self.numbers[rows])


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
        one_of("unknown", unknown, ("skip", "refuse"))
        items, missing = self._numbers(history, "the history", unknown)
        histories = Histories([""], np.asarray(items, dtype=np.int64), np.asarray([0, len(items)]))
        excluded, _ = self._numbers(exclude, "exclude", unknown)
        allowed = None if only is None else self._numbers(only, "only", unknown)[0]
        scores, best = self._best(histories, k, filter_viewed, excluded, allowed)
        found = [(item, score) for item, score in zip(best[0].tolist(), scores[0].tolist()) if item != PAD]
        rows = (Recommendation(self.catalogue.source_ids[i - 1], self.catalogue.titles[i - 1], score) for i, score in found)
        return Recommendations(tuple(rows), tuple(missing), by_popularity=not items)

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
            values, items = best_items(lambda start, stop: scores[:, start:stop], 1, len(self.catalogue), k, excluded=excluded)
        pairs = zip(items[0].tolist(), values[0].tolist())
        return [Recommendation(self.catalogue.source_ids[i - 1], self.catalogue.titles[i - 1], v) for i, v in pairs if i != PAD]

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
        frame = pl.from_pandas(source) if isinstance(source, pd.DataFrame) else source
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
        excluded, _ = self._numbers(exclude, "exclude", "skip")
        allowed = None if only is None else self._numbers(only, "only", "skip")[0]
        names = pl.Series([None, *self.catalogue.source_ids], dtype=pl.String)
        titles = pl.Series([None, *self.catalogue.titles], dtype=pl.String)
        for start in range(0, len(histories.users), batch_size):
            part = histories.take(range(start, min(start + batch_size, len(histories.users))))
            scores, best = self._best(part, k, filter_viewed, excluded, allowed)
            flat = best.cpu().numpy().ravel()
            columns = {
                "user": np.repeat(np.asarray(part.users, dtype=object), k),
                "rank": np.tile(np.arange(1, k + 1), len(part.users)),
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

    def _best(
        self, histories: Histories, k: int, filter_viewed: bool, excluded: list[int], allowed: list[int] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores float32 [B, k] and items int64 [B, k] of the histories; an empty one is answered by popularity."""
        _require_k(k)
        size, rows = len(self.catalogue), len(histories.users)
        may = None
        if excluded or allowed is not None:
            may = torch.ones(size + 1, dtype=torch.bool, device=self.device)
            if allowed is not None:
                may[:] = False
                may[torch.tensor(allowed, dtype=torch.int64, device=self.device)] = True
            may[torch.tensor(excluded, dtype=torch.int64, device=self.device)] = False
        lengths = np.diff(histories.offsets)
        viewed = None
        if filter_viewed:
            pairs = np.repeat(np.arange(rows), lengths), histories.items
            viewed = tuple(torch.from_numpy(np.asarray(one)).to(self.device) for one in pairs)
        read, empty = np.flatnonzero(lengths > 0), lengths == 0
        options = {"excluded": viewed, "allowed": may}
        with torch.inference_mode():
            if not empty.any():
                return self._ranked(self._encode(histories, read), rows, k, options)
            popularity = torch.from_numpy(np.concatenate([[0], self.catalogue.popularity]).astype(np.float32)).to(self.device)
            values, items = best_items(lambda start, stop: popularity[start:stop].repeat(rows, 1), rows, size, k, **options)
            logger.warning("%d of %d histories hold no known item: answered by popularity", int(empty.sum()), rows)
            if len(read):
                place = torch.from_numpy(read).to(self.device)
                theirs = options | {"excluded": _renumbered(viewed, read, rows)}
                values[place], items[place] = self._ranked(self._encode(histories, read), len(read), k, theirs)
            return values, items

    def _ranked(self, users: torch.Tensor, rows: int, k: int, options: dict) -> tuple[torch.Tensor, torch.Tensor]:
        score = self.recommender.score_block
        return best_items(lambda start, stop: score(users, start, stop), rows, len(self.catalogue), k, **options)

    def _encode(self, histories: Histories, rows: np.ndarray) -> torch.Tensor:
        """User vectors [len(rows), d] of histories that are not empty."""
        ends = histories.offsets[1:][rows]
        lengths = np.minimum(ends - histories.offsets[:-1][rows], self.recommender.max_length)
        flat = np.arange(lengths.sum()) + np.repeat(ends - np.cumsum(lengths), lengths)
        arrays = {"users": histories.numbers[rows], "history": histories.items[flat], "lengths": lengths}
        return self.recommender.encode({name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()})


def load(directory: str | Path, device: str = "auto") -> Model:
    """Open the directory of any trained model of this repository (encoder, teacher or student) for use.

    Raises InputError when it is none.
    """
    chosen = pick_device(device)
    return Model(load_recommender(directory, chosen), load_catalogue(directory), chosen)


def _renumbered(pairs: tuple[torch.Tensor, ...] | None, read: np.ndarray, rows: int) -> tuple[torch.Tensor, ...] | None:
    """(row, item) pairs of B rows as those of the rows that are read alone; the others have no pair."""
    if pairs is None:
        return None
    place = torch.full((rows,), -1, dtype=torch.int64, device=pairs[0].device)
    place[torch.from_numpy(read).to(place.device)] = torch.arange(len(read), device=place.device)
    return place[pairs[0]], pairs[1]


def _require_k(k: int) -> None:
    if k < 1:
        raise InputError(f"k {k}: must be at least 1")


def _more(names: list[str], shown: int) -> str:
    return f" and {len(names) - shown} more" if len(names) > shown else ""
