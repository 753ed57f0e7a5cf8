"""What a cell may hold: ids, numbers and times, by one rule for every kind of file."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

import numpy as np
import polars as pl

from slmrec.data.rows import parts
from slmrec.errors import InputError

Where = Callable[[int], str]  # row number -> "FILE, row N", for messages

NO_IDS = ("", "nan", "none", "null", "<na>", "nat", "\\n")  # how programs write a missing value; the last is MySQL's
# Control characters (line breaks and tabs may stand in quotes), and the byte order mark of a file that was appended to another.
NEVER_IN_IDS = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\x{2028}\x{2029}\x{feff}]"
SHOWN = 40  # characters of a cell that a message shows
BILLION = 10**9

POINTED = r"^-?\d+\.0+$"  # whole numbers as pandas writes them beside missing ones
PLAIN_DECIMAL = r"^([+-]?)(\d+)\.(\d*)$"
DATE = re.compile(r"\d{4}-\d\d-\d\d")
DATE_PARTS = (
    r"^(?P<day>\d{4}-\d\d-\d\d)(?:[T ](?P<minute>\d\d:\d\d)(?::(?P<second>\d\d)(?:[.,](?P<part>\d*))?)?)?"
    r"\s*(?P<zone>Z|z|UTC|[+-]\d\d(?::?\d\d)?)?$"
)


def shown(value: object) -> str:
    """A value of the input as a message may show it: on one line, and never much of it."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def refuse(rows: pl.Series, values: pl.Series, name: str, what: str, where: Where) -> None:
    """Raise InputError for the first of the rows marked true."""
    if rows.any():
        row = rows.arg_true()[0]
        raise InputError(f"{where(row)}: {name} is {shown(values[row])}, {what}")


def clean_ids(ids: pl.Series, name: str, where: Where) -> pl.Series:
    """Ids as text without blanks around them.

    Raises InputError for what is no id: nothing, a program's word for a missing value, text with a control character.
    """
    codes, texts = clean_numbered(*numbered([ids.cast(pl.Categorical(pl.Categories.random()))]), name, where)
    return texts.gather(codes)


def numbered(blocks: list[pl.Series]) -> tuple[pl.Series, pl.Series]:
    """A column's blocks, of categories of its own, as places among its different ids, pl.UInt32 [E], and these, pl.String [C].

    Places of missing ids are null. The blocks are used up, and with the last one goes the table from text to category, which is
    several times as large as the texts.
    """
    largest = [block.to_physical().drop_nulls().to_numpy().max(initial=0) for block in blocks if block.null_count() < len(block)]
    texts = pl.Series(np.arange(max(largest, default=-1) + 1, dtype=np.uint32)).cat.to(blocks[0].dtype).cast(pl.String)
    if any(block.null_count() for block in blocks):
        return pl.concat([block.to_physical() for block in blocks]), texts
    codes, start = np.empty(sum(map(len, blocks)), dtype=np.uint32), 0
    blocks.reverse()
    while blocks:
        block = blocks.pop().to_physical().to_numpy()
        codes[start : start + len(block)] = block
        start += len(block)
    return pl.Series(codes), texts


def clean_numbered(codes: pl.Series, texts: pl.Series, name: str, where: Where) -> tuple[pl.Series, pl.Series]:
    """What `numbered` gave, the texts without blanks around them. Raises InputError as `clean_ids` does."""
    if codes.null_count():
        raise InputError(f"{where(codes.is_null().arg_true()[0])}: {name} is missing")
    first_row = lambda which: int(which[codes.to_numpy()].argmax())  # of those with an id that is marked, bool [C]
    wrong, tidied, pointed = np.zeros(len(texts), dtype=bool), False, pl.Series(dtype=pl.String)
    for part in parts(len(texts)):
        tidy = texts[part].str.strip_chars()
        tidied |= bool((tidy != texts[part]).any())
        wrong[part] = (tidy.str.to_lowercase().is_in(NO_IDS) | tidy.str.contains(NEVER_IN_IDS)).to_numpy()
        pointed.append(tidy.filter(tidy.str.contains(POINTED)))
    if wrong.any():
        row = first_row(wrong)
        value = texts[int(codes[row])]
        what = "is missing" if not value.strip() else f"is {shown(value)}, which is no id"
        raise InputError(f"{where(row)}: {name} {what}")
    tidy = texts.str.strip_chars() if tidied else texts
    both = pointed.filter(pointed.str.replace(r"\.0+$", "").is_in(tidy.implode())) if len(pointed) else pointed
    if len(both):
        row, whole = first_row((tidy == both[0]).to_numpy()), both[0].partition(".")[0]
        raise InputError(f"{where(row)}: {name} is {shown(both[0])}, elsewhere {shown(whole)}: one of the two spellings is wrong")
    if not tidied:
        return codes, texts
    merged = tidy.unique(maintain_order=True)
    return tidy.replace_strict(merged, np.arange(len(merged), dtype=np.uint32)).gather(codes), merged


