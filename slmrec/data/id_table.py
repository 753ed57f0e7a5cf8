"""Tables that give a processed source its original ids back: "source id TAB number" (UniSRec's item2index, LC-Rec's item2id)."""

from __future__ import annotations

import polars as pl

from slmrec.data.compressed import decoded, read_bytes
from slmrec.data.values import clean_ids, shown
from slmrec.errors import InputError


def read_id_table(path: str, encoding: str = "utf-8") -> pl.DataFrame:
    """Columns source_id and index, both text. Raises InputError with the line that is no entry, or repeats an earlier one."""
    lines = decoded(read_bytes(path, encoding), path, 0).split("\n")
    entries: list[list[str]] = []
    numbers: list[int] = []  # of their lines
    seen: dict[tuple[str, str], int] = {}  # (kind, cell) -> line
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 2 or not cells[0] or not (cells[1].isascii() and cells[1].isdigit()):
            raise InputError(f"{path}, line {number}: not 'source id TAB number'")
        for kind, cell in zip(("source id", "number"), cells):
            if (kind, cell) in seen:
                raise InputError(f"{path}, line {number}: gives the {kind} {shown(cell)} twice (line {seen[kind, cell]} has it)")
            seen[kind, cell] = number
        entries.append(cells)
        numbers.append(number)
    if not entries:
        raise InputError(f"{path}: is empty")
    table = pl.DataFrame(entries, schema={"source_id": pl.String, "index": pl.String}, orient="row")
    clean_ids(table["source_id"], "the source id", lambda row: f"{path}, line {numbers[row]}")
    return table
