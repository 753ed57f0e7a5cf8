"""Reading what finished stages left: manifests, checked against the files they describe, and where a stage's inputs lie."""

from __future__ import annotations

import os
from pathlib import Path

from slmrec.errors import InputError
from slmrec.files import file_sha256, json_sha256, read_json

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
FIELDS = {"stage": str, "schema_version": int, "config": dict, "inputs": dict, "outputs": dict, "digest": str}


def file_input(path: str | Path) -> dict:
    """Describe an input that is a plain file, for `Stage(inputs=...)`: its name, the sha256 of its bytes, and where it lies.

    The place is not recorded: the manifest may be read elsewhere.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    return {"file": Path(path).name, "digest": file_sha256(path), "path": str(path)}


def read_manifest(directory: str | Path, stage: str | tuple[str, ...] | None = None) -> dict:
    """The manifest of a finished stage directory, whose outputs are read and compared with their recorded sha256.

    Raises InputError when the directory is missing, unfinished, of another stage than named, or differs from its manifest.
    """
    directory = Path(directory)
    if not directory.is_dir():
        unfinished = directory.with_name(directory.name + ".partial").is_dir()
        raise InputError(f"{directory}: {'its stage has not finished yet' if unfinished else 'no such directory'}")
    if not (directory / MANIFEST).is_file():
        raise InputError(f"{directory}: not a stage directory (it has no {MANIFEST})")
    manifest = parse_manifest(directory / MANIFEST)
    expected = (stage,) if isinstance(stage, str) else stage
    if expected and manifest["stage"] not in expected:
        raise InputError(f"{directory}: holds a {manifest['stage']!r} stage where {' or '.join(map(repr, expected))} is needed")
    for name, output in manifest["outputs"].items():
        path = directory / name
        if not path.is_file() or path.stat().st_size != output["bytes"]:
            raise InputError(f"{path}: missing or not the {output['bytes']} bytes that {MANIFEST} records")
        if file_sha256(path) != output["sha256"]:
            raise InputError(f"{path}: damaged or changed since it was written (its sha256 is not the one in {MANIFEST})")
    return manifest


def parse_manifest(path: Path) -> dict:
    """The manifest in a file, its outputs not looked at. Raises InputError when it is not, as a whole, what a stage wrote."""
    manifest = read_json(path)
    for name, kind in FIELDS.items():
        if not isinstance(manifest.get(name), kind):
            raise InputError(f"{path}: not the manifest of a stage (its field {name!r} is missing or of another kind)")
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise InputError(f"{path}: of another version of this program ({manifest['schema_version']}, here {SCHEMA_VERSION})")
    described = [*manifest["inputs"].values(), *manifest["outputs"].values()]
    if not all(isinstance(entry, dict) for entry in described) or manifest["digest"] != manifest_digest(manifest):
        raise InputError(f"{path}: damaged or changed since it was written (its own digest does not fit)")
    return manifest | {"item_map": manifest.get("item_map")}


def manifest_digest(manifest: dict) -> str:
    """sha256 over what a stage did and what came out; paths, times and versions do not count."""
    inputs = {name: described.get("digest") for name, described in manifest["inputs"].items()}
    content = {name: manifest[name] for name in ("stage", "schema_version", "config", "outputs")}
    return json_sha256(content | {"inputs": inputs})


def stage_input(directory: str | Path, stage: str | tuple[str, ...] | None = None) -> dict:
    """Describe an input that is a stage directory: its path, stage, and the digest of its manifest."""
    manifest = read_manifest(directory, stage)
    return {"directory": str(directory), "stage": manifest["stage"], "digest": manifest["digest"]}


def stage_directory(directory: str | Path) -> Path:
    """The stage directory that a model belongs to: itself, or the one around a `checkpoint-N` or a jointly trained `teacher`."""
    directory = Path(directory)
    while not (directory / MANIFEST).is_file() and _lies_inside_a_stage(directory):
        directory = directory.parent
    return directory


def _lies_inside_a_stage(directory: Path) -> bool:
    joint_teacher = directory.name == "teacher" and (directory / "recommender.json").is_file()
    return directory.name.startswith("checkpoint-") or joint_teacher


def require_same_item_map(first: str | Path, second: str | Path) -> None:
    """Refuse to combine two stage directories whose item ids mean different items."""
    maps = [read_manifest(directory)["item_map"] for directory in (first, second)]
    if maps[0] != maps[1]:
        raise InputError(f"{first} and {second} do not number the same items (item-map digests {maps[0]} and {maps[1]})")


# -- where inputs lie ---------------------------------------------------------------------------------------------------------


def described_place(directory: str | Path, stage_directory: Path) -> dict:
    """How a manifest records where an input directory lies: from the stage's real place, so that both may move together; where
    links lead elsewhere, also as their names stand to each other, which is where a copy that follows links has it; and as the
    user named it from the working directory, where that is no absolute path."""
    place = {"directory": os.path.relpath(os.path.realpath(directory), os.path.realpath(stage_directory))}
    by_names = os.path.relpath(directory, stage_directory)
    place |= {"by_names": by_names} if by_names != place["directory"] else {}
    return place if Path(directory).is_absolute() else place | {"named": str(directory)}


def input_directory(stage_directory: str | Path, name: str) -> Path:
    """Where the input `name` of a finished stage lies: by the stage's own place, else as it was named from the working directory.

    A directory of other content does not count. Where none is found, the first place is given. Raises InputError when the
    manifest has no such input.
    """
    described = read_manifest(stage_directory)["inputs"].get(name, {})
    if "directory" not in described:
        raise InputError(f"{stage_directory}: its manifest records no input directory {name!r}")
    starts = (stage_directory, os.path.realpath(stage_directory))
    ways = [described[way] for way in ("directory", "by_names") if way in described]
    places = [Path(os.path.normpath(Path(start) / way)) for way in ways for start in starts]
    places += [Path(described["named"])] if "named" in described else []
    return next((place for place in places if _holds(place, described)), places[0])


def _holds(place: Path, described: dict) -> bool:
    """Whether a directory is the described input; of one without a manifest (a checkpoint) only that it is there can be said."""
    if not place.is_dir():
        return False
    return not (place / MANIFEST).is_file() or read_json(place / MANIFEST).get("digest") == described.get("digest")
