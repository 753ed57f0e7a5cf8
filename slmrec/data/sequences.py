"""Sequences that are in order already: "user item item ..." lines (S3-Rec), or a JSON object {user: [items]} (LC-Rec)."""

from __future__ import annotations

import polars as pl

from slmrec.data.compressed import decoded, read_bytes, read_head
from slmrec.data.interactions import ActionBlocks, Interactions, Place, line_of
from slmrec.data.json_values import as_id, described, read_object
from slmrec.data.values import shown
from slmrec.errors import InputError

BLANKS = " \t\r"  # between the items of a line; what else a text calls white space is part of no id
# Punctuation of another notation, and its truth values
NO_TOKEN = r"""^[\[\](){}"',;:]|[\[\](){}"',;:]$|[,;\p{C}\p{Zl}\p{Zp}\p{Zs}]|^(?i:true|false)$"""


def read_sequences(paths: list[str], encoding: str = "utf-8") -> Interactions:
    """Read text or JSON files of sequences; the first character of each tells which of the two it is."""
    blocks = ActionBlocks()
    for path in paths:
        head = read_head(path, encoding).lstrip()
        if head.startswith(b"["):
            raise InputError(f"{path}: one JSON array; wanted is an object {{user: [items]}}, or lines 'user item item ...'")
        if head.startswith(b"{"):
            frame, users = rows_of_json(path, encoding)
            blocks.add(frame, user_of(path, users), range(frame.height))
        else:
            frame, lines = rows_of_lines(path, decoded(read_bytes(path, encoding), path, 0))
            blocks.add(frame, line_of(path), lines)
    return blocks.interactions(", ".join(paths), {"user": "user", "item": "item"}, ready=True)


def user_of(path: str, users: list[str]) -> Place:
    """Where a row of a JSON file stands, by its user."""
    return lambda row: f"{path}, user {shown(users[row])}"


def rows_of_lines(path: str, text: str) -> tuple[pl.DataFrame, pl.Series]:
    """One row per action, user and item, and its line.

    Either each user has one line, "user item item ...", or each line is one action, "user item".
    """
    lines = pl.Series("line", text.split("\n"), pl.String).str.strip_chars(BLANKS)
    tokens = lines.str.replace_all(r"[ \t]+", " ").str.split(" ")
    frame = pl.DataFrame({"line": lines, "user": tokens.list.first(), "item": tokens.list.slice(1)}).with_row_index("number", 1)
    frame = frame.filter(pl.col("line") != "").drop("line")
    refuse_tokens(path, frame.select("number", id="user"))
    single = frame.filter(pl.col("item").list.len() == 0)
    if single.height:
        raise InputError(f"{path}, line {single['number'][0]}: a user without items")
    pairs = frame.height > 0 and bool((frame["item"].list.len() == 1).all())
    repeated = frame.filter(~pl.col("user").is_first_distinct())
    if repeated.height and not pairs:
        raise InputError(f"{path}, line {repeated['number'][0]}: user {shown(repeated['user'][0])} has a line already")
    frame = frame.explode("item")
    refuse_tokens(path, frame.select("number", id="item"))
    return frame.select("user", "item"), frame["number"]


def refuse_tokens(path: str, frame: pl.DataFrame, word: str = "line", after: str = "") -> None:
    """Raise InputError for the first id (columns number, id) of another notation, or with a control character."""
    strange = frame.filter(pl.col("id").str.contains(NO_TOKEN))
    if strange.height:
        number, text = strange.row(0)
        raise InputError(
            f"{path}, {word} {number}{after}: {shown(text)} is no id; ids are numbers or names, with blanks alone between them"
        )


def rows_of_json(path: str, encoding: str) -> tuple[pl.DataFrame, list[str]]:
    """One row per action, user and item, and its user."""
    users, items = [], []
    for user, history in read_object(path, encoding).items():
        if not isinstance(history, list) or not history:
            raise InputError(f"{path}, user {shown(user)}: {described(history)} where a list of items is needed")
        for value in history:
            item = as_id(value)
            if item is None:
                raise InputError(f"{path}, user {shown(user)}: {described(value)} among the items is no id")
            items.append(item)
        users += [user] * len(history)
    bad = next((user for user in dict.fromkeys(users) if as_id(user) is None), None)
    if bad is not None:
        raise InputError(f"{path}, user {shown(bad)}: no id")
    return pl.DataFrame({"user": users, "item": items}, schema={"user": pl.String, "item": pl.String}), users
