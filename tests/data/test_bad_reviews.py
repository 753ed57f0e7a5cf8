"""Input that cannot be used: one line on stderr, status 2, nothing half-written."""

import gzip
import json

import pytest

from slmrec.data import compressed, jsonlines
from slmrec.data.dataset import load_dataset

ROWS = [(f"u{user}", f"i{item}", 5.0, item) for user in range(50) for item in range(5)]  # 250 lines, all in the 5-core


def refused(data_cli, tmp_path, *arguments):
    """The one error line of a run that has to fail."""
    status, out, error = data_cli(*arguments, "--output_dir", tmp_path / "out")
    assert status == 2 and out == ""
    assert error.startswith("error: ") and error.endswith("\n") and error.count("\n") == 1
    assert not list(tmp_path.glob("out*"))
    return error


def spoil(path, number, change):
    """Apply `change` to line `number` (from 1) of a plain file."""
    lines = path.read_text().splitlines()
    lines[number - 1] = change(lines[number - 1])
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def amazon(data_cli, tmp_path):
    return lambda path, *flags: refused(data_cli, tmp_path, "--format", "amazon", "--input", path, *flags)


@pytest.fixture
def plain(write_reviews):
    return write_reviews(ROWS, "reviews.json")


def test_missing_file(amazon, tmp_path):
    assert f"{tmp_path}/absent.json: no such file" in amazon(tmp_path / "absent.json")


def test_truncated_and_damaged_gzip(amazon, write_reviews):
    path = write_reviews(ROWS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert "truncated gzip file" in amazon(path)
    path.write_bytes(whole[:60] + bytes(100) + whole[160:])
    assert "gzip file" in amazon(path)


def test_one_malformed_line_is_counted_and_told(data_cli, plain, tmp_path, caplog):
    spoil(plain, 8, lambda line: line[:30])
    arguments = ["--format", "amazon", "--input", plain, "--k_core", "4", "--output_dir", tmp_path / "out"]
    status, _, _ = data_cli(*arguments)
    assert status == 0
    stats = load_dataset(tmp_path / "out").stats
    assert (stats["malformed_lines"], stats["raw_rows"], stats["interactions"]) == (1, 250, 249)
    assert "1 of 250 lines do not parse (line 8;" in caplog.text


def test_more_than_one_percent_malformed_stops(amazon, data_cli, plain, tmp_path):
    for number in (3, 9, 27):
        spoil(plain, number, lambda line: "<html>")
    assert "3 of 250 lines do not parse (line 3, 9, 27; the first: " in amazon(plain)
    flags = ["--max_malformed", "0.02", "--k_core", "3", "--output_dir", tmp_path / "out"]
    assert data_cli("--format", "amazon", "--input", plain, *flags)[0] == 0
    spoil(plain, 9, lambda line: json.dumps({"overall": 5.0, "reviewerID": "u", "asin": "i", "unixReviewTime": 1}))
    assert load_dataset(tmp_path / "out").stats["malformed_lines"] == 3


def test_line_numbers_hold_across_blocks_and_blank_lines(amazon, plain, monkeypatch):
    monkeypatch.setattr(compressed, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(jsonlines, "LINE_BY_LINE_BYTES", 300)
    spoil(plain, 20, lambda line: "\n\n" + line)  # line 100 becomes line 102
    spoil(plain, 102, lambda line: line.replace('"asin"', '"asim"'))
    assert "line 102: the field 'asin' is missing" in amazon(plain)
    spoil(plain, 102, lambda line: "nonsense")
    assert "(line 102; the first" in amazon(plain, "--max_malformed", "0")


def test_file_that_is_no_json_at_all(amazon, tmp_path):
    path = tmp_path / "reviews.json"
    path.write_text("a,b\n1,2\n")
    assert "2 of 2 lines do not parse" in amazon(path)
    path.write_text("")
    assert "holds no review" in amazon(path)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('"overall": 5.0', '"other": 5.0', "line 7: the field 'overall' is missing"),
        ('"reviewerID": "u1"', '"reviewerID": null', "line 7: the field 'reviewerID' is missing"),
        ('"overall": 5.0', '"overall": "five"', "line 7: overall is 'five', not a number"),
        ('"overall": 5.0', '"overall": true', "line 7: overall is true, not a number"),
        ('"overall": 5.0', '"overall": NaN', "line 7: overall is NaN, not a number"),
        (
            '"unixReviewTime": 86400',
            '"unixReviewTime": "01 2, 1970"',
            "line 7: unixReviewTime is '01 2, 1970', neither a number nor an ISO",
        ),
        ('"unixReviewTime": 86400', '"unixReviewTime": 1e300', "line 7: unixReviewTime is '1e300', not a time"),
    ],
)
def test_missing_and_non_numeric_fields(amazon, plain, old, new, message):
    assert old in plain.read_text().splitlines()[6]
    assert message in amazon(spoil(plain, 7, lambda line: line.replace(old, new)))


