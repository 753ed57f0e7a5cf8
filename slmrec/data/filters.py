"""Which actions count, and in which order: the paper's protocol and the released code's, as lists of rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl

from slmrec.data.arguments import DEFAULT_CORE
from slmrec.data.interactions import Interactions
from slmrec.data.rows import codes_of, count_codes, first_of_pairs, take_rows, time_order
from slmrec.errors import InputError
from slmrec.progress import track

PAPER_RATING = 3.0  # Section 5.1: positive feedback is a rating above 3
RELEASED_RATING = 3.0  # released notebook: a rating of at least 3
RELEASED_ITEM_MINIMUM = 20  # released notebook's minimum for items

SKIPPED = "skipped: "  # how the text of a rule begins that does not apply
NO_RATINGS = f"{SKIPPED}the source has no ratings"
IMPLICIT = f"{SKIPPED}every rating is 1, which tells nothing (implicit feedback)"
READY = f"{SKIPPED}ready-made sequences are kept as they are"
NO_TIMES = f"{SKIPPED}the source has no times, its own order is kept"


@dataclass
class Rule:
    """One step of a protocol: `apply` makes another frame of one, which is used up (`take_rows`).

    With `skipped` set, it says why the rule does not apply.
    """

    name: str
    text: str
    apply: Callable[[pl.DataFrame], pl.DataFrame]
    skipped: str = ""


@dataclass
class Filtered:
    """What the rules left: `frame` in its final order, rows dropped by each rule, and each rule in words."""

    frame: pl.DataFrame
    dropped: dict[str, int]
    rules: dict[str, str]


def core(k: int, frame: pl.DataFrame, exempt: dict[str, np.ndarray] | None = None) -> pl.DataFrame:
    """Drop users and items with fewer than k actions until every one that is left has k.

    `exempt` holds bool [E] for "user" and "item": rows whose user or item stays in any case.
    """
    kept, rows = np.arange(frame.height, dtype=np.uint32), None
    while len(kept) != rows:
        rows = len(kept)
        for name in ("user", "item"):
            codes = codes_of(frame[name])
            stays = (count_codes(codes, kept) >= k)[codes[kept]]
            if exempt:
                stays |= exempt[name][kept]
            kept = kept[stays]
            del codes  # so that the column can go
    return take_rows(frame, kept)


def keep_first(frame: pl.DataFrame) -> pl.DataFrame:
    """Drop the repeats of each (user, item) pair."""
    return take_rows(frame, first_of_pairs(codes_of(frame["user"]), codes_of(frame["item"])))


def by_time(frame: pl.DataFrame) -> pl.DataFrame:
    if "nanosecond" in frame.columns:
        return frame.sort("time", "nanosecond", maintain_order=True)
    return take_rows(frame, time_order(frame["time"].to_numpy()))


def unchanged(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


def at_least(column: str, minimum: int, frame: pl.DataFrame) -> pl.DataFrame:
    """Drop the users or items with fewer than `minimum` actions, once."""
    codes = codes_of(frame[column])
    enough = (count_codes(codes) >= minimum)[codes]
    del codes
    return take_rows(frame, enough)


def rated(condition: pl.Expr, frame: pl.DataFrame) -> pl.DataFrame:
    """Drop what does not meet a condition, and the ratings, which no other rule asks for."""
    stays = frame.select(condition).to_series().to_numpy()
    frame.drop_in_place("rating")
    return take_rows(frame, stays)


def rating_rule(source: Interactions, condition: pl.Expr, text: str, min_rating: float | None) -> Rule:
    if min_rating is not None and not source.has_ratings:
        raise InputError(f"--min_rating {min_rating:g}: the source has no ratings")
    skipped = "" if source.has_ratings else NO_RATINGS
    if min_rating is not None:
        condition, text = pl.col("rating") >= min_rating, f"rating >= {min_rating:g}"
    elif source.has_ratings and (source.frame["rating"] == 1).all():
        skipped = IMPLICIT
    return Rule("rating", text, partial(rated, condition), skipped)


def duplicate_rule(source: Interactions, duplicates: str | None, text: str) -> Rule:
    skipped = f"{SKIPPED}--duplicates keep" if duplicates == "keep" else READY if source.ready and duplicates is None else ""
    return Rule("duplicates", text, keep_first, skipped)


def paper_rules(source: Interactions, duplicates: str | None, min_rating: float | None, k: int | None) -> list[Rule]:
    """Section 5.1. Equal times keep the order of the input, and of a repeated (user, item) pair the earliest action stays."""
    skip_core = READY if source.ready and k is None else ""
    k = k or DEFAULT_CORE
    return [
        rating_rule(source, pl.col("rating") > PAPER_RATING, f"rating > {PAPER_RATING:g}", min_rating),
        Rule("order", "by time, equal times as in the input", by_time, "" if source.has_times else NO_TIMES),
        duplicate_rule(source, duplicates, "each (user, item) pair once, the earliest"),
        Rule("k_core", f"users and items with fewer than {k} actions, to a fixed point", partial(core, k), skip_core),
    ]


def released_rules(source: Interactions, duplicates: str | None, min_rating: float | None, k: int | None) -> list[Rule]:
    """The released notebook: each minimum once, repeated pairs before the last one only, and no use of the time."""
    k = k or DEFAULT_CORE
    users = partial(at_least, "user", k)
    items = partial(at_least, "item", RELEASED_ITEM_MINIMUM)
    return [
        rating_rule(source, pl.col("rating") >= RELEASED_RATING, f"rating >= {RELEASED_RATING:g}", min_rating),
        Rule("users", f"users with fewer than {k} actions, once", users),
        Rule("items", f"items with fewer than {RELEASED_ITEM_MINIMUM} actions, once", items),
        duplicate_rule(source, duplicates or "first", "each (user, item) pair once, the first of the file"),
        Rule("users_again", f"users with fewer than {k} actions, once more", users),
        Rule("order", "as in the file", unchanged),
    ]


PROTOCOLS = {"paper": paper_rules, "released": released_rules}


def apply_rules(frame: pl.DataFrame, rules: list[Rule]) -> Filtered:
    """Apply the rules in turn to a frame whose users and items are categories, and which they use up.

    Raises InputError, saying what each rule dropped, when nothing is left.
    """
    dropped, rows_before = {}, frame.height
    for rule in track(rules, "filtering", len(rules), "rules"):
        if rule.skipped:
            continue
        before = frame.height
        frame = rule.apply(frame)
        dropped[rule.name] = before - frame.height
    if not frame.height:
        history = "; ".join(f"{rule.text} dropped {dropped[rule.name]}" for rule in rules if dropped.get(rule.name))
        hint = "; --min_rating sets another bar" if dropped.get("rating") == rows_before else ""
        raise InputError(f"nothing is left of {rows_before} actions: {history}{hint}")
    return Filtered(frame, dropped, {rule.name: rule.skipped or rule.text for rule in rules})
