"""Which column of a file holds what, told from the names that data sets in use have for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slmrec.errors import InputError

NONE = "none"  # what a flag says where a source has no such column
KNOWN = {  # by lower-case letters and digits alone; the earlier name wins
    "user": ("reviewerid", "userid", "user", "uid", "username", "customerid", "visitorid"),
    "item": ("parentasin", "asin", "itemid", "item", "iid", "movieid", "productid", "businessid", "bookid", "isbn", "gmapid"),
    "rating": ("overall", "rating", "ratings", "stars", "score", "bookrating"),
    "time": ("unixreviewtime", "timestamp", "time", "unixtime", "datetime", "date"),
}
META_KNOWN = {
    "item": (*KNOWN["item"], "id"),
    "title": ("title", "name", "appname", "productname", "description", "text"),
    "category": ("category", "categories", "genres"),
    "brand": ("brand", "store"),
}
FLAG, META_FLAG = "--{}_column", "--meta_{}_column"
SHOWN_NAMES = 160  # characters of a list of columns in a message


@dataclass(frozen=True)
class Columns:
    """The names of the columns of actions; None for a rating or a time that the source does not have."""

    user: str
    item: str
    rating: str | None
    time: str | None

    def __post_init__(self):
        """Raises InputError for a source without users or items, or with one column for two purposes."""
        for role in ("user", "item"):
            if getattr(self, role) is None:
                raise InputError(f"--{role}_column none: every source has a column of {role}s")
        refuse_twice({role: name for role, name in vars(self).items() if name}, FLAG)

    def __str__(self) -> str:
        return ", ".join(f"{role} = {name}" if name else f"no {role}" for role, name in vars(self).items())


def refuse_twice(columns: Mapping[str, str], flag: str) -> None:
    """Raises InputError where two of the columns, by role, are one; `flag` has a place for a role."""
    purposes: dict[str, str] = {}
    for role, name in columns.items():
        if name in purposes:
            raise InputError(f"{flag.format(role)} {name}: this column has the {purposes[name]} already")
        purposes[name] = role


def letters(name: str) -> str:
    """A name as KNOWN has it: `user_id`, `userId` and `User ID` alike."""
    return "".join(character for character in name.lower() if character.isalnum())


def guess(names: Sequence[str], known: Sequence[str]) -> str | None:
    """The first of the known names that a file has."""
    by_letters = {letters(name): name for name in reversed([*names])}
    return next((by_letters[name] for name in known if name in by_letters), None)


def listed(names: Sequence[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= SHOWN_NAMES else text[:SHOWN_NAMES] + "..."


def named(path: str, names: list[str], name: str) -> str:
    """A column that a flag or a guess names. Raises InputError when the file has none or several of this name."""
    if name not in names:
        raise InputError(f"{path}: has no column {name!r} (its columns: {listed(names)})")
    if names.count(name) > 1:
        raise InputError(f"{path}: {names.count(name)} of its columns are called {name!r}")
    return name


def find_columns(path: str, names: Sequence[str], flags: Mapping[str, str | None], rare: Sequence[str] = ()) -> Columns:
    """The columns of actions in a file with columns `names`; `flags` holds what --user_column and the others say.

    A rating may be missing; a time may not unless a flag says so, because then the order of the rows decides. `rare` columns,
    which not every row has, count where no other will do.
    """
    found: dict[str, Any] = {}
    for role, known in KNOWN.items():
        name = flags.get(role) or guess(names, known) or guess(rare, known)
        if name is None and role != "rating":
            without = f" (or --{role}_column none: its rows are in order)" if role == "time" else ""
            raise InputError(
                f"{path}: none of its columns is called like a {role} (its columns: {listed(names)}); "
                f"--{role}_column names it{without}"
            )
        found[role] = named(path, [*names, *rare], name) if name and name != NONE else None
    return Columns(**found)
