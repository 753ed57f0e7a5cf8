"""Several processes against one: what differs, for every stage that trains or evaluates, under each launcher.

    python -m reproduce.efficiency.process_counts --json results/efficiency/cpu_process_counts.json

Each run is a real one: `torchrun --nproc_per_node N stage.py ...`, `accelerate launch --config_file
scripts/accelerate/one_machine_8_gpus.yaml --num_processes N stage.py ...` and, with the first number of processes, the stage's
own `--launch N` and, for adapters, accelerate with FSDP (scripts/accelerate/fsdp_13b.yaml). The rows of an epoch do not divide by
the batch, nor those of a batch by the number of processes. Compared with one process are each step's loss and its terms (largest
difference), the best step, every metric of validation, and of evaluation every rank. Each stage that trains is also killed
--kills times, a random process of two at a random moment, and started again. What --json holds already, of the same commit, is
not run again.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch

from reproduce.efficiency.environment import environment
from reproduce.efficiency.process_stages import ROOT, ROWS, SHARDED, STAGES, Inputs, one_thread, stage_words
from reproduce.table import to_text
from slmrec.artifacts import git_state, read_json, write_json
from slmrec.checks import at_least, each
from slmrec.command_line import parse_arguments
from slmrec.errors import InputError
from slmrec.runtime import run_main

ACCELERATE = "scripts/accelerate/one_machine_8_gpus.yaml"  # its MULTI_CPU would start one process, or mpirun
FSDP = "scripts/accelerate/fsdp_13b.yaml"


@dataclass
class ProcessArguments:
    """What to compare."""

    processes: list[int] = field(default_factory=lambda: [2, 4], metadata={"help": "numbers of processes; they divide 60"})
    stages: list[str] = field(default_factory=lambda: list(STAGES), metadata={"help": "names as in the table"})
    launchers: list[str] = field(default_factory=lambda: list(LAUNCHERS), metadata={"help": "torchrun, accelerate, launch, fsdp"})
    kills: int = field(default=1, metadata={"help": "random kills of each stage that trains"})
    seed: int = field(default=0, metadata={"help": "of the random kills"})
    json: str | None = field(default=None, metadata={"help": "file to write the result to"})

    def __post_init__(self):
        each(at_least, self, "kills seed", 0)
        for given, known in ((self.stages, STAGES), (self.launchers, LAUNCHERS)):
            strange = next((name for name in given if name not in known), None)
            if strange:
                raise InputError(f"{strange}: choose of {', '.join(known)}")
        for number in self.processes:
            at_least("processes", number, 2)
            if ROWS % number:
                raise InputError(f"--processes {number}: does not divide {ROWS}")


def torchrun(words: list[str], processes: int) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), *words]


def accelerate_launch(words: list[str], processes: int, configuration: str = ACCELERATE) -> list[str]:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", configuration]
    return [*launcher, "--num_processes", str(processes), *words]


def fsdp(words: list[str], processes: int) -> list[str]:
    return accelerate_launch(words, processes, FSDP)


def own_flag(words: list[str], processes: int) -> list[str]:
    return [sys.executable, *words, "--launch", str(processes)]


LAUNCHERS = {"torchrun": torchrun, "accelerate": accelerate_launch, "launch": own_flag, "fsdp": fsdp}


def started(command: list[str], output: Path, **options) -> subprocess.Popen:
    words = [*command, "--output_dir", str(output)]
    return subprocess.Popen(
        words, cwd=ROOT, env=one_thread(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def require_success(process: subprocess.Popen, what: str) -> None:
    said, _ = process.communicate()
    if process.returncode:
        raise InputError(f"{what}: failed with status {process.returncode}\n{said}")


def compare(alone: Path, shared: Path) -> dict:
    """Largest differences between the runs in two directories, and what is equal to the last bit."""
    left, right = (read_json(directory / "metrics.json") for directory in (alone, shared))
    if (alone / "ranks.npz").is_file():
        ranks = [np.load(directory / "ranks.npz") for directory in (alone, shared)]
        same = all(np.array_equal(ranks[0][name], ranks[1][name]) for name in ranks[0].files)
        return {"ranks_equal": same, "metrics_equal": left == right}
    best = "best_step" if "best_step" in left else "best_epoch"
    return {
        "loss": largest_difference(loss_values(alone), loss_values(shared)),
        "valid": largest_difference(valid_values(left), valid_values(right)),
        "best_equal": left[best] == right[best],
    }


def largest_difference(left: list[float], right: list[float]) -> float:
    if len(left) != len(right) or not left:
        raise InputError(f"curves of {len(left)} and {len(right)} points cannot be compared")
    return float(np.abs(np.subtract(left, right)).max())


def loss_values(run: Path) -> list[float]:
    """Every loss and loss term of every step, or of an encoder's every epoch, in one order."""
    states = sorted(run.glob("checkpoint-*/trainer_state.json"), key=lambda path: int(path.parent.name.split("-")[1]))
    entries = read_json(states[-1])["log_history"] if states else read_json(run / "metrics.json")["history"]
    return [value for entry in entries for name, value in sorted(entry.items()) if name.startswith("loss")]


