"""Using trained models: one history, many histories, unknown ids, empty and long histories, copied directories."""

import shutil

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import recommend
import slmrec
import train_sr_trad
from slmrec.data.dataset import load_dataset
from slmrec.errors import InputError
from slmrec.recommendation import Query

SMALL = ["--max_length", "6", "--num_epochs", "1", "--batch_size", "16", "--device", "cpu"]


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_data, tiny_teacher):
    """A model of every kind of scoring: dot products, users' embeddings, counts, an E-LLMRec."""
    root = tmp_path_factory.mktemp("models")
    flags = {"sasrec": SMALL, "caser": SMALL, "popularity": [], "markov": []}
    for name, own in flags.items():
        train_sr_trad.main(["--model", name, "--data", str(tiny_data), "--output_dir", str(root / name), *own])
    return {name: root / name for name in flags} | {"e4srec": tiny_teacher}


def by_hand(directory, history, k, viewed=True):
    """Scores of every item from the network itself, sorted."""
    model = slmrec.load(directory, "cpu")
    numbers = [int(item[1:]) for item in history]
    read = numbers[-model.recommender.max_length :]
    batch = {"users": torch.tensor([-1]), "history": torch.tensor(read), "lengths": torch.tensor([len(read)])}
    with torch.no_grad():
        scores = model.recommender.score_all(model.recommender.encode(batch))[0].clone()
    scores[0] = -np.inf
    if viewed:
        scores[numbers] = -np.inf
    values, items = scores.sort(descending=True, stable=True)
    return [f"i{number}" for number in items[:k].tolist()], values[:k].tolist()


@pytest.mark.parametrize("name", ["sasrec", "caser", "popularity", "markov", "e4srec"])
def test_the_best_items_of_a_history_longer_than_is_read(models, name):
    history = [f"i{n}" for n in [3, 1, 4, 15, 9, 2, 6, 5, 35, 8]] * 4
    found = slmrec.load(models[name], "cpu").recommend(history, k=5)
    items, scores = by_hand(models[name], history, 5)
    assert [one.item for one in found] == items
    assert [one.score for one in found] == pytest.approx(scores, abs=1e-5)
    assert [one.title for one in found] == ["" if int(item[1:]) % 5 == 0 else f"item number {item[1:]}" for item in items]
    assert not set(items) & set(history) and not found.by_popularity


def test_viewed_excluded_and_only(models):
    model = slmrec.load(models["sasrec"], "cpu")
    history = ["i1", "i2", "i3"]
    assert by_hand(models["sasrec"], history, 40, viewed=False)[0] == [
        one.item for one in model.recommend(history, k=99, filter_viewed=False)
    ]
    first = model.recommend(history, k=2)
    assert [one.item for one in model.recommend(history, k=1, exclude=[first[0].item])] == [first[1].item]
    assert {one.item for one in model.recommend(history, k=5, only=["i1", "i7", "i9"])} == {"i7", "i9"}


@pytest.mark.parametrize("name", ["sasrec", "markov", "e4srec"])
def test_many_queries_at_once_are_answered_as_one_by_one(models, name):
    model = slmrec.load(models[name], "cpu")
    queries = [
        Query(["i1", "i2", "i3"], k=4),
        Query(["i9"], k=2, filter_viewed=False),
        Query([], k=3),
        Query(["i4", "gone"], k=3, exclude=["i5", "i6"]),
        Query(["i8", "i7"], k=9, only=["i7", "i20", "i30"]),
        Query([], k=9, only=["i20"], exclude=["i20"]),
    ]
    for query, together in zip(queries, model.recommend_many(queries), strict=True):
        alone = model.recommend(**vars(query))
        assert [one.item for one in together] == [one.item for one in alone]
        assert [one.score for one in together] == pytest.approx([one.score for one in alone], abs=1e-5)
        assert (together.unknown, together.by_popularity) == (alone.unknown, alone.by_popularity)
    assert len(model.recommend_many(queries)[5]) == 0


def test_more_than_there_is_costs_no_more_than_there_is(models):
    """Room for 10 ** 12 items would be terabytes."""
    model, k = slmrec.load(models["sasrec"], "cpu"), 10**12
    assert list(model.recommend(["i1", "i2"], k)) == list(model.recommend(["i1", "i2"], len(model.catalogue)))
    assert len(model.similar_items("i1", k)) == len(model.catalogue) - 1
    assert len(model.recommend_all(pl.DataFrame({"user": ["u"], "item": ["i1"]}), k)) == len(model.catalogue) - 1


def test_unknown_ids_are_named_and_skipped_or_refused(models, caplog):
    model = slmrec.load(models["sasrec"], "cpu")
    found = model.recommend(["i1", "B00X", "i2"], k=3)
    assert found.unknown == ("B00X",) and "'B00X'" in caplog.text
    assert list(found) == list(model.recommend(["i1", "i2"], k=3))
    with pytest.raises(InputError, match="the history: the model does not know 'B00X'"):
        model.recommend(["i1", "B00X"], unknown="refuse")
    with pytest.raises(InputError, match="a list of ids is needed"):
        model.recommend("i1")


def test_an_empty_history_is_answered_by_popularity(models, tiny_data, caplog):
    model = slmrec.load(models["sasrec"], "cpu")
    dataset = load_dataset(tiny_data)
    counted = np.zeros(dataset.num_items + 1)
    for user in range(dataset.num_users):
        np.add.at(counted, dataset.sequence(user)[:-2], 1)
    found = model.recommend([], k=3)
    assert found.by_popularity and "popularity" in caplog.text
    assert [one.item for one in found] == [f"i{n}" for n in np.argsort(-counted[1:], kind="stable")[:3] + 1]
    assert model.recommend(["nothing", "known"], k=1).by_popularity


