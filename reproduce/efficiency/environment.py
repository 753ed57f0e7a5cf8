"""What stands beside every measured time: command, code, libraries and machine."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from pathlib import Path

import torch

from slmrec.artifacts import git_state, library_versions


def environment(module: str, words: list[str] | None, device: torch.device) -> dict:
    """Where and how the numbers of `python -m module words` were taken; None stands for the words of the command line."""
    words = sys.argv[1:] if words is None else words
    return {
        "command": " ".join(["python", "-m", module, *map(str, words)]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "git": git_state(),
        "libraries": library_versions(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def cpu_model() -> str:
    """The processor's name and, where Linux tells, whether it multiplies bf16 matrices natively."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    native = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in found.get("flags", "").split()]
    return " ".join([found.get("model name", platform.machine()), *native])
