"""The shared cases that are about machines and directories, not about data: each is done as its folder says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import evaluate
import train_sr_trad
from slmrec.artifacts import read_json

ROOT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def test_a_machine_without_sched_getaffinity_validates_and_evaluates(shared_cases, tiny_data, tmp_path):
    """no_sched_getaffinity, by its own run.py: macOS lacks the call."""
    small = "--model sasrec --num_epochs 1 --hidden_size 8 --num_layers 1 --device cpu".split()
    for script, flags in (
        ("train_sr_trad.py", ["--data", tiny_data, "--output_dir", tmp_path / "model", *small]),
        ("evaluate.py", ["--model", tmp_path / "model", "--output_dir", tmp_path / "ranks", "--num_candidates", "20"]),
    ):
        command = [sys.executable, shared_cases / "no_sched_getaffinity/run.py", ROOT / script, *flags]
        ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr[-1000:]
    evaluate.main(["--model", str(tmp_path / "model"), "--output_dir", str(tmp_path / "here"), "--num_candidates", "20"])
    assert read_json(tmp_path / "ranks/metrics.json")["test"] == read_json(tmp_path / "here/metrics.json")["test"]


def test_a_model_trained_through_a_link_is_evaluated_by_any_path(tiny_data, tmp_path, monkeypatch):
    """symlinked_runs: runs leads to another disk; its models are named through it, by their real path, and from inside it."""
    disk, tree = tmp_path / "disk/runs", tmp_path / "tree"
    disk.mkdir(parents=True)
    tree.mkdir()
    (tree / "runs").symlink_to(disk)
    found = []
    for number, data in enumerate(("data", "runs/data")):  # beside the link, and behind it
        shutil.copytree(tiny_data, tree / data)
        monkeypatch.chdir(tree)
        train_sr_trad.main(["--model", "popularity", "--data", data, "--output_dir", f"runs/pop{number}"])
        for here, model in ((tree, f"runs/pop{number}"), (tmp_path, f"{disk}/pop{number}"), (disk, f"pop{number}")):
            monkeypatch.chdir(here)
            ranks = tmp_path / f"ranks{len(found)}"
            evaluate.main(["--model", model, "--output_dir", str(ranks), "--num_candidates", "20"])
            found.append(read_json(ranks / "metrics.json")["test"])
    assert len(found) == 6 and all(metrics == found[0] for metrics in found)
