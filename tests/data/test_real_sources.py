"""The real files: the counts that this project stands by, and every source format."""

import csv
import json

import numpy as np
import pytest

from slmrec.data.dataset import load_dataset

GIFT_CARDS = ("amazon", "amazon2018_Gift_Cards_5/Gift_Cards_5.json.gz")
ALL_BEAUTY = ("amazon", "amazon2018_All_Beauty_5/All_Beauty_5.json.gz")
INSTRUMENTS = ("csv", "amazon2014_Musical_Instruments_5/Musical_Instruments_5.csv")
KEEP, FIRST, RELEASED = ["--duplicates", "keep"], [], ["--protocol", "released"]


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def process(data_cli, output, *arguments):
    status, _, error = data_cli(*arguments, "--output_dir", output)
    assert status == 0, error
    return load_dataset(output)


@pytest.mark.parametrize(
    "source, flags, expected",
    [
        (GIFT_CARDS, KEEP, (432, 144, 2806)),
        (GIFT_CARDS, FIRST, (430, 144, 2792)),
        (GIFT_CARDS, RELEASED, (195, 45, 1176)),
        (ALL_BEAUTY, KEEP, (891, 41, 4691)),
        (ALL_BEAUTY, FIRST, (134, 24, 671)),
        (ALL_BEAUTY, RELEASED, (26, 12, 132)),
        (INSTRUMENTS, KEEP, (526, 347, 3615)),
        (INSTRUMENTS, FIRST, (526, 347, 3615)),
        (INSTRUMENTS, RELEASED, (148, 78, 893)),
    ],
)
def test_counts_of_both_protocols(shared_data, data_cli, tmp_path, source, flags, expected):
    kind, name = source
    dataset = process(data_cli, tmp_path / "out", "--format", kind, "--input", shared_data / name, *flags)
    assert (dataset.num_users, dataset.num_items, len(dataset.items)) == expected
    stats = dataset.stats
    assert (stats["users"], stats["items"], stats["interactions"]) == expected
    assert stats["raw_rows"] - sum(stats["dropped"].values()) == expected[2]
    assert stats["malformed_lines"] == 0 and stats["synthetic"] is False
    assert sorted(set(dataset.items.tolist())) == list(range(1, expected[1] + 1))


def test_titles_of_the_amazon_meta_file(shared_data, data_cli, tmp_path):
    meta = shared_data / "amazon2018_Gift_Cards_5/meta_Gift_Cards.json.gz"
    dataset = process(data_cli, tmp_path / "out", "--format", "amazon", "--input", shared_data / GIFT_CARDS[1], "--meta", meta)
    assert dataset.stats["items_with_title"] == dataset.num_items == 144
    assert {"id": "1", "source_id": "B004LLIKVU", "title": "Amazon eGift Card"} in rows_of(tmp_path / "out/items.csv")


def test_titles_of_the_csv_meta_file_lose_their_html_entities(shared_data, data_cli, tmp_path):
    folder = shared_data / "amazon2014_Musical_Instruments_5"
    files = ["--input", folder / "Musical_Instruments_5.csv", "--meta", folder / "Music_Instruments_meta_5.csv"]
    dataset = process(data_cli, tmp_path / "out", "--format", "csv", *files)
    titles = {row["source_id"]: row["title"] for row in rows_of(tmp_path / "out/items.csv")}
    assert titles["B00004Y2UT"] == "Monster Standard 100 - 21' Instrument Cable - Straight to Straight 1/4\" plugs"
    assert not any("&quot;" in title or "&amp;" in title for title in titles.values())
    assert dataset.stats["items_with_title"] == 347


def test_attributes_of_the_real_files(shared_data, data_cli, tmp_path):
    """All reviewed items of both sources have some; the item text of Scientific does not tell its categories apart."""
    meta = shared_data / "amazon2018_Gift_Cards_5/meta_Gift_Cards.json.gz"
    dataset = process(data_cli, tmp_path / "cards", "--format", "amazon", "--input", shared_data / GIFT_CARDS[1], "--meta", meta)
    ids = {row["source_id"]: int(row["id"]) for row in rows_of(tmp_path / "cards/items.csv")}
    assert dataset.attributes.of(ids["B004LLIKVU"]) == ["Gift Cards"]  # as its line in the meta file says, without a brand
    assert dataset.attributes.of(ids["B004Q7CK9M"]) == ["Gift Cards", "Amazon"]
    assert (dataset.stats["items_with_attributes"], dataset.stats["attributes"]) == (144, 75)
    assert not any("<" in name for name in dataset.attributes.names)
    folder = shared_data / "amazon2014_Musical_Instruments_5"
    files = ["--input", folder / "Musical_Instruments_5.csv", "--meta", folder / "Music_Instruments_meta_5.csv"]
    dataset = process(data_cli, tmp_path / "instruments", "--format", "csv", *files)
    assert (dataset.stats["items_with_attributes"], dataset.stats["attributes"]) == (347, 82)
    ids = {row["source_id"]: int(row["id"]) for row in rows_of(tmp_path / "instruments/items.csv")}
    assert dataset.attributes.of(ids["B00004Y2UT"]) == ["Instrument Cables"]
    assert dataset.attributes.of(ids["B00006LVEU"]) == ["Cleaning & Care"]