def test_empty_result_says_which_rule_dropped_what(amazon, plain):
    error = amazon(plain, "--k_core", "60")
    assert "nothing is left of 250 actions: users and items with fewer than 60 actions, to a fixed point dropped 250" in error
    assert "rating >= 6 dropped 250" in amazon(plain, "--min_rating", "6")


def test_user_with_fewer_than_three_actions(amazon, write_reviews):
    error = amazon(write_reviews([*ROWS, ("short", "i1", 5.0, 1), ("short", "i2", 5.0, 1)]), "--k_core", "2")
    assert "user 'short' has 2 actions; 3 are needed" in error


CSV_ROWS = [f"i{item},u{user},5.0,{item}\n" for user in range(5) for item in range(5)]
CSV = "asin, reviewerID, overall, unixReviewTime\n" + "".join(CSV_ROWS)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("i1,u0,5.0,1\n", "i1,u0,five,1\n", "row 2 after the header: overall is 'five', not a number"),
        ("i1,u0,5.0,1\n", "i1,u0,5.0,soon\n", "row 2 after the header: unixReviewTime is 'soon', not a time"),
        ("i1,u0,5.0,1\n", "i1,,5.0,1\n", "row 2 after the header: reviewerID is missing"),
        ("i1,u0,5.0,1\n", "i1,u0,5.0\n", "row 2 after the header: unixReviewTime is missing"),
        ("i1,u0,5.0,1\n", "i1,u0,5.0,1,8\n", "row 2 after the header has 5 cells where the header has 4"),
        (" unixReviewTime", " when", "none of its columns is called like a time (its columns: asin, reviewerID, overall, when)"),
        (CSV, "", "is empty"),
        (CSV[CSV.index("\n") + 1 :], "", "holds no action"),
    ],
)
def test_bad_csv(data_cli, tmp_path, old, new, message):
    path = tmp_path / "reviews.csv"
    path.write_text(CSV.replace(old, new, 1))
    assert message in refused(data_cli, tmp_path, "--format", "csv", "--input", path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("1 2 3 4\n2\n", "line 2: a user without items"),
        ("1 2 3 4\n\n1 5 6 7\n", "line 3: user '1' has a line already"),
        ("", "holds no action"),
        ('{"1": [1, 2, 3', "line 1: not one JSON object"),
        ('{"1": [1, 2, 3], "1": [4, 5, 6]}', "an object in it has a key twice"),
        ('{"1": [1, 2, 3], "2": 4}', "user '2': 4 where a list of items is needed"),
        ("1 2 3 4\n2 3 4\n", "user '2' has 2 actions"),
    ],
)
def test_bad_sequences(data_cli, tmp_path, text, message):
    path = tmp_path / "s.txt"
    path.write_text(text)
    assert message in refused(data_cli, tmp_path, "--format", "sequences", "--input", path, "--k_core", "1")


