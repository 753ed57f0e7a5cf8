"""Data as people have it: other names and separators, several files, parquet, data frames."""

import bz2
import gzip
import io
import json
import lzma
import random
import tarfile

import numpy as np
import pandas as pd
import polars as pl
import pytest
from backports import zstd

from slmrec.artifacts import read_manifest
from slmrec.data import compressed, prepare
from slmrec.data.arguments import DataArguments
from slmrec.data.dataset import load_dataset
from slmrec.data.process import frame_digest
from slmrec.data.source import find_source
from slmrec.data.values import times
from slmrec.data.write import NumberedSequences
from slmrec.errors import InputError

ROWS = [(f"u{user}", f"i{item}", 5.0, 86400 * (10 - item)) for user in range(3) for item in range(4)]  # each user: i3, i2, i1, i0
SEQUENCES = {f"u{user}": ["i3", "i2", "i1", "i0"] for user in range(3)}


def tarfile_bytes(name, content):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def sequences_of(directory):
    dataset = load_dataset(directory)
    items = pl.read_csv(directory / "items.csv", schema_overrides={"source_id": pl.String})["source_id"]
    users = pl.read_csv(directory / "users.csv", schema_overrides={"source_id": pl.String})["source_id"]
    return {user: [items[int(item) - 1] for item in dataset.sequence(number)] for number, user in enumerate(users)}


@pytest.fixture
def run(data_cli, tmp_path):
    """Run the data stage on files; returns the sequences, or the error line."""

    def run(*inputs, flags=()):
        status, out, error = data_cli(
            "--input", *inputs, "--k_core", 1, "--output_dir", tmp_path / "out", *flags, "--overwrite_output_dir"
        )
        run.said = out
        return sequences_of(tmp_path / "out") if status == 0 else error

    return run


def table(separator, header, rows=ROWS, date=lambda time: time):
    lines = [header] if header else []
    return (
        "\n".join(lines + [separator.join(map(str, (user, item, rating, date(time)))) for user, item, rating, time in rows])
        + "\n"
    )


@pytest.mark.parametrize(
    "name, text, flags",
    [
        ("ratings.csv", table(",", "userId,movieId,rating,timestamp"), ()),
        ("r.tsv", table("\t", "user_id\titem_id\tstars\ttime"), ()),
        ("r.txt", table(";", "User ID;Item ID;Score;Date", date=lambda time: f"1970-01-{time // 86400 + 1:02d}"), ()),
        ("ratings.dat", table("::", None), ()),
        ("u.data", table("\t", None), ("--no_header",)),
        ("ratings_Beauty.csv", table(",", None), ("--no_header",)),
        ("bars.csv", table("|", "user|item|rating|unix_time"), ()),
        (
            "times.csv",
            table(",", "user,item,rating,time", date=lambda time: f'"1970-01-{time // 86400 + 1:02d}T00:00:00+02:00"'),
            (),
        ),
        (
            "swapped.csv",
            table(",", None).replace("u", "A10000000").replace(",i", ",B00000000"),
            ("--no_header", "--item_column", "2"),
        ),
    ],
)
def test_names_and_separators_in_use(run, tmp_path, name, text, flags):
    (tmp_path / name).write_text(text)
    renamed = {
        user.replace("u", "A10000000"): [item.replace("i", "B00000000") for item in items] for user, items in SEQUENCES.items()
    }
    assert run(tmp_path / name, flags=flags) == (renamed if name == "swapped.csv" else SEQUENCES)


def test_amazons_2018_ratings_have_the_item_first(run, tmp_path):
    lines = [f"B00000000{item[1]},A10000000{user[1]},{rating},{time}" for user, item, rating, time in ROWS]
    (tmp_path / "All_Beauty.csv").write_text("\n".join(lines) + "\n")
    sequences = run(tmp_path / "All_Beauty.csv", flags=["--no_header"])
    assert sequences["A100000000"] == ["B000000003", "B000000002", "B000000001", "B000000000"]
    assert "user = 2, item = 1, rating = 3, time = 4" in run.said


