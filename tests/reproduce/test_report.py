"""The page and the files beside it, from summaries on disk."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser

import pytest

from reproduce import report
from reproduce.table import NONE, Cell, Table
from slmrec.errors import InputError
from tests.reproduce.test_tables import (
    COMMAND,
    cold_summary,
    depth_infer_summary,
    efficiency_summary,
    layers_summary,
    model_summary,
    stats_summary,
    theory_summary,
)

ONLINE = model_summary("online", "demo", synthetic=True)
ONLINE["models"][1]["name"] = "slmrec_online"
SUMMARIES = [
    model_summary(),
    ONLINE,
    stats_summary(),
    depth_infer_summary(),
    layers_summary(),
    cold_summary(),
    efficiency_summary("demo"),
    theory_summary(),
]
VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """Tags, references, headings, and whether every tag is closed where it should be; a cell ends with the next, or its row."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.references, self.anchors, self.headings, self.text = [], [], [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.end_cell(tag in ("td", "th"))
        self.references += [value for name, value in attributes if name in ("src", "href")]
        self.anchors += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.end_cell(tag == "tr")
        assert self.open.pop() == tag

    def end_cell(self, ends):
        if ends and self.open[-1:] == ["td"]:
            self.open.pop()

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def write(directory, summary):
    path = directory / summary.get("dataset", "") / f"{summary['experiment']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary))
    return path