def test_paper_protocol_orders_by_time_and_released_by_file(shared_data, data_cli, tmp_path):
    arguments = ["--format", "csv", "--input", shared_data / INSTRUMENTS[1]]
    paper = process(data_cli, tmp_path / "paper", *arguments)
    released = process(data_cli, tmp_path / "released", *arguments, *RELEASED)
    inside = np.setdiff1d(np.arange(1, len(paper.items)), paper.offsets)
    assert (np.diff(paper.timestamps)[inside - 1] >= 0).all()
    assert paper.stats["last_two_tie_share"] == pytest.approx(0.4487, abs=1e-4)
    # the file is sorted by asin, so numbers in order of appearance rise inside every user of the released protocol
    inside = np.setdiff1d(np.arange(1, len(released.items)), released.offsets)
    assert (np.diff(released.items)[inside - 1] > 0).all()


def test_text_sequences(shared_data, data_cli, tmp_path):
    source = shared_data / "amazon2014_proc_Beauty/Beauty.txt"
    dataset = process(data_cli, tmp_path / "out", "--format", "sequences", "--input", source)
    assert (dataset.num_users, dataset.num_items, len(dataset.items)) == (22363, 12101, 198502)
    assert dataset.timestamps is None
    assert dataset.stats["rules"]["rating"] == "skipped: the source has no ratings"
    assert dataset.stats["rules"]["order"].startswith("skipped: the source has no times")
    assert dataset.stats["last_two_tie_share"] is None
    # this file numbers its items by first appearance, as this project does: the ids agree
    lines = source.read_text().splitlines()
    for user in (0, 1, 22362):
        assert dataset.sequence(user).tolist() == [int(token) for token in lines[user].split()[1:]]


def test_json_sequences_with_id_tables(shared_data, data_cli, tmp_path):
    games = shared_data / "amazon2018_proc_Games"
    dataset = process(
        data_cli, tmp_path / "out", "--format", "sequences", "--input", games / "Games.inter.json.gz",
        "--item_table", games / "Games.item2id", "--user_table", games / "Games.user2id.gz",
    )  # fmt: skip
    assert (dataset.num_users, dataset.num_items, len(dataset.items)) == (50546, 16859, 452989)
    assert rows_of(tmp_path / "out/items.csv")[0]["source_id"] == "B00L59D9HG"
    assert rows_of(tmp_path / "out/users.csv")[0] == {"id": "0", "source_id": "A31160I7G2EZVN"}


def test_recbole_sequence_rows(shared_data, data_cli, tmp_path):
    folder = shared_data / "amazon2018_proc_Scientific"
    arguments = ["--format", "recbole", "--input", folder / "Scientific.test.inter", "--meta", folder / "Scientific.text"]
    arguments += ["--item_table", folder / "Scientific.item2index", "--user_table", folder / "Scientific.user2index"]
    dataset = process(data_cli, tmp_path / "all", *arguments, "--duplicates", "keep", "--k_core", "1")
    assert (dataset.num_users, dataset.num_items, len(dataset.items)) == (8442, 4385, 59384)
    first = rows_of(tmp_path / "all/items.csv")[0]
    assert first["source_id"] == "B00TNNWMXI" and first["title"].startswith("eSUN Bronze filament 1.75mm")
    assert dataset.stats["items_with_title"] == 4385 and dataset.attributes is None
    kept = process(data_cli, tmp_path / "kept", *arguments)
    assert (kept.stats["dropped"], kept.item_map) == ({}, dataset.item_map) and (kept.items == dataset.items).all()
    dataset = process(data_cli, tmp_path / "rules", *arguments, "--duplicates", "first", "--k_core", 5)
    assert dataset.stats["dropped"]["duplicates"] == 289


def test_recbole_prefixes_of_a_user_add_nothing(shared_data, data_cli, tmp_path):
    """Of a user's growing prefixes the longest counts; training rows cut at 50 items hold no whole sequence and are refused."""
    folder = shared_data / "amazon2018_proc_Scientific"
    flags = ["--format", "recbole", "--duplicates", "keep", "--k_core", "1"]
    whole = process(data_cli, tmp_path / "whole", *flags, "--input", folder / "Scientific.test.inter")
    parts = (folder / "Scientific.test.inter").read_text().splitlines()
    parts += (folder / "Scientific.valid.inter").read_text().splitlines()[1:]
    cut = {line.split("\t")[0] for line in parts if line.count(" ") >= 49}
    joined = tmp_path / "joined.inter"
    joined.write_text("\n".join(line for line in parts if line.split("\t")[0] not in cut) + "\n")
    dataset = process(data_cli, tmp_path / "joined", *flags, "--input", joined)
    assert dataset.num_users == whole.num_users - len(cut)
    assert dataset.stats["repeated_sequence_rows"] == dataset.num_users
    status, _, error = data_cli(*flags, "--input", folder / "Scientific.train.inter", "--output_dir", tmp_path / "train")
    assert status == 2 and "holds the whole sequence" in error


def test_two_runs_are_equal_and_the_second_is_up_to_date(shared_data, data_cli, tmp_path):
    arguments = ["--format", "amazon", "--input", shared_data / ALL_BEAUTY[1]]
    first, second = (process(data_cli, tmp_path / name, *arguments) for name in ("one", "two"))
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("one", "two")]
    assert manifests[0]["outputs"] == manifests[1]["outputs"]
    assert first.item_map == second.item_map != ""
    assert "up to date" in data_cli(*arguments, "--output_dir", tmp_path / "one")[1]
