"""Which files --input names; the standard library is all that this needs, so that it is checked before anything is installed."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from slmrec.errors import InputError


def input_files(names: Iterable[str]) -> list[str]:
    """The files that --input names: files, patterns such as 'part-*.gz', and folders, whose files come in the order of names."""
    paths: list[str] = []
    for name in names:
        if Path(name).is_dir():
            paths += folder_files(Path(name))
        elif Path(name).exists():
            paths.append(name)
        else:
            matching = sorted(path for path in glob.glob(name, recursive=True) if Path(path).is_file())
            if not matching:
                raise InputError(f"{name}: no such file")
            paths += matching
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise InputError(f"{path}: named twice as input")
        seen.add(path)
    return paths


def folder_files(folder: Path) -> list[str]:
    """The data files below a folder; with parquet files in it these alone. Names with . or _ in front are other programs'."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    ]
    parquet = [path for path in files if path.suffix == ".parquet"]
    if not files:
        raise InputError(f"{folder}: a folder without data files")
    return [str(path) for path in parquet or files]
