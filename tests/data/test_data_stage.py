"""The data stage on small sources whose result is worked out by hand."""

import csv
import gzip
import subprocess
import sys

import pytest

from slmrec.artifacts import read_manifest
from slmrec.data.dataset import load_dataset


def sequences_of(directory):
    """{user source id: [item source ids]} of a processed data set."""
    dataset = load_dataset(directory)
    with open(directory / "items.csv", newline="") as stream:
        items = {int(row["id"]): row["source_id"] for row in csv.DictReader(stream)}
    with open(directory / "users.csv", newline="") as stream:
        users = [row["source_id"] for row in csv.DictReader(stream)]
    return {user: [items[int(item)] for item in dataset.sequence(number)] for number, user in enumerate(users)}


def process(data_cli, tmp_path, *arguments):
    status, _, error = data_cli(*arguments, "--output_dir", tmp_path / "out")
    assert status == 0, error
    return tmp_path / "out"


def test_order_ties_repeats_and_low_ratings(data_cli, write_reviews, tmp_path):
    reviews = write_reviews([
        ("u", "c", 5.0, 3), ("u", "b", 4.0, 2), ("u", "a", 5.0, 2), ("u", "d", 3.0, 1), ("u", "c", 5.0, 1),
        ("v", "a", 5.0, 9), ("v", "b", 4.0, 8), ("v", "c", 5.0, 7),
    ])  # fmt: skip
    arguments = ["--format", "amazon", "--input", reviews, "--k_core", 2]
    out = process(data_cli, tmp_path, *arguments)
    # d falls to its rating of 3; of c the earliest action stays; b and a share a day and keep the order of the file
    assert sequences_of(out) == {"u": ["c", "b", "a"], "v": ["c", "b", "a"]}
    dataset = load_dataset(out)
    assert dataset.timestamps.tolist() == [day * 86400 for day in (1, 2, 2, 7, 8, 9)]
    assert (dataset.items.dtype, dataset.offsets.dtype, dataset.timestamps.dtype) == ("int32", "int64", "int64")
    assert dataset.stats["dropped"] == {"rating": 1, "order": 0, "duplicates": 1, "k_core": 0}
    assert [dataset.stats[f"raw_{name}"] for name in ("users", "items", "rows")] == [2, 4, 8]
    assert dataset.stats["last_two_tie_share"] == 0.5
    assert dataset.stats["density"] == 1.0 and dataset.stats["mean_length"] == dataset.stats["median_length"] == 3
    kept = process(data_cli, tmp_path / "keep", *arguments, "--duplicates", "keep")
    assert sequences_of(kept)["u"] == ["c", "b", "a", "c"]
    strict = process(data_cli, tmp_path / "low", *arguments, "--min_rating", 3, "--k_core", 1)
    assert sequences_of(strict)["u"] == ["d", "c", "b", "a"]


def test_ids_follow_the_first_row_that_is_kept(data_cli, write_reviews, tmp_path):
    rows = [("w", "z", 1.0, 1)] + [(user, item, 5.0, day) for user in "vu" for day, item in enumerate("yxz")]
    out = process(data_cli, tmp_path, "--format", "amazon", "--input", write_reviews(rows), "--k_core", 2)
    assert (out / "items.csv").read_text() == 'id,source_id,title\n1,y,""\n2,x,""\n3,z,""\n'
    assert (out / "users.csv").read_text() == "id,source_id\n0,v\n1,u\n"


def test_k_core_reaches_a_fixed_point(data_cli, tmp_path):
    # e, f and g have too few users; without e user 4 is left with p and q, without e, f, g user 5 with nothing
    source = tmp_path / "s.txt"
    source.write_text("1 p q r\n2 p q r\n3 p q r\n4 p q e\n5 e f g\n")
    out = process(data_cli, tmp_path, "--format", "sequences", "--input", source, "--k_core", 3)
    assert sequences_of(out) == {"1": ["p", "q", "r"], "2": ["p", "q", "r"], "3": ["p", "q", "r"]}
    assert load_dataset(out).stats["dropped"] == {"duplicates": 0, "k_core": 6}


def test_released_protocol_looks_at_every_minimum_once(data_cli, write_reviews, tmp_path):
    """Users < 2, items < 20, repeats, users < 2: an item may end below 20, times do not matter, 3 stars count."""
    rows = [(f"u{number:02d}", item, 3.0, 50 - number) for item in "abc" for number in range(20)]
    rows += [("late", item, 5.0, 1) for item in "aabbcc"] + [("rare", "a", 5.0, 1), ("rare", "x", 5.0, 1), ("low", "b", 2.0, 1)]
    arguments = ["--format", "amazon", "--input", write_reviews(rows), "--protocol", "released", "--k_core", 2]
    out = process(data_cli, tmp_path, *arguments)
    sequences = sequences_of(out)
    assert len(sequences) == 21 and all(items == ["a", "b", "c"] for items in sequences.values())
    stats = load_dataset(out).stats
    assert stats["dropped"] == {"rating": 1, "users": 0, "items": 1, "duplicates": 3, "users_again": 1, "order": 0}


