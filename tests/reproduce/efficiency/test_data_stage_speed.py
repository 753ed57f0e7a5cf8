"""The benchmark's file is a file of reviews, and what it writes is what it measured."""

import gzip
import json
from collections import Counter

import pytest

from reproduce.efficiency import data_stage as benchmark
from slmrec.errors import InputError


def test_generated_reviews_are_reviews(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "MEMBER_ROWS", 700)
    content = b"".join(benchmark.member(number, 2000) for number in range(3))
    reviews = [json.loads(line) for line in gzip.decompress(content).splitlines()]
    assert len(reviews) == 2000
    asins = [review["asin"] for review in reviews]
    assert asins == sorted(asins) and set(Counter(asins).values()) <= {30, 31}
    assert {review["overall"] for review in reviews} == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert all(review["unixReviewTime"] % 86400 == 0 for review in reviews)
    assert 200 < len(gzip.decompress(content)) / 2000 < 600
    assert b"".join(benchmark.member(number, 2000) for number in range(3)) == content


def test_small_run_writes_its_result_and_removes_its_file(tmp_path, capsys):
    paths = ["--work_dir", str(tmp_path / "work"), "--output", str(tmp_path / "result.json")]
    benchmark.main(["--rows", "20000", "--repeats", "1", *paths])
    result = json.loads((tmp_path / "result.json").read_text())
    (run,) = result["runs"]
    assert result["rows"] == 20000 and result["synthetic"] is True
    assert run["ratio"] == pytest.approx(run["stage_seconds"] / run["gzip_seconds"], rel=0.1)
    assert run["rows_per_second"] == pytest.approx(20000 / run["stage_seconds"], rel=0.05)
    assert result["plain_count"] == run["kept"] and result["git"]["commit"]
    assert 10_000 < run["kept"]["interactions"] < 20_000 and 0 < run["peak_gib"] < 3
    assert not (tmp_path / "work").exists()
    assert run["raw_rows"] == 20000 and 2000 < run["raw_ids"] < 4000
    assert "rows per second" in capsys.readouterr().out


def test_a_generated_file_is_kept_and_counted(tmp_path):
    flags = ["--repeats", "1", "--reviews", str(tmp_path / "kept.gz")]
    flags += ["--work_dir", str(tmp_path / "work"), "--output", str(tmp_path / "result.json")]
    (tmp_path / "kept.gz").write_bytes(benchmark.member(0, 20_000))
    benchmark.main(["--rows", "20000", *flags])
    with pytest.raises(InputError, match="kept.gz: holds 20000 reviews, not --rows 30000"):
        benchmark.main(["--rows", "30000", *flags])
    assert (tmp_path / "kept.gz").read_bytes() == benchmark.member(0, 20_000)


def test_a_count_that_differs_from_plain_pythons_is_no_result(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "measure", lambda *_: {"raw_rows": 300, "kept": {"users": 1, "items": 1, "interactions": 1}})
    paths = ["--work_dir", str(tmp_path / "work"), "--output", str(tmp_path / "result.json")]
    with pytest.raises(InputError, match="the data stage kept .*, counted in plain Python"):
        benchmark.main(["--rows", "300", "--repeats", "1", *paths])
    assert not (tmp_path / "result.json").exists()


def test_the_plain_count_by_hand(tmp_path):
    """Five users who bought the same five items stay; a sixth one's four, a rating of 3 and a second purchase do not count."""
    rows = [(user, item, 5.0) for user in "abcde" for item in "vwxyz"] + [("f", item, 4.0) for item in "vwxy"]
    rows += [("f", "z", 3.0), ("a", "v", 5.0)]
    lines = [json.dumps({"reviewerID": user, "asin": item, "overall": rating}) for user, item, rating in rows]
    (tmp_path / "reviews.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    assert benchmark.plain_count(tmp_path / "reviews.gz") == {"users": 5, "items": 5, "interactions": 25}
