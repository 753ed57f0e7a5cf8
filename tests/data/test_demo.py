"""The synthetic reviews: the same bytes for the same seed, labelled, and with something in them for an order-aware model."""

import gzip
import json
import shutil

import numpy as np
import pytest

from slmrec.data import __main__ as data_stage
from slmrec.data import demo
from slmrec.data.dataset import load_dataset

NUM_CANDIDATES = 999


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo") / "raw"
    demo.main(["--output_dir", str(directory), "--seed", "0"])
    return directory


@pytest.fixture(scope="module")
def processed(raw):
    directory = raw.parent / "processed"
    arguments = ["--format", "amazon", "--input", str(raw / "reviews.json.gz"), "--meta", str(raw / "meta.json.gz")]
    data_stage.main([*arguments, "--output_dir", str(directory)])
    return load_dataset(directory)


def read_lines(path):
    with gzip.open(path, "rt") as stream:
        return [json.loads(line) for line in stream]


def test_same_seed_same_bytes(tmp_path):
    small = ["--num_users", "60", "--num_items", "100"]
    for name, seed in (("one", "5"), ("two", "5"), ("three", "6")):
        demo.main(["--output_dir", str(tmp_path / name), "--seed", seed, *small])
    contents = [[(tmp_path / name / file).read_bytes() for file in (demo.REVIEWS, demo.META)] for name in ("one", "two", "three")]
    assert contents[0] == contents[1]
    assert contents[0][0] != contents[2][0]


def test_reviews_look_like_the_2018_files(raw):
    reviews = read_lines(raw / "reviews.json.gz")
    asins = [review["asin"] for review in reviews]
    assert asins == sorted(asins)
    assert all(review["unixReviewTime"] % 86400 == 0 for review in reviews)
    assert {review["overall"] for review in reviews} == {1.0, 2.0, 3.0, 4.0, 5.0}
    pairs = {(review["reviewerID"], review["asin"]) for review in reviews}
    assert len(pairs) < len(reviews)
    titles = {item["asin"]: item["title"] for item in read_lines(raw / "meta.json.gz")}
    assert set(asins) <= set(titles) and any("&amp;" in title for title in titles.values())


def test_every_rule_has_work_and_enough_is_left(processed):
    stats = processed.stats
    assert stats["synthetic"] is True
    assert all(stats["dropped"][rule] > 100 for rule in ("rating", "duplicates", "k_core"))
    assert 2000 <= stats["users"] <= 3000 and 1100 <= stats["items"] <= 1500
    assert 8 <= stats["mean_length"] <= 11 and 0.05 < stats["last_two_tie_share"] < 0.3
    assert stats["items_with_title"] == stats["items"]


def test_only_the_generated_bytes_are_synthetic(raw, data_cli, tmp_path):
    own = tmp_path / "raw"
    shutil.copytree(raw, own)
    (own / "reviews.json.gz").write_bytes(gzip.compress(gzip.decompress((raw / "reviews.json.gz").read_bytes()) + b"\n"))
    status, out, error = data_cli("--format", "amazon", "--input", own / "reviews.json.gz", "--output_dir", tmp_path / "out")
    assert status == 0, error
    assert "synthetic" not in out and load_dataset(tmp_path / "out").stats["synthetic"] is False


def hit_rate_at_10(dataset, score):
    """Share of users whose test target is among the ten best of itself and 999 unseen items under score(history) [N + 1]."""
    rng, hits = np.random.default_rng(0), 0
    for user in range(dataset.num_users):
        sequence = dataset.sequence(user)
        unseen = np.setdiff1d(np.arange(1, dataset.num_items + 1), sequence)
        scores = score(sequence[:-1])
        candidates = rng.choice(unseen, NUM_CANDIDATES, replace=False)
        hits += (scores[candidates] >= scores[sequence[-1]]).sum() < 10
    return hits / dataset.num_users


def test_order_tells_more_than_popularity(processed):
    size = processed.num_items + 1
    follows, count = np.zeros((size, size)), np.zeros(size)
    for user in range(processed.num_users):
        training = processed.sequence(user)[:-1]
        np.add.at(count, training, 1)
        np.add.at(follows, (training[:-1], training[1:]), 1)
    popularity = count / count.sum()
    by_popularity = hit_rate_at_10(processed, lambda history: popularity)
    by_last_item = hit_rate_at_10(processed, lambda history: follows[history[-1]] + popularity)
    assert by_popularity < 0.15
    assert by_last_item > 5 * by_popularity
    assert by_last_item < 0.7  # more than one item back is needed for the rest


def test_too_small_a_demo_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["demo", "--output_dir", str(tmp_path / "d"), "--num_items", "3"])
    with pytest.raises(SystemExit):
        demo.run_main(demo.main)
    assert "--num_items 3: must be at least 100" in capsys.readouterr().err
