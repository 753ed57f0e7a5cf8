"""Some tens of seconds of the campaign against lost and mixed results; `bash tests/campaign/run.sh` runs all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.campaign.tally import Tally

ROOT = Path(__file__).resolve().parent.parent


def test_a_seeded_part_of_the_campaign_finds_no_fault(tmp_path):
    parts, stages = ["kill", "pairs", "disk", "damage"], ["encoder", "embeddings", "evaluation", "teacher"]
    command = [sys.executable, "-m", "tests.campaign", "--share", "0.04", "--log", str(tmp_path / "log")]
    command += ["--parts", *parts, "--stages", *stages]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TMPDIR": str(tmp_path)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-1000:]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["part"], line["stage"]) for line in lines] == [(part, stage) for part in parts for stage in stages]
    assert all(line["counts"] and not line["faults"] for line in lines)


def test_a_campaign_that_was_stopped_keeps_its_outcomes():
    tally = Tally()
    tally.add("kill", "data", "equal")
    tally.add("kill", "data", "dead directory", "how")
    read = Tally.from_json(json.loads(json.dumps(tally.to_json())))
    assert read == tally and read.faults == ["kill, data: dead directory: how"]
    read.update(tally)
    assert "| kill | 1 | 4 | 2 | 0 | 0 | 2 |" in read.table()
