"""run_pipeline.sh from raw reviews to the table, on a small synthetic file that a user might have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from slmrec.artifacts import read_json, read_manifest
from slmrec.data import demo

ROOT = Path(__file__).parent.parent


def test_raw_reviews_to_the_table(tmp_path):
    demo.main(["--num_users", "300", "--num_items", "150", "--output_dir", str(tmp_path / "raw")])
    flags = ["--reviews", "raw/reviews.json.gz", "--meta", "raw/meta.json.gz", "--max_steps", "4", "--save_steps", "2"]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ENCODER_FLAGS": "--num_epochs 1 --hidden_size 16",
        "OMP_NUM_THREADS": "1",
    }
    command = ["bash", str(ROOT / "run_pipeline.sh"), "mine", *flags, "--lambda_ms", "0.5"]
    outcome = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert outcome.returncode == 0, outcome.stderr[-2000:]

    run = tmp_path / "runs/mine"
    table = (run / "comparison.md").read_text()
    assert table.startswith("Synthetic data:") and table in outcome.stdout
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert rows == 2 * ["Model", "SASRec", "E4SRec_8", "E4SRec_4", "SLMRec_4<-8"]
    student = read_manifest(run / "slmrec_4_8", "distill")
    assert student["config"]["lambda_ms"] == 0.5 and student["inputs"]["teacher"]["directory"] == "../e4srec_8"
    last = read_json(run / "slmrec_4_8/metrics.json")["history"][-1]["train"]
    assert {"loss_ce", "loss_cos", "loss_norm", "loss_ms"} <= last.keys()
    assert not list(run.glob("*.partial"))