def test_a_copied_directory_is_whole(models, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(models["sasrec"], copy)
    assert list(slmrec.load(copy, "cpu").recommend(["i3"], k=4)) == list(
        slmrec.load(models["sasrec"], "cpu").recommend(["i3"], k=4)
    )


@pytest.mark.parametrize("name", ["sasrec", "markov", "e4srec"])
def test_all_users_of_a_data_directory_are_those_of_one_at_a_time(models, name, tiny_data):
    model, dataset = slmrec.load(models[name], "cpu"), load_dataset(tiny_data)
    table = model.recommend_all(tiny_data, k=3, batch_size=7)
    assert isinstance(table, pd.DataFrame) and list(table.columns) == ["user", "rank", "item", "title", "score"]
    assert len(table) == 3 * dataset.num_users
    for user in (0, 17, dataset.num_users - 1):
        alone = model.recommend([f"i{n}" for n in dataset.sequence(user)], k=3)
        assert table[table["user"] == f"u{user}"]["item"].tolist() == [one.item for one in alone]


def test_frames_of_source_ids(models, caplog):
    model = slmrec.load(models["sasrec"], "cpu")
    rows = {"user": ["b", "a", "b", "c"], "item": ["i2", "i9", "i1", "what"], "time": [5, 1, 3, 2]}
    table = model.recommend_all(pl.DataFrame(rows), k=2)
    assert isinstance(table, pl.DataFrame) and table["user"].to_list() == ["a", "a", "c", "c", "b", "b"]
    assert table.filter(pl.col("user") == "b")["item"].to_list() == [one.item for one in model.recommend(["i1", "i2"], k=2)]
    assert "1 actions on items that the model does not know" in caplog.text and "1 of 3 histories" in caplog.text
    assert isinstance(model.recommend_all(pd.DataFrame(rows), k=2), pd.DataFrame)
    with pytest.raises(InputError, match="no column 'user'"):
        model.recommend_all(pd.DataFrame({"item": []}))


def test_similar_items_by_hand(models):
    model = slmrec.load(models["sasrec"], "cpu")
    table = torch.nn.functional.normalize(model.recommender.item_matrix().detach(), dim=1)
    cosines = table @ table[7]
    cosines[[0, 7]] = -2
    values, items = cosines.sort(descending=True)
    found = model.similar_items("i7", k=4)
    assert [one.item for one in found] == [f"i{n}" for n in items[:4].tolist()]
    assert [one.score for one in found] == pytest.approx(values[:4].tolist(), abs=1e-6)
    with pytest.raises(InputError, match="does not know 'i99'"):
        model.similar_items("i99")
    with pytest.raises(InputError, match="no item embeddings"):
        slmrec.load(models["popularity"], "cpu").similar_items("i7")


@pytest.mark.parametrize("suffix, read", [(".parquet", pl.read_parquet), (".csv", pl.read_csv), (".jsonl", pl.read_ndjson)])
def test_all_users_into_a_file(models, tmp_path, tiny_data, suffix, read):
    output = tmp_path / f"recommendations{suffix}"
    recommend.main(
        ["--model", str(models["sasrec"]), "--users", "all", "--output", str(output), "--k", "2", "--batch_size", "10"]
    )
    table = read(output)
    expected = slmrec.load(models["sasrec"], "cpu").recommend_all(tiny_data, k=2)
    assert table["item"].to_list() == expected["item"].tolist() and table["user"].to_list() == expected["user"].tolist()
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


def test_the_command_line_answers_one_history(models, capsys):
    recommend.main(["--model", str(models["sasrec"]), "--history", "i1, i2", "--k", "2", "--device", "cpu"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rank", "item", "score", "title"] and len(lines) == 3
    recommend.main(["--model", str(models["sasrec"]), "--users", "u3", "--k", "2"])
    assert capsys.readouterr().out.splitlines()[1].startswith("u3")


def test_bf16_answers_nearly_alike(models, capsys):
    exact, low = (slmrec.load(models["e4srec"], "cpu", precision).recommend(["i1", "i2"], k=5) for precision in ("fp32", "bf16"))
    assert [item.score for item in low] == pytest.approx([item.score for item in exact], abs=0.05) and low != exact
    recommend.main(["--model", str(models["e4srec"]), "--history", "i1,i2", "--k", "1", "--precision", "bf16", "--device", "cpu"])
    assert low.items[0].item in capsys.readouterr().out
    with pytest.raises(InputError, match="--precision fp16: choose one of fp32, bf16"):
        slmrec.load(models["e4srec"], "cpu", "fp16")


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "either --history"),
        (["--history", "i1", "--users", "all"], "either --history"),
        (["--history", "i1", "--output", "x.csv"], "go with --users"),
        (["--users", "all", "--output", "x.xlsx"], "must end in"),
        (["--users", "nobody"], "'nobody' is not a user"),
        (["--history", "i1", "--k", "0"], "--k 0"),
        (["--history", "i1", "--precision", "bf16"], "E4SRec and SLMRec alone answer in it"),
    ],
)
def test_what_cannot_be_asked(models, flags, message):
    with pytest.raises(InputError, match=message):
        recommend.main(["--model", str(models["sasrec"]), *flags])
