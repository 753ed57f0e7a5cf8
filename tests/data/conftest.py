import gzip
import json
import os
import sys
from pathlib import Path

import pytest

from slmrec.data.__main__ import main
from slmrec.runtime import run_main


@pytest.fixture
def data_cli(monkeypatch, capsys):
    """Run `python -m slmrec.data ...` in this process: returns (exit status, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["slmrec.data", *map(str, arguments)])
        capsys.readouterr()
        try:
            run_main(main)
            status = 0
        except SystemExit as exit_:
            status = exit_.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def write_reviews(tmp_path):
    """Write (user, item, rating, day) rows as Amazon JSON lines; returns the path."""

    def write(rows, name="reviews.json.gz"):
        text = {"reviewText": 'a "quoted" text'}
        lines = [
            json.dumps({"overall": rating, "reviewerID": user, "asin": item, **text, "unixReviewTime": day * 86400})
            for user, item, rating, day in rows
        ]
        path = tmp_path / name
        content = "".join(line + "\n" for line in lines).encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


@pytest.fixture(scope="session")
def shared_data():
    """The folder of the real review files."""
    shared = os.environ.get("SLMREC_SHARED")
    if not shared:
        pytest.skip("SLMREC_SHARED names no folder with the real review files")
    return Path(shared) / "data"