def test_what_was_guessed_is_said(run, tmp_path):
    (tmp_path / "r.csv").write_text(
        table(",", "who,userId,movieId,when", [("x", user, item, time * 1000) for user, item, _, time in ROWS])
    )
    error = run(tmp_path / "r.csv")
    assert "none of its columns is called like a time (its columns: who, userId, movieId, when); --time_column names it" in error
    assert run(tmp_path / "r.csv", flags=["--time_column", "when"]) == SEQUENCES
    assert "r.csv: a table, columns between commas; user = userId, item = movieId, no rating, time = when\n" in run.said
    assert "not applied: rating (the source has no ratings)" in run.said


def test_times_of_every_unit_become_seconds(tmp_path, run):
    exact = [1_500_000_000 + day * 86_400 for day in range(4)]
    for factor, unit in ((10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")):
        rows = [("u", f"i{day}", 5, second * factor + 1) for day, second in enumerate(exact)]
        (tmp_path / "r.csv").write_text(table(",", "user,item,rating,time", rows))
        assert run(tmp_path / "r.csv") == {"u": ["i0", "i1", "i2", "i3"]} and f"({unit})" in run.said
        assert load_dataset(tmp_path / "out").timestamps.tolist() == exact
    rows[2] = ("u", "i2", 5, exact[2])
    (tmp_path / "r.csv").write_text(table(",", "user,item,rating,time", rows))
    assert "row 3 after the header: this time counts seconds, 3 others nanoseconds" in run(tmp_path / "r.csv")
    rows[1] = ("u", "i1", 5, exact[1])
    (tmp_path / "r.csv").write_text(table(",", "user,item,rating,time", rows))
    assert "row 2 after the header: this time counts seconds, 2 others nanoseconds" in run(tmp_path / "r.csv")


def test_exact_times_by_hand():
    where = "row {}".format
    found, kind = times(pl.Series(["1.5", "-1.25", "2", "1e3", "1500000000.000000001"]), "time", where)
    assert kind == "number" and found["time"].to_list() == [1, -2, 2, 1000, 1_500_000_000]
    assert found["part"].to_list() == [500_000_000, 750_000_000, 0, 0, 1]
    texts = ["1970-01-02", "1970-01-01 00:00:01.5", "1970-01-01T02:00:00+01:30", "1969-12-31T23:59:59Z"]
    found, kind = times(pl.Series(texts), "time", where)
    assert (
        kind == "date" and found["time"].to_list() == [86400, 1, 1800, -1] and found["part"].to_list() == [0, 500_000_000, 0, 0]
    )


def test_several_files_patterns_and_folders(run, tmp_path):
    folder = tmp_path / "parts"
    (folder / ".hidden").mkdir(parents=True)
    header = "user,item,rating,time"
    (folder / "part-0.csv").write_text(table(",", header, ROWS[:5]))
    (folder / "part-1.csv.gz").write_bytes(gzip.compress(table(",", header, ROWS[5:]).encode()))
    (folder / "_SUCCESS").write_text("")
    (folder / ".hidden/part-0.csv.crc").write_text("x")
    assert run(folder / "part-0.csv", folder / "part-1.csv.gz") == SEQUENCES
    assert "part-0.csv and 1 more: a table" in run.said
    digest = read_manifest(tmp_path / "out")["inputs"]["reviews"]
    assert run(folder / "part-*") == SEQUENCES and run(folder) == SEQUENCES
    assert read_manifest(tmp_path / "out")["inputs"]["reviews"] == digest and digest["files"] == 2
    (folder / "part-2.csv").write_text(table(",", header, [("u9", "i9", "five", 1)]))
    assert f"{folder}/part-2.csv, row 1 after the header: rating is 'five', not a number" in run(folder)
    (folder / "part-2.csv").write_text(table(",", "user,item,stars,time", ROWS))
    assert "part-2.csv: has other columns than" in run(folder)
    (folder / "part-2.csv").write_text(json.dumps({"user": "u", "item": "i", "rating": 5, "time": 1}))
    assert "part-2.csv: JSON lines where" in run(folder)
    assert "no such file" in run(folder / "none-*") and "twice" in run(folder / "part-0.csv", folder / "part-0.csv")


def test_a_folder_as_spark_writes_it(run, tmp_path):
    folder = tmp_path / "ratings.parquet"
    folder.mkdir()
    frame = pl.DataFrame(ROWS, schema=["userId", "itemId", "rating", "timestamp"], orient="row")
    for number, part in enumerate((frame[:5], frame[5:])):
        part.write_parquet(folder / f"part-{number:05d}-6f1c.c000.snappy.parquet", compression="snappy")
        (folder / f".part-{number:05d}-6f1c.c000.snappy.parquet.crc").write_bytes(b"crc")
    (folder / "_SUCCESS").write_bytes(b"")
    assert run(folder) == SEQUENCES
    assert "parquet; user = userId, item = itemId, rating = rating, time = timestamp" in run.said
    (folder / "part-00002.parquet").write_bytes(b"PAR1" + bytes(50))
    assert "part-00002.parquet: damaged parquet file" in run(folder)


def test_folders_that_duckdb_writes(run, tmp_path):
    """One of several files, and one partitioned by a column, which is in the names of its folders; times with a time zone."""
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as database:
        database.execute("create table ratings (user varchar, item varchar, rating double, time timestamp with time zone)")
        database.executemany("insert into ratings values (?, ?, ?, to_timestamp(?))", ROWS)
        for folder, options in (("parts", "per_thread_output true"), ("shards", "partition_by (user_shard)")):
            rows = "select *, right(user, 1) as user_shard from ratings" if folder == "shards" else "select * from ratings"
            database.execute(f"copy ({rows}) to '{tmp_path / folder}' (format parquet, {options})")
    assert len(list((tmp_path / "shards").rglob("*.parquet"))) == 3
    assert run(tmp_path / "parts") == run(tmp_path / "shards") == SEQUENCES


@pytest.mark.parametrize(
    "ids, values, wrong",
    [
        (pl.Series([1, 2, 2**60]), ["1", "2", str(2**60)], None),
        (pl.Series([1.0, 2.0, 3.0]), ["1", "2", "3"], None),
        (pl.Series(["a", "b ", " c"]).cast(pl.Categorical), ["a", "b", "c"], None),
        (pl.Series([1.0, None, 3.0]), None, "row 4: user is missing"),
        (pl.Series([1.0, 2.5, 3.0]), None, "row 4: user is 2.5, which is no id"),
        (pl.Series([1.0, float("inf"), 3.0]), None, "row 4: user is inf, which is no id"),
        (pl.Series([1.0, 2.0**53, 3.0]), None, "row 4: user is 9007199254740992.0, a rounded number"),
        (pl.Series(["a", "nan", "c"]), None, "row 4: user is 'nan', which is no id"),
        (pl.Series([True, False, True]), None, "user is of type Boolean; ids are text or whole numbers"),
    ],
)
def test_ids_of_every_type_in_frames(tmp_path, ids, values, wrong):
    frame = pl.DataFrame({"user": ids}).join(pl.DataFrame({"item": ["x", "y", "z"], "time": [1, 2, 3]}), how="cross")
    if wrong:
        with pytest.raises(InputError, match=wrong):
            prepare(frame, tmp_path / "out", k_core=1)
        return
    prepare(frame, tmp_path / "out", k_core=1)
    assert sequences_of(tmp_path / "out") == {value: ["x", "y", "z"] for value in values}


def test_frames_of_pandas_and_polars_give_the_same(tmp_path, capsys):
    frame = pd.DataFrame(ROWS, columns=["user_id", "item_id", "rating", "timestamp"])
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], unit="s")
    meta = pd.DataFrame({"item_id": ["i0", "i1", "other"], "title": ["Nought", "One", "No"]})
    dataset = prepare(frame, tmp_path / "pandas", k_core=1, meta=meta)
    assert sequences_of(tmp_path / "pandas") == SEQUENCES and dataset.stats["items_with_title"] == 2
    assert dataset.timestamps[:4].tolist() == [7 * 86400, 8 * 86400, 9 * 86400, 10 * 86400]
    other = prepare(pl.from_pandas(frame), tmp_path / "polars", k_core=1, meta=pl.from_pandas(meta))
    assert other.item_map == dataset.item_map and np.array_equal(other.items, dataset.items)
    prepare(frame, tmp_path / "pandas", k_core=1, meta=meta)
    assert "up to date" in capsys.readouterr().out
    with pytest.raises(InputError, match="several types"):
        prepare(frame.assign(user_id=["u", 1] * 6), tmp_path / "mixed")
    with pytest.raises(InputError, match="not a list"):
        prepare([1], tmp_path / "list")
    with pytest.raises(InputError, match="the data frame: none of its columns is called like a user"):
        prepare(frame.drop(columns="user_id"), tmp_path / "none")