@pytest.mark.parametrize(
    "table, message",
    [
        ("A\t1\nB\t2\n", "has no entry for the item '3'"),
        ("A\t1\nB\t2\nC\t2\n", "line 3: gives the number '2' twice (line 2 has it)"),
        ("A\t1\nB\t2\nA\t3\n", "line 3: gives the source id 'A' twice (line 1 has it)"),
        ("A 1\nB 2\n", "line 1: not 'source id TAB number'"),
        ("item\tnumber\nA\t1\n", "line 1: not 'source id TAB number'"),
        ("", "is empty"),
    ],
)
def test_bad_item_table(data_cli, tmp_path, table, message):
    (tmp_path / "s.txt").write_text("9 1 2 3\n")
    (tmp_path / "items").write_text(table)
    flags = ["--format", "sequences", "--input", tmp_path / "s.txt", "--item_table", tmp_path / "items", "--k_core", "1"]
    assert message in refused(data_cli, tmp_path, *flags)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--format", "xml"], "--format xml: choose one of auto, amazon, csv, sequences, recbole, parquet"),
        (["--format", "amazon", "--protocol", "papr"], "--protocol papr: choose one of"),
        (["--format", "amazon", "--k_core", "0"], "--k_core 0: must be at least 1"),
        (["--format", "amazon", "--max_malformed", "1.5"], "--max_malformed 1.5: must be a share"),
        (["--format", "sequences", "--user_column", "who"], "--user_column is only for files with columns"),
        (["--format", "amazon", "--no_header"], "--no_header is only for tables"),
        (["--format", "sequences", "--max_malformed", "0.1"], "--max_malformed is only for JSON lines"),
        (["--format", "amazon", "--meta_title_column", "name"], "--meta_title_column is only where there is a --meta"),
        (["--format", "amazon", "--meta_category_column", "c"], "--meta_category_column is only where there is a --meta"),
        (["--format", "amazon", "--item_table", "x"], "--item_table is only for --format sequences or recbole"),
    ],
)
def test_flags_that_cannot_work_are_refused(data_cli, tmp_path, flags, message):
    assert message in refused(data_cli, tmp_path, *flags, "--input", "unused")


def test_flags_without_use_for_what_is_found(data_cli, tmp_path):
    rows = "user_id:token\titem_id_list:token_seq\titem_id:token\nu\ta b c\td\n"
    (tmp_path / "s.inter").write_text(rows)
    error = refused(data_cli, tmp_path, "--input", tmp_path / "s.inter", "--time_column", "when")
    assert "--time_column is only for files with one action a row" in error
    (tmp_path / "s.txt").write_text("9 1 2 3\n")
    error = refused(data_cli, tmp_path, "--input", tmp_path / "s.txt", "--no_header")
    assert "--no_header is only for tables" in error


def test_min_rating_without_ratings(data_cli, tmp_path):
    (tmp_path / "s.txt").write_text("9 1 2 3\n")
    error = refused(data_cli, tmp_path, "--format", "sequences", "--input", tmp_path / "s.txt", "--min_rating", "4")
    assert "--min_rating 4: the source has no ratings" in error


def test_bad_meta_file(amazon, plain, tmp_path):
    assert "absent.csv: no such file" in amazon(plain, "--meta", tmp_path / "absent.csv")
    meta = tmp_path / "meta.json.gz"
    meta.write_bytes(gzip.compress(b'{"asin": "i1", "title": "One"}\n' * 9)[:-9])
    assert "meta.json.gz: truncated gzip file" in amazon(plain, "--meta", meta)
    (tmp_path / "meta.csv").write_text("a,b\n1,2\n")
    assert "meta.csv: none of its columns is called like an item (its columns: a, b)" in amazon(
        plain, "--meta", tmp_path / "meta.csv"
    )
    flags = ["--meta_item_column", "a", "--meta_title_column", "b", "--meta_category_column", "c"]
    assert "meta.csv: has no column 'c'" in amazon(plain, "--meta", tmp_path / "meta.csv", *flags)
