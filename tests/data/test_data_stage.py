"""The data stage on small sources whose result is worked out by hand."""

import csv
import gzip
import re
import subprocess
import sys

import polars as pl
import pytest

from slmrec.artifacts import read_manifest
from slmrec.data.attributes import number_attributes
from slmrec.data.dataset import load_dataset
from slmrec.errors import InputError


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
    arguments = ["--format", "sequences", "--input", source]
    out = process(data_cli, tmp_path, *arguments, "--k_core", 3, "--duplicates", "first")
    assert sequences_of(out) == {"1": ["p", "q", "r"], "2": ["p", "q", "r"], "3": ["p", "q", "r"]}
    assert load_dataset(out).stats["dropped"] == {"duplicates": 0, "k_core": 6}
    assert len(sequences_of(process(data_cli, tmp_path / "kept", *arguments))) == 5  # ready-made: nothing goes unless asked


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


def attributes_of(directory):
    """{item source id: [attribute names]} of a processed data set."""
    attributes = load_dataset(directory).attributes
    with open(directory / "items.csv", newline="") as stream:
        return {row["source_id"]: attributes.of(int(row["id"])) for row in csv.DictReader(stream)}


@pytest.fixture
def abc(write_reviews):
    """Two users who bought a, b and c, as flags."""
    reviews = write_reviews([(user, item, 5.0, day) for user in "uv" for day, item in enumerate("abc")])
    return ["--format", "amazon", "--input", reviews, "--k_core", 2]


def test_attributes_of_the_2018_meta_file(data_cli, abc, tmp_path):
    """Below the root, up to the markup, each once; the first line that knows any counts; a field of another kind is missing."""
    meta = tmp_path / "meta.json"
    meta.write_text(
        '{"asin": "x", "category": ["Music", "Not wanted"], "brand": "Nor this"}\n'
        '{"asin": "b", "category": [], "brand": "", "title": "Bell"}\n'
        '{"asin": "c", "category": "Drums", "title": "Cymbal"}\n'
        '{"asin": "b", "brand": "B",'
        ' "category": ["Music", "Bells &amp;  Co", "C:\\\\ \\"D\\"", "Bells & Co", "</span>", "Rings"]}\n'
        '{"asin": "b", "category": ["Music", "Too late"]}\n'
        '{"asin": "a", "category": ["Music", "Bells & Co"], "brand": "B"}\n'
    )
    out = process(data_cli, tmp_path, *abc, "--meta", meta)
    assert attributes_of(out) == {"a": ["Bells & Co", "B"], "b": ["Bells & Co", 'C:\\ "D"', "B"], "c": []}
    assert (out / "attributes.csv").read_text() == 'id,name\n0,Bells & Co\n1,B\n2,"C:\\ ""D"""\n'
    dataset = load_dataset(out)
    assert (dataset.stats["items_with_attributes"], dataset.stats["attributes"], dataset.stats["items_with_title"]) == (2, 3, 2)
    assert dataset.attributes.ids.tolist() == [0, 1, 0, 2, 1] and dataset.attributes.offsets.tolist() == [0, 2, 5, 5]
    assert (dataset.attributes.ids.dtype, dataset.attributes.offsets.dtype) == ("int32", "int64")
    assert {"attributes.csv", "attributes.npz"} <= read_manifest(out, "data")["outputs"].keys()
    assert "attributes.npz: missing" in lost(data_cli, out, "attributes.npz")


def lost(data_cli, directory, name):
    """What opening a data set says when one of its files is gone."""
    (directory / name).unlink()
    with pytest.raises(InputError) as error:
        load_dataset(directory)
    return str(error.value)


def test_attributes_of_the_2014_meta_file(data_cli, abc, tmp_path):
    meta = tmp_path / "meta.json"
    meta.write_text(
        "{'asin': 'a', 'categories': [['Music', 'Bows', 'Violin Bows'], ['Music', 'Bows'], ['Music']], 'brand': 'A'}\n"
        "{'asin': 'b', 'categories': [['Music', 'Bows'], 'Odd']}\n{'asin': 'c', 'categories': 'Odd'}\n"
    )
    out = process(data_cli, tmp_path, *abc, "--meta", meta)
    assert attributes_of(out) == {"a": ["Bows", "Violin Bows", "A"], "b": ["Bows"], "c": []}