def id_of_number(text: str) -> str | None:
    """The id that a number stands for, 7 and 7.0 alike; None for one that is not whole."""
    try:
        number = Decimal(text)
    except InvalidOperation:  # NaN is a Decimal, a word is not
        return None
    if not number.is_finite() or number.adjusted() > SHOWN and "e" in text.lower() or number != number.to_integral_value():
        return None
    return f"{number:.0f}" if number else "0"  # also of minus nought


def numbers(texts: pl.Series, name: str, where: Where) -> pl.Series:
    """Float64 from text. Raises InputError with the row of a cell that is empty or not a finite number."""
    texts = texts.str.strip_chars()
    missing = texts.is_null() | (texts == "")
    if missing.any():
        raise InputError(f"{where(missing.arg_true()[0])}: {name} is missing")
    values = texts.cast(pl.Float64, strict=False)
    refuse(~values.is_finite().fill_null(False), texts, name, "not a number", where)
    return values


def times(texts: pl.Series, name: str, where: Where) -> tuple[pl.DataFrame, str]:
    """Times from text, exactly: columns time (Int64) and, where some have one, part (Int64, in 1e-9 of the unit of time).

    Returns them and "date" (ISO 8601, UTC unless it says otherwise; the unit is a second) or "number" (in a unit that only all of
    them together tell). Raises InputError with the row of a cell that is neither.
    """
    texts = texts.str.strip_chars()
    missing = texts.is_null() | (texts == "")
    if missing.any():
        raise InputError(f"{where(missing.arg_true()[0])}: {name} is missing")
    whole = texts.cast(pl.Int64, strict=False).alias("time")
    if not whole.null_count():
        return whole.to_frame(), "number"
    found = {"date": dates(texts), "number": decimals(texts)}
    kind = min(found, key=lambda kind: found[kind]["time"].null_count())
    wanted = "an ISO date" if kind == "date" and found[kind]["time"].count() else "a time (Unix time or an ISO date)"
    refuse(found[kind]["time"].is_null(), texts, name, f"not {wanted}", where)
    return found[kind], kind


def dates(texts: pl.Series) -> pl.DataFrame:
    """ISO 8601 dates as time (Unix seconds) and part; null where a text is none."""
    frame = texts.alias("text").to_frame().select(pl.col("text").str.extract_groups(DATE_PARTS)).unnest("text")
    clock = pl.col("day") + " " + pl.col("minute").fill_null("00:00") + ":" + pl.col("second").fill_null("00")
    seconds = clock.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us").dt.epoch("s")
    zone = pl.col("zone").str.replace(":", "", literal=True)
    sign = pl.when(zone.str.starts_with("-")).then(-1).otherwise(1)
    minutes = zone.str.slice(1, 2).cast(pl.Int64, strict=False) * 60 + zone.str.slice(3, 2).cast(
        pl.Int64, strict=False
    ).fill_null(0)
    return frame.select(time=seconds - (sign * minutes * 60).fill_null(0), part=billionths(pl.col("part")))


def billionths(digits: pl.Expr) -> pl.Expr:
    """The digits behind a decimal point as a number of 1e-9, 0 where there are none; what is finer is left out."""
    return digits.fill_null("").str.pad_end(9, "0").str.slice(0, 9).cast(pl.Int64)


def decimals(texts: pl.Series) -> pl.DataFrame:
    """Numbers of any notation as time (the whole part, rounded down) and part; null where a text is none, or beyond 64 bits."""
    groups = texts.alias("text").to_frame().select(pl.col("text").str.extract_groups(PLAIN_DECIMAL)).unnest("text")
    below = (pl.col("1") == "-") & (pl.col("part") > 0)
    whole = pl.col("1") + pl.col("2")
    frame = groups.with_columns(part=billionths(pl.col("3")), time=whole.str.strip_prefix("+").cast(pl.Int64, strict=False))
    frame = frame.select(
        time=pl.col("time") - below.cast(pl.Int64), part=pl.when(below).then(BILLION - pl.col("part")).otherwise("part")
    )
    others = frame["time"].is_null()  # whole ones, exponents, and what is no number
    rows = [exact(text) for text in texts.filter(others)]
    values = {name: pl.Series([row[number] for row in rows], dtype=pl.Int64) for number, name in enumerate(("time", "part"))}
    return frame.with_columns(frame[name].scatter(others.arg_true(), values[name]) for name in values)


def exact(text: str) -> tuple[int, int] | tuple[None, None]:
    """A number as (whole part, 1e-9 of the rest)."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None, None
    if not number.is_finite() or number.adjusted() > 18 or "_" in text:
        return None, None
    whole = int(number // 1) - (1 if number % 1 < 0 else 0)
    return (whole, int((number - whole) * BILLION)) if -(2**63) <= whole < 2**63 else (None, None)