def valid_values(metrics: dict) -> list[float]:
    """Every metric of every validation."""
    if "valid_MRR" in metrics["history"][0]:
        return [entry["valid_MRR"] for entry in metrics["history"]]
    return [value for entry in metrics["history"] for _, value in sorted(entry["valid"].items())]


Turn = tuple[str, int, int | None]  # launcher, number of processes, and number of the kill where one of them is killed


def turns(arguments: ProcessArguments, stage: str) -> list[Turn]:
    """What a stage is tried with. `--launch` starts what torchrun does, and FSDP is for adapters: the first number suffices."""
    fewest = arguments.processes[:1]
    numbers = {"torchrun": arguments.processes, "accelerate": arguments.processes, "launch": fewest}
    numbers["fsdp"] = fewest if stage in SHARDED else []
    tried: list[Turn] = [(launcher, number, None) for launcher in arguments.launchers for number in numbers[launcher]]
    return tried + [("torchrun", 2, kill) for kill in range(arguments.kills) if stage != "evaluate"]


def compare_all(arguments: ProcessArguments, directory: Path, measured: list[dict]) -> Iterator[dict]:
    """A record for each stage and turn that is not among the `measured` ones; the runs lie in `directory`."""
    inputs = None
    done = {(entry["stage"], entry["launcher"], entry["processes"], entry.get("kill")) for entry in measured}
    for stage in arguments.stages:
        missing = [turn for turn in turns(arguments, stage) if (stage, *turn) not in done]
        if not missing:
            continue
        inputs = inputs or Inputs(directory)
        alone, began = directory / "one" / stage, time.perf_counter()
        require_success(started([sys.executable, *stage_words(stage, inputs, 1)], alone), stage)
        seconds = time.perf_counter() - began
        for launcher, number, kill in missing:
            shared = directory / f"{launcher}_{number}_{kill}" / stage
            command = LAUNCHERS[launcher](stage_words(stage, inputs, number), number)
            record = {"stage": stage, "launcher": launcher, "processes": number}
            if kill is not None:
                record |= {"kill": kill} | kill_once(command, shared, random.Random(f"{arguments.seed} {stage} {kill}"), seconds)
            require_success(started(command, shared), f"{stage}, {launcher} {number}")
            yield record | compare(alone, shared)


def kill_once(command: list[str], output: Path, chance: random.Random, whole: float) -> dict:
    """One of two processes ends by SIGKILL at a random moment of about `whole` seconds."""
    moment, rank = chance.uniform(0.4, 1) * whole, chance.randrange(2)
    return {"killed": killed_at(started(command, output), moment, rank), "after_seconds": round(moment, 1)}


def killed_at(process: subprocess.Popen, moment: float, rank: int) -> bool:
    """Kill one of the processes that torchrun has started; whether it was still at work."""
    time.sleep(moment)
    workers = [child for child in psutil.Process(process.pid).children() if process.poll() is None]
    chosen = [worker for worker in workers if worker.is_running() and worker.environ().get("RANK") == str(rank)]
    for worker in chosen:
        os.kill(worker.pid, signal.SIGKILL)
    process.communicate()
    return bool(chosen) and process.returncode != 0


def as_text(measured: list[dict]) -> str:
    """A line for each record."""
    rows = []
    for entry in measured:
        equal = [name.removesuffix("_equal") for name, value in entry.items() if name.endswith("_equal") and value]
        numbers = [f"{entry[name]:.1e}" if name in entry else "-" for name in ("loss", "valid")]
        rows.append([entry["stage"], entry["launcher"], str(entry["processes"]), *numbers, ", ".join(equal)])
        rows[-1].append({True: "yes", False: "had ended"}.get(entry.get("killed"), "no"))
    return to_text(["stage", "launcher", "processes", "loss", "validation", "equal", "killed"], rows)


def measured_before(path: str | None) -> list[dict]:
    """The records of an earlier run of the same commit, which so need not be run again."""
    if path is None or not Path(path).is_file():
        return []
    found, here = read_json(path), git_state()
    same = here["commit"] and not here["dirty"] and found["environment"]["git"] == here
    print(f"{path}: {'goes on' if same else 'of another commit, measured anew'}", flush=True)
    return found["measured"] if same else []


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments(ProcessArguments, argv, description=__doc__)
    measured = measured_before(arguments.json)
    where = environment("reproduce.efficiency.process_counts", argv, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as directory:
        for record in compare_all(arguments, Path(directory), measured):
            measured.append(record)
            print(record, flush=True)
            if arguments.json:
                Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
                write_json(arguments.json, {"measured": measured, "environment": where})
    print(as_text(measured))


if __name__ == "__main__":
    run_main(main)
