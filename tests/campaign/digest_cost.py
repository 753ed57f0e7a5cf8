"""What checking digests costs, as ratios: of reading a large file, and of the time of whole commands.

python -m tests.campaign.digest_cost
"""

from __future__ import annotations

import resource
import statistics
import tempfile
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file, save_file

from slmrec import files
from tests.campaign.processes import run
from tests.campaign.stages import Inputs

MIB = 2**20
PAIRS = 9


def cpu_seconds(work) -> float:
    """CPU time rather than time on the clock: other processes take none of it."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def of_a_file(path: Path, mib: int) -> float:
    """Median ratio, over pairs, of hashing a file in the page cache to reading its tensors into memory of their own."""
    save_file({"weight": torch.randn(mib * MIB // 4096, 1024)}, path)
    ratios = []
    for _ in range(PAIRS):
        files.HASHED.clear()
        hashing = cpu_seconds(lambda: files.file_sha256(path))
        loading = cpu_seconds(lambda: {name: tensor.clone() for name, tensor in load_file(path).items()})
        ratios.append(hashing / loading)
    return statistics.median(ratios)


def of_a_command(inputs: Inputs, name: str, place: Path) -> float:
    """Share of a command's CPU time that goes into digests of what it reads and writes."""
    spent, original = [], files.hashlib.file_digest

    def counted(*arguments):
        digest = []
        spent.append(cpu_seconds(lambda: digest.append(original(*arguments))))
        return digest[0]

    files.HASHED.clear()
    with mock.patch.object(files.hashlib, "file_digest", counted):
        whole = cpu_seconds(lambda: inputs.run(name, place / name))
    return sum(spent) / whole


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(f"hashing to loading, 256 MiB: {of_a_file(Path(folder) / 'file.safetensors', 256):.2f}")
        inputs = Inputs(Path(folder) / "inputs")
        assert run(inputs.make, Path(folder) / "log").status == 0
        shares = {name: of_a_command(inputs, name, Path(folder)) for name in ("data", "encoder", "teacher", "evaluation")}
        print("digests' share of small commands: " + ", ".join(f"{name} {share:.2%}" for name, share in shares.items()))


if __name__ == "__main__":
    main()
