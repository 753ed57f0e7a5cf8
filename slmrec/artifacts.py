"""Stage directories: what one stage hands to the next.

A stage writes into `<output_dir>.partial` and the directory gets its name when it is whole, so a directory that exists under its
name is finished. Its `manifest.json` says what made it (configuration, inputs, versions) and what it holds (sha256 of each file).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from slmrec import progress
from slmrec.errors import InputError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
RUN = "run.json"  # what an unfinished directory is a run of
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "numpy", "polars", "safetensors")

logger = logging.getLogger(__name__)


def read_json(path: Path) -> dict:
    """Parse one JSON file. Raises InputError when it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None


def write_json(path: Path, content: dict) -> None:
    """Write JSON under a temporary name, then rename, so that a killed process leaves no half file."""
    temporary = Path(path).with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def file_sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def json_sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_input(path: str | Path) -> dict:
    """Describe an input that is a plain file, for `Stage(inputs=...)`: its name and the sha256 of its bytes."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    return {"file": Path(path).name, "digest": file_sha256(path)}


def read_manifest(directory: str | Path, stage: str | tuple[str, ...] | None = None) -> dict:
    """The manifest of a finished stage directory.

    Raises InputError when the directory is missing, unfinished, of another stage than named, or lost a byte of an output.
    """
    directory = Path(directory)
    if not directory.is_dir():
        unfinished = directory.with_name(directory.name + ".partial").is_dir()
        raise InputError(f"{directory}: {'its stage has not finished yet' if unfinished else 'no such directory'}")
    if not (directory / MANIFEST).is_file():
        raise InputError(f"{directory}: not a stage directory (it has no {MANIFEST})")
    manifest = read_json(directory / MANIFEST)
    expected = (stage,) if isinstance(stage, str) else stage
    if expected and manifest["stage"] not in expected:
        raise InputError(f"{directory}: holds a {manifest['stage']!r} stage where {' or '.join(map(repr, expected))} is needed")
    for name, output in manifest["outputs"].items():
        path = directory / name
        if not path.is_file() or path.stat().st_size != output["bytes"]:
            raise InputError(f"{path}: missing or not the {output['bytes']} bytes that {MANIFEST} records")
    return manifest


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
    maps = [read_manifest(directory).get("item_map") for directory in (first, second)]
    if maps[0] != maps[1]:
        raise InputError(f"{first} and {second} do not number the same items (item-map digests {maps[0]} and {maps[1]})")


class Stage:
    """One run of one stage.

    Use::

        stage = Stage("embeddings", output_dir, config, inputs, overwrite=False)
        if stage.up_to_date:
            return
        with stage:
            ...                       # write files into stage.path
            stage.metrics = {...}     # optional, becomes metrics.json
            stage.result = "..."      # for the stage's line on the terminal, beside stage.count ("110/110 steps")

    `config` is everything that determines the result (plain JSON values), `inputs` maps a name to `stage_input(...)` or
    `file_input(...)`. A finished directory with the same configuration and inputs is up to date; another run's is an InputError
    that names the differing key, or, with `overwrite`, is replaced once this run is whole. After a kill, `resumable` stages find
    their files in `stage.path` again (`stage.resumed` is then true); others start afresh.
    """

    def __init__(self, name, output_dir, config, inputs, *, overwrite=False, resumable=False, item_map=None, seed=None):
        self.name, self.output_dir = name, Path(output_dir)
        progress.begin(str(output_dir))
        self.config, self.inputs = json.loads(json.dumps(config)), inputs
        self.item_map, self.seed, self.resumable, self.overwrite = item_map, seed, resumable, overwrite
        for described in inputs.values():
            source = described.get("directory")
            if source and Path(source).resolve().is_relative_to(self.output_dir.resolve()):
                raise InputError(f"{output_dir}: writing this stage here would replace its own input {source}")
        self.path = self.output_dir.with_name(self.output_dir.name + ".partial")
        self.metrics: dict | None = None
        self.result = self.count = ""
        self.device = "cpu"
        self.resumed = False
        self.up_to_date = self._finished_before()
        if self.up_to_date:
            progress.say(f"{progress.head()}up to date")

    # -- what is there already -----------------------------------------------------------------------------------------------

    def _identity(self) -> dict:
        """What two runs must share to be the same run; paths do not count, contents do."""
        digests = {name: described["digest"] for name, described in self.inputs.items()}
        return {"stage": self.name, "schema_version": SCHEMA_VERSION, "config": self.config, "inputs": digests}

    def _finished_before(self) -> bool:
        """Whether this very run is there already. A directory that no stage wrote is never replaced."""
        if not self.output_dir.exists() or (self.output_dir.is_dir() and not any(self.output_dir.iterdir())):
            return False
        manifest = read_manifest(self.output_dir)
        recorded = {key: manifest[key] for key in ("stage", "schema_version", "config")}
        recorded["inputs"] = {name: described["digest"] for name, described in manifest["inputs"].items()}
        return self._same_run(recorded, self.output_dir, "a finished run")

    def _same_run(self, recorded: dict, directory: Path, what: str) -> bool:
        """False for another run that `overwrite` allows to be replaced. Raises InputError for one that it does not."""
        difference = first_difference(recorded, self._identity())
        if difference and not self.overwrite:
            key, theirs, ours = difference
            raise InputError(
                f"{directory}: holds {what} with {key} = {theirs!r}, this one has {ours!r} (--overwrite_output_dir replaces it)"
            )
        return difference is None

    # -- the run -------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Stage:
        self._started = time.time()
        identity_file = self.path / RUN
        if self.resumable and identity_file.is_file():
            self.resumed = self._same_run(read_json(identity_file), self.path, "an unfinished run")
        if self.path.exists() and not self.resumed:
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(identity_file, self._identity())
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            self._finish()
            if self.result:
                progress.finish(self.result, self.count)
        elif not (self.resumable and any(self.path.glob("checkpoint*"))):
            shutil.rmtree(self.path)  # nothing half-written stays behind; a killed process is handled by the next __enter__

    def _finish(self) -> None:
        if not (self.path / "config.json").exists():  # a Hugging Face checkpoint has its own; the manifest holds ours as well
            write_json(self.path / "config.json", self.config)
        if self.metrics is not None:
            write_json(self.path / "metrics.json", self.metrics)
        write_json(self.path / MANIFEST, self._manifest())
        replaced = self.output_dir.with_name(self.output_dir.name + ".replaced")
        shutil.rmtree(replaced, ignore_errors=True)  # left by a kill right here
        if self.output_dir.exists():
            os.rename(self.output_dir, replaced)
        os.rename(self.path, self.output_dir)
        shutil.rmtree(replaced, ignore_errors=True)
        (self.output_dir / RUN).unlink()

    def _manifest(self) -> dict:
        content = self._identity()
        content["outputs"] = {
            str(path.relative_to(self.path)): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for path in self._output_files()
        }
        inputs = {name: described | self._relative(described) for name, described in self.inputs.items()}
        return content | {
            "inputs": inputs,
            "digest": json_sha256(content),
            "item_map": self.item_map,
            "seed": self.seed,
            "command": command_line(),
            "git": git_state(),
            "libraries": library_versions(),
            "device": self.device,
            "wall_seconds": round(time.time() - self._started, 2),
            "resumed": self.resumed,
        }

    def _output_files(self) -> list[Path]:
        """Every file but the training checkpoints and TensorBoard logs, which a user may delete."""
        files = (path for path in sorted(self.path.rglob("*")) if path.is_file() and path.name not in (RUN, MANIFEST))
        return [path for path in files if not path.relative_to(self.path).parts[0].startswith(("checkpoint-", "runs"))]

    def _relative(self, described: dict) -> dict:
        if "directory" not in described:
            return {}
        return {"directory": os.path.relpath(described["directory"], self.output_dir)}


def first_difference(recorded, current, key: str = "") -> tuple[str, object, object] | None:
    """The first key at which two nested JSON values differ, with both values; None when they are equal."""
    if isinstance(recorded, dict) and isinstance(current, dict):
        for name in sorted(recorded.keys() | current.keys()):
            inner = first_difference(recorded.get(name), current.get(name), f"{key}.{name}" if key else name)
            if inner:
                return inner
        return None
    return None if recorded == current else (key, recorded, current)


def input_directory(stage_directory: str | Path, name: str) -> Path:
    """Where the manifest of a finished stage says that its input `name` lies."""
    described = read_manifest(stage_directory)["inputs"][name]
    return Path(os.path.normpath(Path(stage_directory) / described["directory"]))


def command_line() -> str:
    """The command that runs now, as it can be typed in the directory where it was."""
    script = os.path.relpath(sys.argv[0]) if sys.argv[0] else "-"
    return shlex.join(["python", script, *sys.argv[1:]])


def git_state() -> dict:
    """Commit and dirty flag of the code that runs; nulls outside a git checkout."""

    def ask(*arguments: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (FileNotFoundError, subprocess.CalledProcessError):
            return None

    status = ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": ask("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def library_versions() -> dict:
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"python": platform.python_version()} | versions
