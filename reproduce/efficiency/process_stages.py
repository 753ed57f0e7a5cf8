"""The stages of `reproduce.efficiency.process_counts`: small synthetic inputs, and flags with the same rows a step in all.

Dropout is off, as each process would draw its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from slmrec.errors import InputError

ROOT = Path(__file__).parents[2]
ROWS = 60  # of a step, in all processes together
STEPS = 8


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


def lora_student_flags(inputs: Inputs, processes: int) -> dict:
    return offline_flags(inputs, processes) | {"train_strategy": "lora", "lora_dropout": 0}


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
    "distill, LoRA": ("distill.py", lora_student_flags),
    "distill, cached": ("distill.py", cached_flags),
    "distill, online": ("distill.py", online_flags),
    "train_openp5": ("train_openp5.py", llm_flags),
    "train_sr_trad": ("train_sr_trad.py", encoder_flags),
    "evaluate": ("evaluate.py", evaluate_flags),
}
SHARDED = ("finetune, LoRA", "distill, LoRA")


def stage_words(stage: str, inputs: Inputs, processes: int) -> list[str]:
    """Script and flags of a stage, but for --output_dir."""
    script, flags = STAGES[stage]
    return [script, *(text for name, value in flags(inputs, processes).items() for text in (f"--{name}", str(value)))]


def one_thread() -> dict[str, str]:
    """The environment of a run: one thread a process, and no launcher around it."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("LAUNCH", "LOCAL_RANK", "RANK", "WORLD_SIZE")}
    return inherited | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
