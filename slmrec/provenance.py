"""What a result was made with: the command, the commit and the versions of libraries."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "numpy", "polars", "safetensors")


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
