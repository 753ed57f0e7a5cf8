"""Sequences that are in order already: "user item item ..." lines (S3-Rec), or a JSON object {user: [items]} (LC-Rec)."""

from __future__ import annotations

import json

import polars as pl

from slmrec.data.compressed import read_bytes
from slmrec.data.interactions import Interactions
from slmrec.errors import InputError


def read_sequences(path: str) -> Interactions:
    """Read a text or JSON file of sequences, .gz or not; its first character tells which of the two it is."""
    try:
        text = read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error})") from None
    rows = rows_of_json(path, text) if text.lstrip().startswith("{") else rows_of_lines(path, text)
    frame = rows.explode("item")
    if not frame.height:
        raise InputError(f"{path}: holds no action")
    return Interactions(frame, raw_rows=frame.height)


def rows_of_lines(path: str, text: str) -> pl.DataFrame:
    """One row per line: user, and item as a list."""
    lines = pl.Series("line", text.splitlines(), pl.String).str.strip_chars()
    tokens = lines.str.replace_all(r"\s+", " ").str.split(" ")
    short = (lines != "") & (tokens.list.len() < 2)
    if short.any():
        raise InputError(f"{path}, line {short.arg_true()[0] + 1}: a user without items")
    frame = pl.DataFrame({"line": lines, "user": tokens.list.first(), "item": tokens.list.slice(1)}).with_row_index("number", 1)
    frame = frame.filter(pl.col("line") != "")
    repeated = frame.filter(~pl.col("user").is_first_distinct())
    if repeated.height:
        raise InputError(f"{path}, line {repeated['number'][0]}: user {repeated['user'][0]!r} has a line already")
    return frame.select("user", "item")


def rows_of_json(path: str, text: str) -> pl.DataFrame:
    """One row per key: user, and item as a list."""
    try:
        histories = json.loads(text, object_pairs_hook=lambda pairs: refuse_repeats(path, pairs))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    for user, items in histories.items():
        if not isinstance(items, list) or not items or not all(isinstance(item, (int, str)) for item in items):
            raise InputError(f"{path}: user {user!r} has no list of items")
    items = [[str(item) for item in items] for items in histories.values()]
    return pl.DataFrame({"user": list(histories), "item": items}, schema={"user": pl.String, "item": pl.List(pl.String)})


def refuse_repeats(path: str, pairs: list[tuple]) -> dict:
    histories = dict(pairs)
    if len(histories) != len(pairs):
        raise InputError(f"{path}: a user stands in it twice")
    return histories
