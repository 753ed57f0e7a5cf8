"""The committed summaries can be read, and the committed Markdown is what they render to."""

from pathlib import Path

import pytest

from reproduce.cells import to_markdown
from reproduce.report import read_summaries
from reproduce.tables import tables

COMMITTED = Path(__file__).resolve().parents[2] / "results" / "tables"
SUMMARIES = read_summaries(COMMITTED)


@pytest.mark.parametrize("summary", SUMMARIES, ids=lambda summary: f"{summary.get('dataset', '')}-{summary['experiment']}")
def test_committed_markdown_is_what_the_summary_says(summary):
    stem = COMMITTED / summary.get("dataset", "") / summary["experiment"]
    assert Path(f"{stem}.md").read_text(encoding="utf-8") == "\n".join(map(to_markdown, tables(summary)))


def test_evidence_is_there():
    found = {(summary.get("dataset"), summary["experiment"]) for summary in SUMMARIES}
    for dataset, experiments in {
        "scientific": {
            "main",
            "ablation",
            "blocks",
            "depth-train",
            "depth-infer",
            "online",
            "cold",
            "layers",
            "regimes",
            "encoders",
        },
        "beauty": {"main", "ablation", "depth-train", "encoders"},
    }.items():
        assert {(dataset, experiment) for experiment in experiments} <= found
