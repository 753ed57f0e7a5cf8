"""Which directories a stage may write to, and which are its own to delete: those that carry the marker of a stage."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from slmrec.errors import InputError
from slmrec.files import is_temporary, read_json
from slmrec.manifest import MANIFEST, parse_manifest

RUN = "run.json"  # the marker: what a directory, finished or not, is a run of; written first and removed last


def place_of(output_dir: str | Path) -> Path:
    """Where a stage writes: the directory itself, or where a link leads to. Raises InputError for the working directory."""
    place = Path(output_dir)
    if place.is_symlink() or place.name in ("", ".."):
        place = Path(os.path.realpath(place))
    here = os.path.realpath(os.curdir)
    if not place.name or Path(here).is_relative_to(os.path.realpath(place)):
        raise InputError(f"--output_dir {output_dir}: this command runs inside of it; name a directory of its own for this stage")
    if os.path.ismount(place):
        raise InputError(f"--output_dir {output_dir}: a mount point cannot be replaced as a whole; name a directory below it")
    return place


def is_ours(directory: Path) -> bool:
    """Whether a stage made this directory: its marker says so, or, in one of an earlier version, its manifest."""
    if directory.is_symlink() or not directory.is_dir():
        return False
    return any(_speaks_of_a_stage(directory / name) for name in (RUN, MANIFEST))


def stage_of(directory: str | Path) -> str | None:
    """The stage that made a directory, None for a directory of somebody else, whatever lies in it.

    Raises InputError where a stage made it and its manifest is missing or damaged.
    """
    return parse_manifest(Path(directory) / MANIFEST)["stage"] if is_ours(Path(os.path.realpath(directory))) else None


def _speaks_of_a_stage(path: Path) -> bool:
    try:
        content = read_json(path)
    except (InputError, OSError):
        return False
    return content.get("written_by") == "slmrec" or {"stage", "schema_version"} <= content.keys()


def is_empty(directory: Path) -> bool:
    """Whether a directory holds nothing, or no more than a marker that a kill kept from being written."""
    if directory.is_symlink() or not directory.is_dir():
        return False
    return all(is_temporary(path) and path.name == f".{RUN}.tmp" for path in directory.iterdir())


def remove_stage(directory: Path) -> None:
    """Delete a directory that is ours, its marker last, so that one which is cut short is still known as ours."""
    for path in directory.iterdir():
        if path.name != RUN:
            remove(path)
    (directory / RUN).unlink(missing_ok=True)
    directory.rmdir()


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