FINDINGS = "- **Depth** pays on scientific (`main.md`).\n"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A directory with a summary of every kind, rendered, and its page."""
    directory = tmp_path_factory.mktemp("tables")
    for summary in SUMMARIES:
        write(directory, summary)
    (directory / "findings.md").write_text(FINDINGS)
    arguments = ["--tables_dir", directory, "--findings", directory / "findings.md", "--output", directory / "page.html"]
    report.main([str(word) for word in arguments])
    return directory, (directory / "page.html").read_text()


def test_files_beside_the_summaries(rendered):
    directory, _ = rendered
    for summary in SUMMARIES:
        stem = directory / summary.get("dataset", "") / summary["experiment"]
        assert stem.with_suffix(".md").stat().st_size and list(stem.parent.glob(f"{stem.name}*.csv"))
    names = {path.name for path in (directory / "figures").iterdir()}
    shown = ["scientific_main", "demo_online", "scientific_depth-infer", "scientific_layers", "scientific_cold"]
    shown += ["scientific_training-curves", "scientific_loss-terms"]
    assert names == {f"{name}.{suffix}" for name in shown for suffix in ("png", "svg")}
    assert {"rank.md", "rank.csv", "hyperparameters.md", "hyperparameters.csv"} <= {path.name for path in directory.iterdir()}


def test_the_page_needs_no_other_file(rendered):
    _, html = rendered
    page = Page(html)
    assert page.open == [] and "script" not in page.tags and "link" not in page.tags and page.tags.count("svg") == 7
    assert page.references and all(reference.startswith(("#", "data:image/png;base64,")) for reference in page.references)
    assert len(html) < 500_000
    assert "@import" not in html and not re.search(r"url\((?!#)", html)


def test_links_lead_somewhere(rendered):
    page = Page(rendered[1])
    targets = [reference[1:] for reference in page.references if reference.startswith("#")]
    assert set(targets) <= set(page.anchors) and len(page.anchors) == len(set(page.anchors))
    assert {"online-demo", "main-scientific"} <= set(page.anchors)


def test_findings_come_first_and_sections_are_in_the_lists_order(rendered):
    assert Page(rendered[1]).headings == [
        "Findings",
        "How to read this",
        "Data sets (Table 1)",
        "Models compared (Tables 2 and 3)",
        "Depth: the layers of one trained model (Figures 2 and 5, a to c)",
        "Teacher and student trained together (RQ4)",
        "What each layer changes",
        "Short histories and rare targets",
        "Efficiency (Tables 5, 7 and 8)",
        "Propositions 1 and 2 (Section 6)",
        "Hyper-parameters (Table 6)",
        "Training curves and loss terms",
        "Not run yet",
        "Where each number comes from",
    ]
    assert "<strong>Depth</strong> pays on scientific (<code>main.md</code>)" in rendered[1]


def test_tables_and_figures_do_not_repeat_the_heading(rendered):
    section = rendered[1][rendered[1].index('<h2 id="cold">') :]
    assert section[: section.index("</section>")].count("Short histories and rare targets") == 1


def test_the_best_of_a_column_is_bold(rendered):
    assert "<b>15.00</b>" in rendered[1] and "<b>11.00" not in rendered[1]


def test_what_did_not_run_is_one_folded_list(rendered):
    html = rendered[1]
    folded = html[html.index('<h2 id="not-run">') : html.index('<section id="provenance">')]
    commands = re.findall("<code>(.*?)</code>", folded)
    assert "bash run_tables.sh blocks scientific" in commands and "bash run_tables.sh main demo" in commands
    assert "bash run_tables.sh main scientific" not in commands and "<details>" in folded


def test_an_experiment_that_shows_only_models_of_main_is_not_shown(tmp_path):
    write(tmp_path, model_summary())
    write(tmp_path, model_summary("student-size"))
    html = report.render(tmp_path, draw=lambda *_: "<svg ></svg>").read_text()
    assert "student-size" not in Page(html).anchors and "bash run_tables.sh student-size scientific" in html
    assert (tmp_path / "scientific" / "student-size.md").is_file()  # its table is written all the same


def test_every_run_is_traced_once(rendered):
    text = "".join(Page(rendered[1]).text)
    runs = [run for summary in SUMMARIES for model in summary.get("models", []) for run in model.get("runs", [])]
    runs += [run for summary in SUMMARIES for run in summary.get("runs", [])]
    assert len(runs) == 9
    for run in runs:
        assert run["provenance"]["digest"][:12] in text and run["provenance"]["command"] in text
    assert text.count("python encoder.py --seed 0") == 2  # on scientific and on demo, whatever number of experiments shows it
    assert "c" * 12 in text and "c" * 13 not in text
    assert "python -m reproduce.efficiency" in text and "python -m reproduce.theory" in text
    assert f"missing: {COMMAND}" in text


def test_synthetic_data_are_marked_everywhere(rendered):
    """The benchmark of a data set that another summary calls synthetic is marked as well."""
    directory, html = rendered
    for name in ("online", "efficiency"):
        assert (directory / "demo" / f"{name}.md").read_text().startswith("**SYNTHETIC data: ")
    assert html.count('demo <span class="synthetic">') == 3  # the head, and a heading per experiment
    assert "SYNTHETIC data. Difference in test MRR" in html
    assert "SYNTHETIC" not in (directory / "scientific" / "main.md").read_text()


def test_columns_of_numbers():
    rows = [
        ["a", Cell("1.00 ± 0.10", 1.0), "python x.py", NONE],
        ["b", Cell("12,101", 12101), "–", Cell("< 0.001", 1e-4)],
        ["c", "missing"],
    ]
    assert report.numeric_columns(Table("t", "", list("vwxy"), rows)) == [False, True, False, True]


def test_text_is_escaped(tmp_path):
    summary = model_summary()
    summary["models"][0]["label"] = "<i>SASRec</i>"
    write(tmp_path, summary)
    html = report.render(tmp_path, draw=lambda *_: "<svg ></svg>").read_text()
    assert "<i>" not in html and "&lt;i&gt;SASRec" in html


# -- what cannot be rendered --------------------------------------------------------------------------------------------------


def test_a_missing_directory_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match="run_tables.sh main"):
        report.render(tmp_path / "nothing")
    assert "learning_rate" in report.render(tmp_path).read_text()  # Table 6 needs no run


@pytest.mark.parametrize(
    "path, value, message",
    [
        (("experiment",), "nonsense", "known experiment"),
        (("experiment",), "online", "belongs in .*online.json"),
        (("dataset",), "beauty", "belongs in .*beauty"),
        (("models",), {}, "main.models: .*list"),
        (("models", 0, "label"), None, r"models\[0\].label: .*not None"),
        (("models", 0, "runs", 1, "metrics", "sampled", "MRR"), float("nan"), r"sampled.MRR: .*not nan"),
        (("models", 0, "runs", 0, "provenance"), {"stage": "encoder"}, r"provenance\.\w+: Field required"),
    ],
)
def test_a_malformed_summary_is_named(path, value, message, tmp_path):
    summary = copy.deepcopy(model_summary())
    file = write(tmp_path, summary)
    *outer, last = path
    inner = summary
    for key in outer:
        inner = inner[key]
    inner[last] = value
    file.write_text(json.dumps(summary))
    with pytest.raises(InputError, match=rf"scientific/main.json: .*{message}"):
        report.render(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '"main"', "{}"])
def test_other_files_are_named(content, tmp_path):
    (tmp_path / "notes.json").write_text(content)
    with pytest.raises(InputError, match="notes.json"):
        report.render(tmp_path)
