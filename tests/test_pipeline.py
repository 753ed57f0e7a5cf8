"""run_pipeline.sh once from raw reviews to the table, on a small file that a user might have; then again, and with a change."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from slmrec.artifacts import read_json, read_manifest
from slmrec.data import demo

ROOT = Path(__file__).parent.parent
SMALL = {
    "sasrec": "--sasrec.num_epochs 1 --sasrec.hidden_size 16",
    "backbone": "--backbone.hidden_size 32 --backbone.num_layers 4",
    "llm": "--teacher.num_layers 4 --student.num_layers 2 --num_blocks 2 --max_steps 4 --save_steps 2 --lambda_ms 0.5",
    "everywhere": "--num_candidates 50 --seed 3 --device cpu",
}
NAMES = ["data", "titles", "sasrec", "embeddings", "backbone", "teacher e4srec_4", "baseline e4srec_2", "student slmrec_2_4"]
NAMES += [f"evaluate {model}" for model in ("sasrec", "e4srec_4", "e4srec_2", "slmrec_2_4")]


def pipeline(directory, *more):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    flags = [
        "--reviews",
        "my reviews/reviews.json.gz",
        "--meta",
        "my reviews/meta.json.gz",
        *" ".join(SMALL.values()).split(),
        *more,
    ]
    command = ["bash", str(ROOT / "run_pipeline.sh"), "mine", *flags]
    started = time.monotonic()
    outcome = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=580, check=False)
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    lines = {}
    for text in re.findall(r"^\[\d+/13\] (.*)$", outcome.stdout, re.MULTILINE):
        name, _, said = re.sub(r"  +", "  ", text).partition("  ")
        lines.setdefault(name, []).append(said)
    return outcome, lines, time.monotonic() - started


def test_raw_reviews_to_the_table_and_again(tmp_path):
    demo.main(["--num_users", "120", "--num_items", "110", "--output_dir", str(tmp_path / "my reviews")])
    outcome, lines, first_seconds = pipeline(tmp_path)
    run = tmp_path / "runs/mine"

    # what every stage was given
    assert list(lines) == NAMES
    assert re.search(r"^sasrec +--num_epochs 1 --hidden_size 16 --seed 3 --device cpu$", outcome.stderr, re.MULTILINE)
    configs = {name: read_manifest(run / name)["config"] for name in ("sasrec", "backbone", "e4srec_4", "e4srec_2", "slmrec_2_4")}
    assert [config.get("seed", config.get("training", {}).get("seed")) for config in configs.values()] == [3] * 5
    assert [configs[name]["num_layers"] for name in ("e4srec_4", "e4srec_2", "slmrec_2_4")] == [4, 2, 2]
    assert configs["slmrec_2_4"]["lambda_ms"] == 0.5 and configs["e4srec_4"]["num_candidates"] == 50
    assert read_manifest(run / "e4srec_4/evaluation-test")["config"]["num_candidates"] == 50
    assert read_manifest(run / "slmrec_2_4")["inputs"]["teacher"]["directory"] == "../e4srec_4"

    # what came out; all of these items have a title
    assert "100% of the items have a title: the item table starts from them (--text_use off: the paper's way)" in outcome.stdout
    assert read_manifest(run / "sasrec")["config"]["text"]["text_use"] == "start"
    table = (run / "comparison.md").read_text()
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert rows == 2 * ["Model", "SASRec from titles", "E4SRec_4", "E4SRec_2", "SLMRec_2<-4"] and "Synthetic data:" in table
    last = read_json(run / "slmrec_2_4/metrics.json")["history"][-1]["train"]
    assert {"loss_ce", "loss_cos", "loss_norm", "loss_ms"} <= last.keys()
    assert not list(run.glob("*.partial"))

    # again: nothing is started
    before = {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")}
    _, lines, seconds = pipeline(tmp_path)
    assert lines == {name: ["up to date"] for name in NAMES}
    assert {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")} == before
    assert seconds < first_seconds / 4

    # changed: the student and its evaluation alone, and it says what changed
    _, lines, _ = pipeline(tmp_path, "--lambda_ms", "0.25")
    redone = {name for name, said in lines.items() if said != ["up to date"]}
    assert redone == {"student slmrec_2_4", "evaluate slmrec_2_4"}
    assert lines["student slmrec_2_4"][0] == "made again: lambda_ms was 0.5, is 0.25"
    assert read_manifest(run / "slmrec_2_4")["config"]["lambda_ms"] == 0.25
