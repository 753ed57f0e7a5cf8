"""Figures of hand-written summaries: that they exist, say what they show, and come out the same twice."""

from __future__ import annotations

import re
from xml.dom import minidom

import numpy as np
import pytest
from matplotlib.text import Text

from reproduce import figures
from reproduce.experiments import EXPERIMENTS
from tests.reproduce.test_tables import a_run, cold_summary, depth_infer_summary, layers_summary, model_summary, stats_summary


def text(picture):
    """All text of a figure."""
    return {found.get_text() for found in picture.figure.findobj(Text)}


@pytest.mark.parametrize("experiment", ["main", "depth-train"])
def test_both_formats_are_written(experiment, tmp_path):
    (picture,) = figures.pictures(model_summary(experiment), None)
    figures.save(picture, tmp_path / "new" / experiment)
    words = " ".join(text(picture))
    assert "sampled" in words and "all items" in words
    assert (tmp_path / "new" / f"{experiment}.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "new" / f"{experiment}.svg").stat().st_size > 5000
    assert picture.caption


def test_every_experiment_that_compares_models_is_drawn():
    for experiment in (name for name, entry in EXPERIMENTS.items() if entry.kind == "models"):
        assert len(figures.pictures(model_summary(experiment), None)) == 1


def test_differences_by_hand():
    """The seed that both have: 15 - 10 points of MRR among candidates, half of that in full ranking."""
    (picture,) = figures.pictures(model_summary("main"), None)
    for panel, difference, reference in zip(picture.figure.axes, (5.0, 2.5), ("11.00", "5.50"), strict=True):
        assert [bar.get_width() for bar in panel.patches] == [pytest.approx(difference)]
        assert panel.get_title(loc="right").endswith(f"minus SASRec's {reference}")
    assert {"+5.00", "+2.50", "SLMRec_4<-8"} <= text(picture)


def test_a_difference_has_the_deviation_of_its_seeds():
    summary = model_summary("main")
    runs = summary["models"][1]["runs"]
    runs.append(a_run(1, "distill", 0.13, 0.05))  # 15 - 10 and 13 - 12
    (picture,) = figures.pictures(summary, None)
    assert [found.get_text() for found in picture.figure.axes[0].texts] == ["+3.00 ± 2.83"]


def test_a_bar_far_longer_than_the_others_ends_at_the_edge():
    summary = model_summary("main")
    model = summary["models"][1]
    for number, mrr in enumerate((0.101, 0.102, 0.103, 0.9)):
        summary["models"].append(model | {"name": f"m{number}", "label": f"m{number}", "runs": [a_run(0, "distill", mrr, 0.05)]})
    del summary["models"][1]
    (picture,) = figures.pictures(summary, None)
    assert picture.figure.axes[0].get_xlim()[1] < 2 and "+80.00" in [found.get_text() for found in picture.figure.axes[0].texts]


def test_the_same_summary_gives_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        (picture,) = figures.pictures(model_summary("depth-train"), model_summary())
        figures.save(picture, tmp_path / name)
    for suffix in ("svg", "png"):
        assert (tmp_path / f"first.{suffix}").read_bytes() == (tmp_path / f"second.{suffix}").read_bytes()
    assert "<dc:date>" not in (tmp_path / "first.svg").read_text()


def test_points_by_hand():
    means, deviations = figures.points([[0.10, 0.12], [0.15]])
    np.testing.assert_allclose(means, [11.0, 15.0])
    np.testing.assert_allclose(deviations, [2**0.5, np.nan])


def test_a_curve_goes_through_the_means():
    (picture,) = figures.pictures(model_summary("depth-train"), None)
    panel = picture.figure.axes[0]  # MRR among sampled candidates
    assert panel.get_ylabel() == "MRR, sampled (%)" and panel.get_xlabel() == "decoder layers"
    np.testing.assert_allclose(panel.lines[0].get_xydata(), [[1, 11], [4, 15]])
    assert "no numbers" in picture.caption


def test_sasrec_is_a_line_across_where_main_has_it():
    summary = model_summary("depth-train")
    summary["models"][0]["label"] = "E4SRec_1"
    (without,) = figures.pictures(summary, None)
    assert "SASRec" not in text(without)
    (picture,) = figures.pictures(summary, model_summary())
    assert "SASRec" in text(picture)
    heights = [line.get_ydata() for line in picture.figure.axes[0].lines if line.get_label() == "SASRec"]
    np.testing.assert_allclose(heights, [[11, 11]])


def test_layers_with_and_without_the_norm():
    (picture,) = figures.pictures(depth_infer_summary(), None)
    assert {"e4srec_8, as it is", "e4srec_8, after the final norm", "layer that is read"} <= text(picture)


def test_undefined_similarity_is_grey():
    (picture,) = figures.pictures(layers_summary(), None)
    left, right = picture.figure.axes[:2]
    np.testing.assert_allclose([bar.get_height() for bar in left.patches], [0.6, 0.1])
    image = right.collections[0].get_array()
    assert np.ma.getmaskarray(image)[0].all() and image[1, 2] == pytest.approx(0.8)
    assert {"block influence", "CKA", "layer"} <= text(picture)


def test_groups_name_their_users():
    (picture,) = figures.pictures(cold_summary(), None)
    words = text(picture)
    assert {"SASRec", "3-4\n(1,234)", "items before the target (users)"} <= set(words)


def test_training_curves_and_loss_terms():
    curves, terms = figures.training_pictures(model_summary())
    assert {"epoch", "optimiser step", "SASRec", "SLMRec_4<-8"} <= text(curves)
    np.testing.assert_allclose(curves.figure.axes[0].lines[0].get_xydata(), [[10, 11], [20, 12]])
    words = text(terms)
    assert {"cross-entropy", "1 − D_cos"} <= words
    assert "SASRec" not in words


def test_no_figure_of_nothing_or_of_a_single_number():
    summary = model_summary()
    summary["models"][1]["runs"] = []
    assert figures.pictures(summary, None) == [] and figures.pictures(summary | {"experiment": "blocks"}, None) == []
    summary["models"][0]["runs"] = []
    assert figures.pictures(summary, None) == [] and figures.training_pictures(summary) == []
    assert figures.pictures(depth_infer_summary() | {"runs": []}, None) == []
    assert figures.pictures(stats_summary(), None) == []


def test_no_loss_terms_without_a_distilled_model():
    summary = model_summary()
    del summary["models"][1]
    assert [picture.name for picture in figures.training_pictures(summary)] == ["training-curves"]


def test_synthetic_data_are_named():
    summary = model_summary(synthetic=True)
    for picture in figures.pictures(summary, None) + figures.training_pictures(summary):
        assert any(word.startswith("SYNTHETIC data: ") for word in text(picture))
    (real,) = figures.pictures(model_summary(), None)
    assert not any("SYNTHETIC" in word for word in text(real))


def test_the_papers_differences_are_open_diamonds_beside_ours():
    """On Cloth the paper's SASRec has an MRR of 15.76, its SLMRec_4<-8 one of 18.74."""
    (picture,) = figures.pictures(model_summary("main", "cloth"), None)
    sampled, full = picture.figure.axes
    (diamonds,) = [line.get_xydata().tolist() for line in sampled.lines if line.get_marker() == "D"]
    assert diamonds == [[pytest.approx(18.74 - 15.76), 0.0]] and "Open diamonds" in picture.caption
    assert not any(line.get_marker() == "D" for line in full.lines)


def test_other_data_sets_have_no_diamonds():
    (picture,) = figures.pictures(model_summary("main"), None)
    assert not any(line.get_marker() == "D" for panel in picture.figure.axes for line in panel.lines)
    assert "diamond" not in picture.caption


def test_the_pages_figure_is_smaller_whole_and_in_the_pages_colours(tmp_path):
    (picture,) = figures.pictures(model_summary(), None)
    svg = figures.save(picture, tmp_path / "x")
    small = figures.inline_svg(svg, "x", "what it shows")
    assert len(small) < 0.7 * len(svg) and small.startswith('<svg role="img" aria-label="what it shows"')
    assert "currentColor" in small and "#000000" not in small and "metadata" not in small
    assert re.findall(r"<text[^>]*>([^<]*)", small) == re.findall(r"<text[^>]*>([^<]*)", svg)  # no number lost a digit
    minidom.parseString(small)
    assert "<g>" not in small and "</g>" in svg
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', small)
    assert used and set(used) == set(re.findall(r' id="([^"]+)"', small))
    assert not set(used) & set(re.findall(r' id="([^"]+)"', figures.inline_svg(svg, "y", "")))
    assert '"M1.2 -20.9"' in figures.inline_svg('<svg ><path d="M 1.234567 -20.999999"/><text>0.125</text></svg>', "x", "")


def test_neighbours_that_are_clipped_alike_are_one_group():
    path = '<path d="M {0} 0" {1}clip-path="url(#{2})"/>'
    turned = path.format(5, 'transform="scale(2)" ', "a")  # its clip is turned along, so it stays its own
    clipped = "".join([*(path.format(*one) for one in ((1, "", "a"), (2, "", "a"), (3, "", "b"), (4, "", "a"))), turned])
    small = figures.inline_svg(f'<svg ><clipPath id="a"/><clipPath id="b"/>{clipped}</svg>', "x", "")
    assert re.sub("f[0-9a-f]{5}-", "", small).endswith(
        '<g clip-path="url(#0)"><path d="M1 0"/><path d="M2 0"/></g><path d="M3 0" clip-path="url(#1)"/>'
        '<path d="M4 0" clip-path="url(#0)"/><path d="M5 0" transform="scale(2)" clip-path="url(#0)"/><style></style></svg>'
    )


def test_models_without_a_common_seed_have_no_difference():
    summary = model_summary("main")
    summary["models"][0]["runs"] = summary["models"][0]["runs"][1:]  # seed 1 alone, where the student has seed 0
    assert figures.pictures(summary, None) == []