def test_damaged_parquet_files_are_one_line(tmp_path):
    frame = pl.DataFrame(ROWS, schema=["user", "item", "rating", "time"], orient="row")
    frame.write_parquet(tmp_path / "x.parquet")
    whole, rng, refused = (tmp_path / "x.parquet").read_bytes(), random.Random(0), 0
    for _ in range(60):
        at = rng.randrange(4, len(whole) - 8)
        (tmp_path / "x.parquet").write_bytes(rng.choice((whole[:at], whole[:at] + rng.randbytes(4) + whole[at + 4 :])))
        try:
            find_source(DataArguments(input=[str(tmp_path / "x.parquet")])).read(0.01)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 30


def test_a_time_zone_is_no_shift(tmp_path):
    times = pl.Series([1, 2, 3]).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
    frame = pl.DataFrame({"user": ["u"] * 3, "item": ["a", "b", "c"], "time": times.dt.offset_by("1d")})
    assert prepare(frame, tmp_path / "out", k_core=1).timestamps.tolist() == [86400] * 3


def test_two_spellings_of_one_number_are_refused(run, tmp_path):
    (tmp_path / "r.csv").write_text(
        table(",", "user,item,rating,time", [("7", "a", 5, 1), ("7.0", "b", 5, 2), ("8.0", "b", 5, 2)])
    )
    assert "row 2 after the header: user is '7.0', elsewhere '7': one of the two spellings" in run(tmp_path / "r.csv")


