"""Several processes against one: what differs, for every stage that trains or evaluates, under each launcher.

    python -m reproduce.efficiency.process_counts --json results/efficiency/cpu_process_counts.json

Each run is a real one: `torchrun --nproc_per_node N stage.py ...`, for the first number of processes also `accelerate launch
--config_file scripts/accelerate/one_machine_8_gpus.yaml --num_processes N stage.py ...` and the stage's own `--launch N`. Data
are synthetic and small, the global batch and the seed are the same, dropout is off. The rows of an epoch do not divide by the
batch, nor those of a batch by the number of processes. Compared with one process are each step's loss and its terms (largest
difference), the best step, every metric of validation, and of evaluation every rank. With --kills N each stage that trains is
also killed N times, a random process of two at a random moment, and started again.
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
from reproduce.table import to_text
from slmrec.artifacts import read_json, write_json
from slmrec.checks import at_least, each
from slmrec.command_line import parse_arguments
from slmrec.errors import InputError
from slmrec.runtime import run_main

ROOT = Path(__file__).parents[2]
ACCELERATE = "scripts/accelerate/one_machine_8_gpus.yaml"  # its MULTI_CPU would start one process, or mpirun
ROWS = 60  # of a step, in all processes together
STEPS = 8


@dataclass
class ProcessArguments:
    """What to compare."""

    processes: list[int] = field(default_factory=lambda: [2, 4], metadata={"help": "numbers of processes; they divide 60"})
    stages: list[str] = field(default_factory=lambda: list(STAGES), metadata={"help": "names as in the table"})
    launchers: list[str] = field(default_factory=lambda: list(LAUNCHERS), metadata={"help": "torchrun, accelerate, launch"})
    kills: int = field(default=0, metadata={"help": "random kills of each stage that trains"})
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


class Inputs:
    """Synthetic data, item vectors and a random decoder, made once in a directory."""

    def __init__(self, directory: Path):
        self.directory = directory
        module, script = (lambda name: ["-m", name]), (lambda name: [name])
        self._run(module("slmrec.data.demo"), output_dir="raw", num_users=400, num_items=150)
        self._run(module("slmrec.data"), input=self.path("raw/reviews.json.gz"), output_dir="data")
        encoder = {"model": "sasrec", "data": self.path("data"), "hidden_size": 16, "num_epochs": 1, "device": "cpu"}
        self._run(script("train_sr_trad.py"), **encoder, output_dir="encoder")
        self._run(script("extract_emb.py"), encoder=self.path("encoder"), output_dir="embeddings")
        self._run(module("slmrec.llm.make_backbone"), hidden_size=32, num_layers=4, output_dir="backbone")
        teacher = stage_words("finetune", self, 1)
        self._run(teacher[:1], *teacher[1:], output_dir="teacher")

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def _run(self, words: list[str], *more: str, output_dir: str, **flags) -> None:
        given = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        command = [sys.executable, *words, *more, *given, "--output_dir", self.path(output_dir)]
        ended = subprocess.run(command, cwd=ROOT, env=one_thread(), capture_output=True, text=True, check=False)
        if ended.returncode:
            raise InputError(f"{' '.join(words)}: {ended.stderr.strip().splitlines()[-1]}")


def llm_flags(inputs: Inputs, processes: int) -> dict:
    flags = {"data": inputs.path("data"), "base_model": inputs.path("backbone"), "device": "cpu", "num_candidates": 99}
    flags |= {"max_steps": STEPS, "save_steps": STEPS // 2, "warmup_steps": 1, "learning_rate": 0.003, "logging_steps": 1}
    return flags | {"per_device_train_batch_size": ROWS // processes, "seed": 1}


def finetune_flags(inputs: Inputs, processes: int) -> dict:
    return llm_flags(inputs, processes) | {"embeddings": inputs.path("embeddings"), "num_layers": 4, "targets": "all"}


def lora_flags(inputs: Inputs, processes: int) -> dict:
    return finetune_flags(inputs, processes) | {"train_strategy": "lora", "lora_dropout": 0}


def student_flags(inputs: Inputs, processes: int) -> dict:
    return finetune_flags(inputs, processes) | {"targets": "last", "num_layers": 2, "num_blocks": 2}


def offline_flags(inputs: Inputs, processes: int) -> dict:
    return student_flags(inputs, processes) | {"targets": "all", "teacher": inputs.path("teacher")}


def cached_flags(inputs: Inputs, processes: int) -> dict:
    return offline_flags(inputs, processes) | {"teacher_cache": inputs.path(f"states_{processes}_{time.time_ns()}")}


def online_flags(inputs: Inputs, processes: int) -> dict:
    return student_flags(inputs, processes) | {"online": "true", "teacher_layers": 4}


def encoder_flags(inputs: Inputs, processes: int) -> dict:
    flags = {"data": inputs.path("data"), "model": "sasrec", "batch_size": 47, "num_epochs": 4, "dropout": 0}
    return flags | {"hidden_size": 16, "device": "cpu"}


def evaluate_flags(inputs: Inputs, processes: int) -> dict:
    flags = {"model": inputs.path("teacher"), "full_ranking": "true", "eval_batch_size": 7, "device": "cpu"}
    return flags | {"num_candidates": 99}


STAGES = {
    "finetune": ("finetune.py", finetune_flags),
    "finetune, LoRA": ("finetune.py", lora_flags),
    "distill, offline": ("distill.py", offline_flags),
    "distill, cached": ("distill.py", cached_flags),
    "distill, online": ("distill.py", online_flags),
    "train_openp5": ("train_openp5.py", llm_flags),
    "train_sr_trad": ("train_sr_trad.py", encoder_flags),
    "evaluate": ("evaluate.py", evaluate_flags),
}


def stage_words(stage: str, inputs: Inputs, processes: int) -> list[str]:
    """Script and flags of a stage, but for --output_dir."""
    script, flags = STAGES[stage]
    return [script, *(text for name, value in flags(inputs, processes).items() for text in (f"--{name}", str(value)))]


def torchrun(words: list[str], processes: int) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), *words]


def accelerate_launch(words: list[str], processes: int) -> list[str]:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", ACCELERATE]
    return [*launcher, "--num_processes", str(processes), *words]


def own_flag(words: list[str], processes: int) -> list[str]:
    return [sys.executable, *words, "--launch", str(processes)]


LAUNCHERS = {"torchrun": torchrun, "accelerate": accelerate_launch, "launch": own_flag}


def one_thread() -> dict[str, str]:
    """The environment of a run: one thread a process, and no launcher around it."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("LAUNCH", "LOCAL_RANK", "RANK", "WORLD_SIZE")}
    return inherited | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


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