def test_categories_of_a_table(data_cli, abc, tmp_path):
    table = tmp_path / "meta.csv"
    table.write_text('Product ID,Description,Category,kind\na,A,"Bells, Drums",k\nb,B,,k\nc,C,"Bells, Drums",\n')
    out = process(data_cli, tmp_path, *abc, "--meta", table)
    assert attributes_of(out) == {"a": ["Bells, Drums"], "b": [], "c": ["Bells, Drums"]}
    out = process(data_cli, tmp_path / "named", *abc, "--meta", table, "--meta_category_column", "kind")
    assert attributes_of(out) == {"a": ["k"], "b": ["k"], "c": []}


@pytest.mark.parametrize(
    "name, content",
    [
        ("meta.csv", "Product ID,Description\na,A\n"),
        ("meta.json", '{"asin": "a", "title": "A", "category": ["Music"]}\n'),
        ("meta.text", "item_id:token\ttext:token_seq\na\tA. Industrial & Scientific Tapes. Brand. \n"),
        ("meta.item", "item_id:token\ttitle:token\tcategories:token_seq\na\tA\tTapes\n"),
    ],
)
def test_sources_without_attributes(data_cli, abc, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    out = process(data_cli, tmp_path, *abc, "--meta", tmp_path / name)
    dataset = load_dataset(out)
    assert dataset.attributes is None and dataset.stats["items_with_title"] == 1
    assert not list(out.glob("attributes*")) and not [key for key in dataset.stats if "attributes" in key]


def test_attributes_change_nothing_else(data_cli, abc, tmp_path):
    meta = tmp_path / "meta.json"
    meta.write_text('{"asin": "a", "category": ["Music", "Bows"], "title": "A"}\n')
    kept = process(data_cli, tmp_path / "kept", *abc, "--meta", meta)
    meta.write_text('{"asin": "a", "title": "A"}\n')
    plain = process(data_cli, tmp_path / "plain", *abc, "--meta", meta)
    manifests = [read_manifest(directory, "data") for directory in (kept, plain)]
    assert manifests[0]["item_map"] == manifests[1]["item_map"]
    for name in ("items.csv", "sequences.npz", "users.csv"):
        assert manifests[0]["outputs"][name] == manifests[1]["outputs"][name]
    assert load_dataset(plain).stats.items() < load_dataset(kept).stats.items()


def test_attributes_are_numbered_as_they_occur():
    pairs = pl.DataFrame({"item": [1, 1, 1, 3], "name": ["z", "a", "z", "a"]}, schema={"item": pl.UInt32, "name": pl.String})
    attributes = number_attributes(pairs, 5)
    assert attributes.names == ["z", "a"] and attributes.ids.tolist() == [0, 1, 1]
    assert attributes.offsets.tolist() == [0, 0, 2, 2, 3, 3]
    assert attributes.counts() == {"items_with_attributes": 2, "attributes": 2}
    assert number_attributes(pairs.clear(), 5) is None


def test_command_line_in_a_process_of_its_own(write_reviews, tmp_path):
    reviews = write_reviews([(user, item, 5.0, day) for user in "uv" for day, item in enumerate("abc")])
    command = [sys.executable, "-m", "slmrec.data", "--format", "amazon", "--input", str(reviews), "--k_core", "2"]
    done = subprocess.run([*command, "--output_dir", str(tmp_path / "out")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    source, result = done.stdout.splitlines()
    names = "user = reviewerID, item = asin, rating = overall, time = unixReviewTime"
    assert source == f"{tmp_path}/out: {reviews.name}: JSON lines; {names}"
    line = r".*/out: (00:\d\d  )?2 users, 3 items, 6 interactions; removed of 6: rating 0, duplicates 0, k_core 0"
    assert re.fullmatch(line, result)
    manifest = read_manifest(tmp_path / "out", "data")
    assert set(manifest["outputs"]) == {"config.json", "items.csv", "sequences.npz", "stats.json", "users.csv"}
    assert manifest["config"]["k_core"] == 2 and set(manifest["inputs"]) == {"reviews"}
    command += ["--output_dir", str(tmp_path / "out"), "--duplicates", "keep"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "config.duplicates = 'first', this one has 'keep'" in done.stderr


@pytest.mark.parametrize("name", ["reviews.json", "reviews.json.gz", "reviews.dat"])
def test_content_tells_compression_not_the_name(data_cli, write_reviews, tmp_path, name):
    rows = [(user, item, 5.0, day) for user in "uv" for day, item in enumerate("abc")]
    path = write_reviews(rows, "plain.json.gz" if name.endswith(".dat") else name)
    path = path.rename(tmp_path / name)
    out = process(data_cli, tmp_path, "--format", "amazon", "--input", path, "--k_core", 2)
    assert load_dataset(out).num_users == 2
