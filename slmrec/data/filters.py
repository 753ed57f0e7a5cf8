"""Which actions count, and in which order: the paper's protocol and the released code's, as lists of rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl

from slmrec.data.arguments import DEFAULT_CORE
from slmrec.data.interactions import Interactions
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
    """One step of a protocol: `apply` maps a frame to a frame; with `skipped` set, it says why the rule does not apply."""

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
    nobody = np.zeros(frame.height, dtype=bool)
    sides = [(frame[name].to_physical().to_numpy(), exempt[name] if exempt else nobody) for name in ("user", "item")]
    kept, rows = np.arange(frame.height), None
    while len(kept) != rows:
        rows = len(kept)
        for codes, stays in sides:
            kept = kept[(np.bincount(codes[kept])[codes[kept]] >= k) | stays[kept]]
    return frame[kept]


def keep_first(frame: pl.DataFrame) -> pl.DataFrame:
    """Drop the repeats of each (user, item) pair; both numbers in one integer need a third of the memory of a pair."""
    pair = pl.col("user").to_physical().cast(pl.UInt64) * 2**32 + pl.col("item").to_physical()
    return frame.filter(pair.is_first_distinct())


def by_time(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort([name for name in ("time", "nanosecond") if name in frame.columns], maintain_order=True)


def unchanged(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


def at_least(column: str, minimum: int, frame: pl.DataFrame) -> pl.DataFrame:
    """Drop the users or items with fewer than `minimum` actions, once."""
    return frame.filter(pl.len().over(column) >= minimum)


def rating_rule(source: Interactions, condition: pl.Expr, text: str, min_rating: float | None) -> Rule:
    if min_rating is not None and not source.has_ratings:
        raise InputError(f"--min_rating {min_rating:g}: the source has no ratings")
    skipped = "" if source.has_ratings else NO_RATINGS
    if min_rating is not None:
        condition, text = pl.col("rating") >= min_rating, f"rating >= {min_rating:g}"
    elif source.has_ratings and (source.frame["rating"] == 1).all():
        skipped = IMPLICIT
    return Rule("rating", text, lambda frame: frame.filter(condition), skipped)


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
    """Apply the rules in turn to a frame whose users and items are categories.

    Raises InputError, saying what each rule dropped, when nothing is left.
    """
    dropped, rows_before = {}, frame.height
    for rule in track(rules, "filtering", len(rules), "rules"):
        if rule.skipped:
            continue
        left = rule.apply(frame)
        dropped[rule.name] = frame.height - left.height
        frame = left
    if not frame.height:
        history = "; ".join(f"{rule.text} dropped {dropped[rule.name]}" for rule in rules if dropped.get(rule.name))
        hint = "; --min_rating sets another bar" if dropped.get("rating") == rows_before else ""
        raise InputError(f"nothing is left of {rows_before} actions: {history}{hint}")
    return Filtered(frame, dropped, {rule.name: rule.skipped or rule.text for rule in rules})