def compare_all(arguments: ProcessArguments, inputs: Inputs) -> Iterator[dict]:
    """A record for each stage, launcher and number of processes."""
    for stage in arguments.stages:
        alone = inputs.directory / "one" / stage
        require_success(started([sys.executable, *stage_words(stage, inputs, 1)], alone), stage)
        seconds = {}
        for launcher, number in turns(arguments):
            what, shared = f"{stage}, {launcher} {number}", inputs.directory / f"{launcher}_{number}" / stage
            began = time.perf_counter()
            require_success(started(LAUNCHERS[launcher](stage_words(stage, inputs, number), number), shared), what)
            seconds[launcher, number] = time.perf_counter() - began
            yield {"stage": stage, "launcher": launcher, "processes": number} | compare(alone, shared)
        if stage != "evaluate":
            yield from kill_and_resume(arguments, inputs, stage, alone, next(iter(seconds.values())))


def turns(arguments: ProcessArguments) -> list[tuple[str, int]]:
    """The first launcher with every number of processes, the others, which start the same, with the first number."""
    first, *others = arguments.launchers
    return [(first, number) for number in arguments.processes] + [(other, arguments.processes[0]) for other in others]


def kill_and_resume(arguments: ProcessArguments, inputs: Inputs, stage: str, alone: Path, whole: float) -> Iterator[dict]:
    """One of two processes ends by SIGKILL at a random moment of about `whole` seconds; what is started again finishes."""
    chance = random.Random(f"{arguments.seed} {stage}")
    words = torchrun(stage_words(stage, inputs, 2), 2)
    for turn in range(arguments.kills):
        shared, moment, rank = inputs.directory / f"killed_{turn}" / stage, chance.uniform(0.2, 1) * whole, chance.randrange(2)
        killed = killed_at(started(words, shared), moment, rank)
        require_success(started(words, shared), f"{stage}, started again")
        made = {"stage": stage, "launcher": "torchrun", "processes": 2, "killed": killed, "after_seconds": round(moment, 1)}
        yield made | compare(alone, shared)


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


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments(ProcessArguments, argv, description=__doc__)
    measured = []
    with tempfile.TemporaryDirectory() as directory:
        for record in compare_all(arguments, Inputs(Path(directory))):
            measured.append(record)
            print(record, flush=True)
    print(as_text(measured))
    if arguments.json:
        where = environment("reproduce.efficiency.process_counts", argv, torch.device("cpu"))
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.json, {"measured": measured, "environment": where})


if __name__ == "__main__":
    run_main(main)
