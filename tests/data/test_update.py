"""New actions on a data set that is there, worked out by hand."""

import numpy as np
import polars as pl
import pytest

from slmrec.artifacts import read_json
from slmrec.data.dataset import load_dataset

OLD = [("u1", "a", 5, 1), ("u1", "b", 5, 2), ("u1", "c", 5, 3), ("u2", "b", 5, 1), ("u2", "a", 5, 2), ("u2", "c", 5, 4)]


def ids(directory, name):
    return pl.read_csv(directory / f"{name}.csv", schema_overrides={"source_id": pl.String})["source_id"].to_list()


@pytest.fixture
def update(data_cli, write_reviews, tmp_path):
    """Old data of two users and three items, and what new actions make of them: directory, or the error line."""
    old = tmp_path / "old"
    flags = ("--k_core", 2, "--output_dir", old)
    assert data_cli("--input", write_reviews(OLD, "old.json.gz"), *flags)[0] == 0

    def run(rows, *flags, previous=old):
        arguments = ("--update_from", previous, "--input", write_reviews(rows, "new.json.gz"), "--output_dir", tmp_path / "new")
        status, run.said, error = data_cli(*arguments, *flags, "--overwrite_output_dir")
        return tmp_path / "new" if status == 0 else error

    run.old = old
    return run


def test_known_users_and_items_keep_their_numbers_and_new_ones_come_after(update):
    new = update(
        [
            ("u3", "d", 5, 7),
            ("u1", "e", 5, 9),
            ("u1", "d", 5, 8),  # before e, by time
            ("u3", "a", 5, 5),
            ("u3", "e", 5, 6),
            ("u2", "a", 5, 8),  # known of u2 already
            ("u4", "a", 5, 8),  # one action of a new user
            ("u1", "f", 5, 8),  # a new item's only one
            ("u2", "d", 2, 9),  # not liked
        ]
    )
    assert ids(update.old, "items") == ["a", "b", "c"] and ids(new, "items") == ["a", "b", "c", "d", "e"]
    assert ids(new, "users") == ["u1", "u2", "u3"]
    dataset = load_dataset(new)
    assert [dataset.sequence(user).tolist() for user in range(3)] == [[1, 2, 3, 4, 5], [2, 1, 3], [1, 5, 4]]
    assert dataset.known.tolist() == [3, 3, 0] and dataset.num_items == 5
    assert (dataset.timestamps[:5] // 86400).tolist() == [1, 2, 3, 8, 9]
    stats = read_json(new / "stats.json")
    assert {name: rows for name, rows in stats["dropped"].items() if rows} == {"rating": 1, "duplicates": 1, "k_core": 2}
    assert (stats["known_users"], stats["known_items"], stats["known_interactions"], stats["users_with_new_actions"]) == (
        2,
        3,
        6,
        2,
    )
    assert "3 users, 5 items, 11 interactions (1 users, 2 items, 5 interactions of them new)" in update.said
    assert "removed of 9: rating 1, duplicates 1, k_core 2" in update.said


def test_an_update_of_an_update(update, tmp_path):
    first = update([("u1", "b", 5, 7), ("u1", "d", 5, 8), ("u2", "d", 5, 9)])
    kept = first.rename(tmp_path / "first")
    second = load_dataset(update([("u2", "e", 5, 10), ("u1", "e", 5, 10)], previous=kept))
    assert second.known.tolist() == [4, 4] and second.sequence(1).tolist() == [2, 1, 3, 4, 5]


def test_actions_that_come_late_are_kept_and_counted(update):
    new = update([("u2", "d", 5, 3), ("u1", "d", 5, 9)])
    assert load_dataset(new).sequence(1).tolist() == [2, 1, 3, 4]
    assert read_json(new / "stats.json")["late_actions"] == 1 and "1 older than their user's last known one" in update.said


def test_titles_and_attributes_of_both(data_cli, write_reviews, tmp_path):
    old, meta = tmp_path / "old", tmp_path / "meta.jsonl"
    meta.write_text('{"asin": "a", "title": "A", "category": ["all", "x"]}\n{"asin": "b", "title": "B"}\n')
    data_cli("--input", write_reviews(OLD), "--k_core", 2, "--meta", meta, "--output_dir", old)
    newer = tmp_path / "newer.jsonl"
    newer.write_text('{"asin": "d", "title": "D"}\n{"asin": "b", "title": "better"}\n')
    reviews = write_reviews([("u1", "d", 5, 7), ("u2", "d", 5, 8)], "new.json.gz")
    for flags, titles in (((), ["A", "B", "", ""]), (("--meta", newer), ["A", "better", "", "D"])):
        status, _, error = data_cli(
            "--update_from", old, "--input", reviews, *flags, "--output_dir", tmp_path / "new", "--overwrite_output_dir"
        )
        assert status == 0, error
        assert pl.read_csv(tmp_path / "new" / "items.csv")["title"].to_list() == titles
        dataset = load_dataset(tmp_path / "new")
        assert [dataset.attributes.of(item) for item in (1, 2, 3, 4)] == [["x"], [], [], []]


def test_ready_made_sequences_go_on_as_they_are(data_cli, tmp_path):
    (tmp_path / "old.txt").write_text("u1 a b a c\nu2 b a c\n")
    (tmp_path / "new.txt").write_text("u2 a d\nu9 d d b\n")
    data_cli("--input", tmp_path / "old.txt", "--output_dir", tmp_path / "old")
    flags = ("--update_from", tmp_path / "old", "--input", tmp_path / "new.txt", "--output_dir", tmp_path / "new")
    status, _, error = data_cli(*flags)
    assert status == 0, error
    dataset = load_dataset(tmp_path / "new")
    assert [dataset.sequence(user).tolist() for user in range(3)] == [[1, 2, 1, 3], [2, 1, 3, 1, 4], [4, 4, 2]]
    assert dataset.timestamps is None and np.array_equal(dataset.known, [4, 3, 0])


@pytest.mark.parametrize(
    "rows, flags, reason",
    [
        (
            [("u1", "d", 5, 9), ("u2", "d", 5, 9)],
            ("--protocol", "released"),
            "--update_from is for the rules of --protocol paper",
        ),
        ([("u1", "d", 1, 9)], (), "nothing is left of 1 actions"),
        ([("u5", "a", 5, 9), ("u5", "b", 5, 9)], (), "user 'u5' has 2 actions"),
    ],
)
def test_what_cannot_go_on_is_one_line(update, rows, flags, reason):
    error = update(rows, *flags)
    assert isinstance(error, str) and error.startswith(f"error: {reason}") and error.count("\n") == 1


def test_what_is_no_data_directory_is_one_line(update, tmp_path):
    error = update([("u1", "d", 5, 9)], previous=tmp_path)
    assert error.startswith(f"error: {tmp_path}") and error.count("\n") == 1
