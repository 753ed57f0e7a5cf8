"""What every source is read into: one row per action, in the order of the source."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from slmrec.data.values import BILLION, Where, clean_numbered, numbered
from slmrec.errors import InputError

Place = Callable[[int], str]  # number in the file -> "FILE, line N"
Numbers = Sequence[int] | pl.Series | np.ndarray  # those of rows in their file

SIDES = ("user", "item")
# Column -> its type, and one that is nearly always enough
SIZES: dict[str, tuple[type[pl.DataType], type[pl.DataType]]] = {
    "rating": (pl.Float32, pl.UInt8),
    "time": (pl.Int64, pl.UInt32),
}
UNITS = {1: "seconds", 10**3: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}  # by how many a second has
FIRST_BAND, LAST_BAND = 10**8, 10**10  # Unix seconds of 1973 and 2286: between them times of different units never meet


def line_of(path: str) -> Place:
    """Where a line of a file stands, in words."""
    return lambda number: f"{path}, line {number}"


@dataclass
class Interactions:
    """Actions as a source holds them.

    Attributes:
        frame: columns user and item (pl.UInt32, places in `ids`), and where the source has them rating (pl.Float32), time
            (pl.Int64, Unix seconds) and, where some time has a fraction, nanosecond (pl.Int64, 0..10**9 - 1).
        ids: "user" and "item" -> pl.String, the different ids of the source, each of them in some row.
        raw_rows: actions or lines that the source holds, malformed ones included.
        malformed: lines that did not parse.
        ready: whether somebody has filtered and ordered them already.
        time_unit: what the source counts its times in.
        notes: more counts for stats.json.
    """

    frame: pl.DataFrame
    ids: dict[str, pl.Series]
    raw_rows: int
    malformed: int = 0
    ready: bool = False
    time_unit: str | None = None
    notes: dict = field(default_factory=dict)

    @property
    def has_ratings(self) -> bool:
        return "rating" in self.frame.columns

    @property
    def has_times(self) -> bool:
        return "time" in self.frame.columns


class ActionBlocks:
    """Collects a source's actions block by block, and remembers where in which file each of them stands.

    Until all are there they take what they have to and no more: ratings that are small whole numbers a byte, times four bytes.
    """

    def __init__(self):
        self.frames: list[pl.DataFrame] = []
        self.categories = {side: pl.Categorical(pl.Categories.random()) for side in SIDES}
        self.starts: list[int] = []  # the first row of each block
        self.places: list[tuple[Place, Numbers]] = []
        self.kinds: set[str] = set()  # of times: "date" or "number"
        self.rows = 0

    def add(self, frame: pl.DataFrame, place: Place, numbers: Numbers, kind: str | None = None) -> None:
        """Take columns user, item and perhaps rating, time and part (`values.times`); row r stands at place(numbers[r])."""
        columns = frame.to_dict()
        for side in SIDES:
            columns[side] = columns[side].cast(self.categories[side])  # four bytes a row instead of an id's length
        for name, (_, small) in SIZES.items():
            if name in columns:
                columns[name] = if_exact(columns[name], small)
        self.frames.append(pl.DataFrame(columns))
        self.starts.append(self.rows)
        self.places.append((place, numbers))
        self.kinds |= {kind} if kind else set()
        self.rows += frame.height
        if len(self.kinds) > 1:
            raise InputError(f"{place(numbers[0])}: the times before are numbers and these are dates, or the reverse")

    def where(self, row: int) -> str:
        block = bisect_right(self.starts, row) - 1
        place, numbers = self.places[block]
        return place(numbers[row - self.starts[block]])

    def interactions(self, path: str, names: dict[str, str], raw_rows: int | None = None, **more) -> Interactions:
        """All actions, checked. `names` says what the file calls user and item."""
        if not self.rows:
            raise InputError(f"{path}: holds no action")
        sides = {side: numbered([frame.drop_in_place(side) for frame in self.frames]) for side in SIDES}
        self.categories.clear()  # and with them the tables from id to category
        cleaned = {side: clean_numbered(*sides.pop(side), names[side], self.where) for side in SIDES}
        frame = pl.DataFrame({side: codes for side, (codes, _) in cleaned.items()} | self._joined())
        ids = {side: texts.alias(side) for side, (_, texts) in cleaned.items()}
        frame, unit = in_seconds(frame, self.kinds == {"date"}, self.where)
        return Interactions(frame, ids, raw_rows=self.rows if raw_rows is None else raw_rows, time_unit=unit, **more)

    def _joined(self) -> dict[str, pl.Series]:
        """The other columns, one after the other, so that there are never two; `part` is null where a block has none."""
        names = dict.fromkeys(name for frame in self.frames for name in frame.columns)
        frames = [
            frame if len(frame.columns) == len(names) else frame.with_columns(part=pl.lit(None, pl.Int64))
            for frame in self.frames
        ]
        self.frames.clear()
        joined = {}
        for name in names:
            full = SIZES[name][0] if name in SIZES else None
            columns = [frame.drop_in_place(name) for frame in frames]
            joined[name] = pl.concat([column.cast(full) for column in columns] if full else columns).rechunk()
        return joined


def if_exact(values: pl.Series, smaller: type[pl.DataType]) -> pl.Series:
    """The values in a smaller type, if every one of them is the same there."""
    cast = values.cast(smaller, strict=False)
    return cast if not cast.null_count() and (cast.cast(values.dtype) == values).all() else values


def in_seconds(frame: pl.DataFrame, dates: bool, where: Where) -> tuple[pl.DataFrame, str | None]:
    """Columns time and part in the source's unit as Unix seconds and nanoseconds, and the name of the unit.

    The size of the numbers tells the unit. Raises InputError when some are in one unit and some in another.
    """
    if "time" not in frame.columns or not frame.height:
        return frame, None
    unit = 1 if dates else unit_of(frame["time"], where)
    if unit == 1 and "part" not in frame.columns:
        return frame, UNITS[1]
    part = pl.col("part").fill_null(0) if "part" in frame.columns else pl.lit(0, pl.Int64)
    seconds, rest = pl.col("time").floordiv(unit), pl.col("time") % unit
    frame = frame.with_columns(time=seconds, nanosecond=rest * (BILLION // unit) + part.floordiv(unit))
    unneeded = ["part"] if "part" in frame.columns else []
    unneeded += ["nanosecond"] if not (frame["nanosecond"] != 0).any() else []
    return frame.drop(unneeded), UNITS[unit]


def unit_of(times: pl.Series, where: Where) -> int:
    """How many units of these times a second has."""
    ticks = times.to_numpy()
    largest = max(abs(int(ticks.min())), abs(int(ticks.max())))
    if largest < 10 * LAST_BAND:
        return 1
    sizes = times.abs()
    bands = {unit: (sizes >= FIRST_BAND * unit) & (sizes < min(LAST_BAND * unit, 2**63 - 1)) for unit in UNITS}
    counts = {unit: int(band.sum()) for unit, band in bands.items()}
    between = int((sizes >= FIRST_BAND).sum()) - sum(counts.values())
    used = [unit for unit in UNITS if counts[unit]]
    if len(used) > 1 and not between:
        few, *_, many = sorted(used, key=lambda unit: counts[unit])
        row = bands[few].arg_true()[0]
        raise InputError(f"{where(row)}: this time counts {UNITS[few]}, {counts[many]} others {UNITS[many]}")
    return next((unit for unit in UNITS if largest < 10 * LAST_BAND * unit), 10**9)


def rename_by_table(ids: pl.Series, table: pl.DataFrame, path: str) -> pl.Series:
    """Replace the source's numbers, all different, by the source ids of `table` (columns index, source_id)."""
    numbers = ids.alias("index").to_frame()
    unknown = numbers.join(table, on="index", how="anti", maintain_order="left")
    if unknown.height:
        raise InputError(f"{path}: has no entry for the {ids.name} {unknown['index'][0]!r}")
    return ids.replace_strict(table["index"], table["source_id"])
