"""The committed summaries can be read, and the committed Markdown is what they render to."""

import re
import shutil
from pathlib import Path

import pytest

from reproduce import report
from reproduce.figures import KINDS
from reproduce.summary import read_summaries
from reproduce.table import to_markdown
from reproduce.tables import tables

ROOT = Path(__file__).resolve().parents[2]
COMMITTED, EARLY = ROOT / "results" / "tables", ROOT / "results" / "early_sasrec"  # the report shows the first alone
SUMMARIES, EARLIER = read_summaries(COMMITTED), read_summaries(EARLY)
PAGES = {"findings.md": COMMITTED, "random_decoders.md": ROOT / "results"}


@pytest.mark.parametrize(
    ("directory", "summary"),
    [*((COMMITTED, summary) for summary in SUMMARIES), *((EARLY, summary) for summary in EARLIER)],
    ids=lambda one: f"{one.get('dataset', '')}-{one['experiment']}" if isinstance(one, dict) else one.name,
)
def test_committed_markdown_is_what_the_summary_says(directory, summary):
    stem = directory / summary.get("dataset", "") / summary["experiment"]
    assert Path(f"{stem}.md").read_text(encoding="utf-8") == "\n".join(map(to_markdown, tables(summary)))


def test_evidence_is_there():
    found = {(summary.get("dataset"), summary["experiment"]) for summary in [*SUMMARIES, *EARLIER]}
    for dataset, experiments in {
        "scientific": {"encoders", "text", "quantise"},
        "scientific-early-sasrec": {
            "main",
            "ablation",
            "blocks",
            "depth-train",
            "depth-infer",
            "online",
            "cold",
            "layers",
            "regimes",
        },
        "beauty": {"encoders", "text"},
        "beauty-early-sasrec": {"main", "ablation", "depth-train"},
    }.items():
        assert {(dataset, experiment) for experiment in experiments} <= found


@pytest.mark.parametrize("page", PAGES)
def test_numbers_of_the_findings_stand_in_the_tables(page):
    """Every number with decimals, without its sign."""
    tables = "".join(path.read_text(encoding="utf-8") for path in PAGES[page].rglob("*.md"))
    known = set(re.findall(r"\d+\.\d+", tables))
    found = re.findall(r"\d+\.\d+", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert len(found) > 40 and [number for number in found if number not in known] == []


def test_the_committed_report_is_what_the_summaries_and_findings_say(tmp_path, monkeypatch):
    """But for its figures, which take half a minute to draw."""
    for path in COMMITTED.rglob("*.json"):
        target = tmp_path / path.relative_to(COMMITTED)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
    monkeypatch.setattr(report, "pictures", lambda summary, main: [])
    monkeypatch.setattr(report, "training_pictures", lambda main: [report.Picture("training", None, "")])
    rendered = report.render(tmp_path, tmp_path / "page.html", ROOT / "docs" / "findings.md", lambda *_: "<svg ></svg>")
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "report.html", rendered)]
    committed, fresh = (re.sub(r'<figure class="picture">.*?</figure>\s*', "", page, flags=re.DOTALL) for page in pages)
    command = "python -m reproduce.report --tables_dir results/tables --findings docs/findings.md --output docs/report.html"
    assert committed == fresh, f"{command} renders it anew"
    drawn = [one for one in SUMMARIES if report.EXPERIMENTS[one["experiment"]].kind in KINDS and report.is_new(one)]
    assert pages[0].count("<svg") >= len(drawn) > 10 and len(pages[0]) < 2**20
