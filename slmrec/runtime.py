"""What every entry point needs around its work: one-line errors, logging, seeds."""

from __future__ import annotations

import logging
import os
import random
import re
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from slmrec import processes
from slmrec.checks import device_name
from slmrec.errors import InputError, tell
from slmrec.progress import LogLines, clear_line

STATUS = Path("/proc/self/status")
FIRST_SPEAKS = 10.0  # seconds that the other processes leave it to say what they have in common, before they are ended
LAUNCHER_ENDS = 60.0  # that a process whose error is the end of another one leaves the launcher to end it, on a busy machine too


def run_main(main: Callable[[list[str] | None], None]) -> None:
    """Run an entry point: what the user, files and disks cause becomes one line on stderr, a bug stays a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[LogLines()])
    logging.getLogger("slmrec").setLevel(logging.INFO)
    quiet_libraries()
    with processes.left_at_once():
        try:
            main(None)
        except (Exception, KeyboardInterrupt) as error:
            clear_line()
            if processes.lost_another(error):
                time.sleep(LAUNCHER_ENDS)
            elif not processes.first():
                time.sleep(FIRST_SPEAKS)
            status = tell(error)
            if status is None:
                raise
            sys.exit(status)


def quiet_libraries() -> None:
    """Leave the terminal to this project's own lines: transformers shows bars and reports for each file that it reads or writes,
    and tells its users, not ours, what it will rename."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # the name that earlier ones know
    warnings.filterwarnings("ignore", r"`isinstance\(treespec", FutureWarning)  # of torch about its ONNX exporter
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its tries to reach the hub end in one line of ours
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # operators that nothing here has
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
    else:  # it reads these when a stage imports it, and a stage that has no need of it does not wait for it
        os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch."""
    import torch  # the data stage uses this module and has no need of torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def pick_device(name: str = "auto"):
    """The torch.device for `auto|cpu|cuda|cuda:1...`. Raises InputError when CUDA is named and not there."""
    import torch

    device_name("device", name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: no such CUDA device is available")
    if device == torch.device("cuda") and processes.number() > 1:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


def peak_memory_mib(device) -> float:
    """The most memory this process has held so far, in MiB: of a CUDA device what its allocator gave, else resident memory."""
    import torch

    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    if STATUS.is_file():  # Linux, whose ru_maxrss starts at what the parent process held when it started this one
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", STATUS.read_text(encoding="utf-8"))
        return round(int(peak) / 2**10, 1)
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)