@pytest.mark.parametrize(
    "content, what",
    [
        (tarfile_bytes("reviews.json", b"{}"), "a tar archive; unpack it"),
        (gzip.compress(tarfile_bytes("reviews.json", b"{}")), "a tar archive; unpack it"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
        (b"ARROW1\x00\x00" + bytes(99), "an Arrow or Feather file; write it as parquet"),
        (b"\x00\x01\x02" * 99, "begins with NUL bytes"),
        (b"<!DOCTYPE html>\n<html>", "looks like a web page"),
        (b"", "is empty"),
        (b"\n\n \n", "is empty"),
    ],
)
def test_what_is_no_data_is_named(run, tmp_path, content, what):
    (tmp_path / "file").write_bytes(content)
    assert what in run(tmp_path / "file")


def test_the_first_line_may_be_long(run, tmp_path):
    lines = [
        json.dumps({"text": "x" * 400_000, "userId": user, "movieId": item, "rating": 5, "time": time})
        for user, item, _, time in ROWS
    ]
    (tmp_path / "r.json").write_text("\n".join(lines))
    assert run(tmp_path / "r.json") == SEQUENCES


@pytest.mark.parametrize(
    "pack", [gzip.compress, zstd.compress, bz2.compress, lzma.compress, lambda data: gzip.compress(zstd.compress(data))]
)
def test_compressions_above_and_below_one_block(tmp_path, pack, monkeypatch):
    """Whole ones are read, in blocks; cut ones are refused wherever they end."""
    monkeypatch.setattr(compressed, "BLOCK_BYTES", 1000)
    content = b"".join(f"{number:09d}\n".encode() for number in np.random.default_rng(0).permutation(3000))
    path = tmp_path / "file"
    path.write_bytes(pack(content))
    assert compressed.read_bytes(path) == content == b"".join(compressed.line_blocks(path))
    for end in (len(path.read_bytes()) - 3, len(path.read_bytes()) // 2, 20):
        path.write_bytes(pack(content)[:end])
        with pytest.raises(InputError, match="(truncated|damaged) .* file"):
            list(compressed.line_blocks(path))


def test_what_tells_two_frames_or_two_item_lists_apart():
    """A separator inside of a value is none."""
    digests = {frame_digest(pl.DataFrame({"categories": [cells]})) for cells in (["a|b"], ["a", "b"], ["a", "1:b"], [])}
    assert len(digests) == 4
    rows = [("u", item) for item in ("a\nb", "c")], [("u", item) for item in ("a", "b\nc")], [("u", "a"), ("u", "b"), ("u", "c")]
    maps = {NumberedSequences(None, None, None, None, pl.Series([item for _, item in some]), None).item_map() for some in rows}
    assert len(maps) == 3


REVIEWS = "".join(json.dumps({"user": u, "item": i, "rating": r, "time": t}) + "\n" for u, i, r, t in ROWS)


@pytest.mark.parametrize("kind", ["json", "csv"])
@pytest.mark.parametrize(
    "flags, message",
    [
        (["--user_column", "item"], "--item_column item: this column has the user already"),
        (["--time_column", "user"], "--time_column user: this column has the user already"),
        (["--rating_column", "time"], "--time_column time: this column has the rating already"),
        (["--item_column", "none"], "--item_column none: every source has a column of items"),
    ],
)
def test_a_column_has_one_purpose(run, tmp_path, kind, flags, message):
    (tmp_path / f"r.{kind}").write_text(REVIEWS if kind == "json" else table(",", "user,item,rating,time", ROWS))
    assert message in run(tmp_path / f"r.{kind}", flags=flags)


@pytest.mark.parametrize("kind", ["json", "object", "csv"])
@pytest.mark.parametrize(
    "flags, message",
    [
        (["--meta_title_column", "absent"], "absent"),
        (["--meta_category_column", "absent"], "absent"),
        (["--meta_title_column", "none"], "--meta_title_column none: without a column of titles a meta file says nothing"),
        (
            ["--meta_title_column", "brand", "--meta_category_column", "brand"],
            "--meta_category_column brand: this column has the",
        ),
        (["--meta_title_column", "brand"], None),
    ],
)
def test_columns_of_meta_that_a_flag_names(run, tmp_path, kind, flags, message):
    """What a flag names and nothing holds is refused, and not only where the file has a header."""
    (tmp_path / "r.csv").write_text(table(",", "user,item,rating,time", ROWS))
    items = list(dict.fromkeys(item for _, item, _, _ in ROWS))
    records = [{"asin": item, "title": f"title of {item}", "brand": "b", "category": ["x", "y"]} for item in items]
    meta = tmp_path / "meta"
    if kind == "json":
        meta.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif kind == "object":
        meta.write_text(json.dumps({record["asin"]: record for record in records}))
    else:
        meta.write_text(table(",", "asin,title,brand,category", [(*list(record.values())[:3], "x") for record in records]))
    answer = run(tmp_path / "r.csv", flags=["--meta", str(meta), *flags])
    if message:
        assert message in answer and answer.count("\n") == 1
    else:
        assert answer == SEQUENCES and pl.read_csv(tmp_path / "out" / "items.csv")["title"].unique().to_list() == ["b"]


def test_how_many_items_have_a_title_is_said_where_not_all_have_one(run, tmp_path):
    (tmp_path / "r.csv").write_text(table(",", "user,item,rating,time", ROWS))
    items = list(dict.fromkeys(item for _, item, _, _ in ROWS))
    (tmp_path / "meta").write_text(
        "".join(json.dumps({"asin": item, "title": "t" * (item == items[0])}) + "\n" for item in items)
    )
    run(tmp_path / "r.csv", flags=["--meta", str(tmp_path / "meta")])
    assert f"; {len(items)} of {len(items)} items, 1 with a title\n" in run.said
