"""Every stage as a function of the directory it writes into, on inputs so small that it takes a second or so."""

from __future__ import annotations

import gc
import importlib
import threading
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

import distill
import embed_titles
import evaluate
import export
import extract_emb
import finetune
import slmrec.data.__main__ as data_stage
import slmrec.data.demo as demo_stage
import slmrec.llm.make_backbone as backbone_stage
import train_openp5
import train_sr_trad
from slmrec.llm.backbone import load_backbone

Main = Callable[[list[str]], None]

ENCODER = {"hidden_size": 8, "num_layers": 1, "num_epochs": 2, "patience": 2, "batch_size": 32, "device": "cpu"}
LLM = {
    **{"num_layers": 2, "max_steps": 2, "save_steps": 1, "warmup_steps": 1, "learning_rate": 0.003, "save_total_limit": 1},
    **{"per_device_train_batch_size": 16, "num_candidates": 20, "device": "cpu", "precision": "fp32"},
}


class Inputs:
    """Small inputs of every stage below a directory, made by the stages themselves.

    `stages` maps a name to (main, flags without --output_dir); those whose name ends in _again read the one before.
    """

    def __init__(self, root: Path):
        self.root = root
        made = {name: root / name for name in ("demo", "data", "encoder", "embeddings", "text", "backbone", "teacher")}
        source = {"data": made["data"], "embeddings": made["embeddings"], "base_model": made["backbone"]}
        reviews = {"format": "amazon", "input": made["demo"] / "reviews.json.gz", "meta": made["demo"] / "meta.json.gz"}
        student = LLM | source | {"teacher": made["teacher"], "num_blocks": 2, "num_layers": 2}
        self.stages: dict[str, tuple[Main, dict]] = {
            "demo": (demo_stage.main, {"num_users": 60, "num_items": 100}),
            "data": (data_stage.main, reviews | {"k_core": 3}),
            "encoder": (train_sr_trad.main, {"model": "sasrec", "data": made["data"]} | ENCODER),
            "embeddings": (extract_emb.main, {"encoder": made["encoder"], "pickle": True}),
            "text": (embed_titles.main, {"data": made["data"], "dimensions": 8}),
            "backbone": (backbone_stage.main, {"hidden_size": 16, "num_layers": 4, "num_heads": 2}),
            "teacher": (finetune.main, LLM | source | {"num_layers": 4}),
            "teacher_lora": (finetune.main, LLM | source | {"num_layers": 4, "train_strategy": "lora"}),
            "student": (distill.main, student),
            "student_cached": (distill.main, student | {"teacher_cache": root / "cache"}),
            "student_online": (distill.main, LLM | source | {"online": True, "teacher_layers": 4, "num_blocks": 2}),
            "openp5": (train_openp5.main, LLM | {name: source[name] for name in ("data", "base_model")}),
            "evaluation": (evaluate.main, {"model": made["teacher"], "device": "cpu", "full_ranking": True}),
            "export": (export.main, {"model": made["teacher"]}),
        }

    def make(self) -> None:
        """Run the stages that others read."""
        for name in ("demo", "data", "encoder", "embeddings", "text", "backbone", "teacher"):
            self.run(name, self.root / name)

    def warm_up(self) -> None:
        """Import and compute here what every forked process would: half of the seconds of a stage so small.

        polars is not called: the threads that it starts would be missing in a forked process.
        tqdm's own lock is one among processes, which a killed one would keep for good.
        """
        tqdm.set_lock(threading.RLock())
        tqdm.monitor_interval = 0
        for slow in ("torch.utils.tensorboard", "sklearn.decomposition", "sklearn.feature_extraction.text", "peft"):
            importlib.import_module(slow)
        load_backbone(str(self.root / "backbone"), 1).save_pretrained(self.root / "warm")
        gc.collect(), gc.freeze()

    def run(self, name: str, output: Path, **changes) -> None:
        """Run a stage in this process, its cache, if it has one, beside its output."""
        main, flags = self.stages[name]
        if "teacher_cache" in flags:
            changes = {"teacher_cache": output.parent / "cache"} | changes
        main(command_line(flags | {"output_dir": output} | changes))


def command_line(flags: dict) -> list[str]:
    """{"k_core": 3, "pickle": True} as ["--k_core", "3", "--pickle"]; None and False are left out."""
    words = []
    for name, value in flags.items():
        if value is not None and value is not False:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words