def test_recbole_rows_with_typed_header(data_cli, tmp_path):
    source = tmp_path / "s.inter"
    rows = [f"u{user}\ti{item}\t4.5\t{100 - item}.0" for user in (1, 2) for item in (1, 2, 3)]
    source.write_text("user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + "\n".join(rows) + "\n")
    out = process(data_cli, tmp_path, "--format", "recbole", "--input", source, "--k_core", 2)
    assert sequences_of(out) == {"u1": ["i3", "i2", "i1"], "u2": ["i3", "i2", "i1"]}
    bare = tmp_path / "bare.inter"
    bare.write_text("user_id:token\titem_id:token\n" + "".join(f"u\ti{item}\n" for item in (3, 1, 2)))
    flags = ["--rating_column", "none", "--time_column", "none", "--k_core", 1]
    out = process(data_cli, tmp_path / "bare_out", "--format", "recbole", "--input", bare, *flags)
    assert sequences_of(out) == {"u": ["i3", "i1", "i2"]}


def test_csv_columns_by_flag_and_gzip(data_cli, tmp_path):
    source = tmp_path / "s.csv.gz"
    rows = "".join(f'{item},"user, {user}",5,{9 - item}\n' for user in "ab" for item in (1, 2, 3))
    source.write_bytes(gzip.compress(f"thing,who,stars,when\n{rows}".encode()))
    columns = ["--user_column", "who", "--item_column", "thing", "--rating_column", "stars", "--time_column", "when"]
    out = process(data_cli, tmp_path, "--format", "csv", "--input", source, "--k_core", 2, *columns)
    assert sequences_of(out) == {"user, a": ["3", "2", "1"], "user, b": ["3", "2", "1"]}


def test_titles_of_the_2014_meta_file_and_of_a_table(data_cli, write_reviews, tmp_path):
    reviews = write_reviews([(user, item, 5.0, day) for user in "uv" for day, item in enumerate("abc")])
    meta = tmp_path / "meta.json"  # the 2014 release wrote Python dictionaries
    meta.write_text("{'asin': 'a', 'title': 'Drum &amp;  \"Bass\"'}\n{'asin': 'x', 'title': 'not wanted'}\n{'asin': 'b'}\n")
    arguments = ["--format", "amazon", "--input", reviews, "--k_core", 2]
    out = process(data_cli, tmp_path, *arguments, "--meta", meta)
    with open(out / "items.csv", newline="") as stream:
        assert [row["title"] for row in csv.DictReader(stream)] == ['Drum & "Bass"', "", ""]
    assert load_dataset(out).stats["items_with_title"] == 1
    table = tmp_path / "meta.csv"
    table.write_text("key,name\nc,Cymbal\n")
    flags = ["--meta", table, "--meta_item_column", "key", "--meta_title_column", "name"]
    out = process(data_cli, tmp_path / "table", *arguments, *flags)
    with open(out / "items.csv", newline="") as stream:
        assert [row["title"] for row in csv.DictReader(stream)] == ["", "", "Cymbal"]


def test_command_line_in_a_process_of_its_own(write_reviews, tmp_path):
    reviews = write_reviews([(user, item, 5.0, day) for user in "uv" for day, item in enumerate("abc")])
    command = [sys.executable, "-m", "slmrec.data", "--format", "amazon", "--input", str(reviews), "--k_core", "2"]
    done = subprocess.run([*command, "--output_dir", str(tmp_path / "out")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path}/out: 2 users, 3 items, 6 interactions\n"
    manifest = read_manifest(tmp_path / "out", "data")
    assert set(manifest["outputs"]) == {"config.json", "items.csv", "sequences.npz", "stats.json", "users.csv"}
    assert manifest["config"]["k_core"] == 2 and set(manifest["inputs"]) == {"reviews"}
    command += ["--output_dir", str(tmp_path / "out"), "--duplicates", "keep"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "config.duplicates = 'first', this one has 'keep'" in done.stderr


@pytest.mark.parametrize("name", ["reviews.json", "reviews.json.gz", "reviews.dat"])
def test_content_tells_compression_not_the_name(data_cli, write_reviews, tmp_path, name):
    rows = [(user, item, 5.0, day) for user in "uv" for day, item in enumerate("abc")]
    path = write_reviews(rows, "plain.json.gz" if name.endswith(".dat") else name)
    path = path.rename(tmp_path / name)
    out = process(data_cli, tmp_path, "--format", "amazon", "--input", path, "--k_core", 2)
    assert load_dataset(out).num_users == 2
