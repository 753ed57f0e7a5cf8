"""Titles to vectors to a trained recommender, by the scripts."""

import json

import numpy as np
import polars as pl
import pytest
import torch

import embed_titles
import train_sr_trad
from slmrec.artifacts import Stage, read_manifest, write_json
from slmrec.data.attributes import ItemAttributes, save_attributes
from slmrec.embeddings import load_text_vectors
from slmrec.encoders.registry import load_encoder
from slmrec.errors import InputError
from slmrec.text.titles import item_texts

TITLES = [f"{kind} number {number}" for number in ["one", "two", "three", "four", "five"] for kind in ("drum", "cable", "capo")]


def write_data(directory, titles, item_map="fifteen things", attributes=None):
    """20 users who buy five items each of the first 14; nobody trains on item 15."""
    items = np.concatenate([(np.arange(5) + user) % 14 + 1 for user in range(20)]).astype(np.int32)
    with Stage("data", directory, {"titles": titles}, {}, item_map=item_map) as stage:
        np.savez(stage.path / "sequences.npz", items=items, offsets=np.arange(21, dtype=np.int64) * 5)
        counts = {"items": len(titles), "users": 20, "items_with_title": len([title for title in titles if title])}
        write_json(stage.path / "stats.json", counts)
        table = pl.DataFrame({"source_id": [f"B{n}" for n in range(len(titles))], "title": titles}).with_row_index("id", 1)
        table.write_csv(stage.path / "items.csv")
        if attributes:
            save_attributes(attributes, stage.path)
    return directory


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data", TITLES)


def embed(data, *flags, name="text"):
    output = data.parent / name
    embed_titles.main(["--data", str(data), "--output_dir", str(output), *flags])
    return output


def train(data, *flags, name="encoder"):
    small = [
        "--hidden_size",
        "4",
        "--num_heads",
        "1",
        "--num_layers",
        "1",
        "--max_length",
        "6",
        "--num_epochs",
        "1",
        "--device",
        "cpu",
    ]
    train_sr_trad.main(["--data", str(data), "--output_dir", str(data.parent / name), *small, *flags])
    return data.parent / name


def test_a_finished_directory(data, capsys):
    output = embed(data, "--dimensions", "6")
    manifest, vectors = read_manifest(output, "text"), load_text_vectors(output)
    assert manifest["item_map"] == "fifteen things" and vectors.shape == (16, 6) and not vectors[0].any()
    assert manifest["config"] == {"encoder": "tfidf", "attributes": False, "dimensions": 6, "ngrams": 2, "seed": 0} | {
        "layer": None,
        "max_tokens": None,
    }
    assert json.loads((output / "metrics.json").read_text()) == {"items": 15, "without_text": 0, "width": 6}
    assert capsys.readouterr().out.endswith("15 items; tfidf, width 6\n")
    embed(data, "--dimensions", "6")
    assert "up to date" in capsys.readouterr().out


def test_items_without_a_title_get_the_mean_and_are_counted(tmp_path, capsys):
    data = write_data(tmp_path / "data", ["", *TITLES[1:-1], ""])
    vectors = load_text_vectors(embed(data))
    torch.testing.assert_close(vectors[1], vectors[2:-1].mean(0))
    assert torch.equal(vectors[1], vectors[15]) and "15 items, 2 of them without a title" in capsys.readouterr().out


def test_a_text_is_embedded_once(tmp_path, monkeypatch):
    data = write_data(tmp_path / "data", ["drum", "capo", "", "drum"] + TITLES[4:])
    asked = []
    embed_tfidf = embed_titles.tfidf_vectors
    monkeypatch.setattr(embed_titles, "tfidf_vectors", lambda texts, *rest: asked.extend(texts) or embed_tfidf(texts, *rest))
    vectors = load_text_vectors(embed(data))
    assert len(asked) == len(set(asked)) == 13 and torch.equal(vectors[1], vectors[4]) and not torch.equal(vectors[1], vectors[2])


def test_categories_and_brands_behind_a_flag(tmp_path):
    """Item 1 has two attributes, item 3, which has no title, one."""
    offsets = np.array([0, 2, 2, 3] + [3] * 12, dtype=np.int64)
    attributes = ItemAttributes(np.array([0, 1, 1], dtype=np.int32), offsets, ["Strings", "Alder"])
    data = write_data(tmp_path / "data", [*TITLES[:2], "", *TITLES[3:]], attributes=attributes)
    assert item_texts(data, with_attributes=False)[:3] == ["drum number one", "cable number one", ""]
    assert item_texts(data, with_attributes=True)[:3] == ["drum number one. Strings. Alder", "cable number one", "Alder"]


def test_no_title_at_all(tmp_path):
    data = write_data(tmp_path / "data", [""] * 15)
    with pytest.raises(InputError, match="no item has a title"):
        embed(data)
    assert not (tmp_path / "text").exists()


def test_a_flag_of_another_encoder_is_refused(data):
    with pytest.raises(InputError, match="--layer is only for"):
        embed(data, "--layer", "2")


def test_the_table_of_a_trained_model_comes_from_the_texts(data):
    text = embed(data)
    model = train(data, "--text", str(text), "--learning_rate", "1e-9", "--text_std", "0.5", "--no_text_cold")
    manifest, table = read_manifest(model, "encoder"), load_encoder(model).item_matrix()
    assert table[1:].square().mean().sqrt().item() == pytest.approx(0.5, rel=1e-3)
    assert manifest["config"]["text"] == {
        "text_use": "start",
        "text_exponent": 0.5,
        "text_std": 0.5,
        "text_dimensions": None,
        "text_control": "none",
        "text_cold": False,
    }
    assert manifest["inputs"]["text"]["digest"] == read_manifest(text)["digest"]
    shuffled = train(data, "--text", str(text), "--learning_rate", "1e-9", "--text_control", "shuffled", name="shuffled")
    assert not torch.allclose(load_encoder(shuffled).item_matrix(), table, atol=0.05)


def test_without_text_nothing_changes(data):
    """Its configuration and inputs are those of runs from before there were texts."""
    manifest = read_manifest(train(data, "--text_use", "off"))
    assert "text" not in manifest["config"] and list(manifest["inputs"]) == ["data"]


def test_items_that_nobody_trained_on_get_their_vector_from_their_text(data):
    """Item 15 is in no sequence, so its row is as it started unless its text speaks for it."""
    text = embed(data)
    left = train(data, "--text", str(text), "--no_text_cold", name="left")
    filled = train(data, "--text", str(text), name="filled")
    first, second = (load_encoder(model).item_matrix() for model in (left, filled))
    assert torch.equal(first[:15], second[:15]) and not torch.equal(first[15], second[15])
    assert json.loads((filled / "metrics.json").read_text())["items_from_text"] == 1


@pytest.mark.parametrize("titled, used", [(8, True), (7, False)])
def test_titles_are_used_by_themselves_where_more_than_half_of_the_items_have_one(tmp_path, titled, used, capsys):
    """15 items: eight are more than half of them, seven are not."""
    data = write_data(tmp_path / "data", [*TITLES[:titled], *[""] * (15 - titled)])
    text = embed(data, "--min_share", "0.5")
    assert text.exists() == used
    model = train(data, "--text", str(text), "--text_use", "auto")
    shown = capsys.readouterr().out
    manifest = read_manifest(model)
    assert ("text" in manifest["config"]) == ("text" in manifest["inputs"]) == used
    line = (
        "53% of the items have a title: the item table starts from them"
        if used
        else "47% of the items have a title: titles are not used"
    )
    assert line in shown
    assert not used or manifest["config"]["text"]["text_use"] == "start"


def test_the_nearest_titles(data):
    """Items 1, 2 and 3 share the word "one", which is rarer than the kinds that recur every third item."""
    text = embed(data, "--ngrams", "1")
    with pytest.raises(InputError, match="--model nearest: needs --text"):
        train_sr_trad.main(["--model", "nearest", "--data", str(data), "--output_dir", str(data.parent / "none")])
    output = data.parent / "nearest"
    flags = ["--text", str(text), "--text_exponent", "1", "--output_dir", str(output)]
    train_sr_trad.main(["--model", "nearest", "--data", str(data), *flags])
    model, vectors = load_encoder(output), load_text_vectors(text)[1:]
    centred = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)
    users = model.encode({"history": torch.tensor([4, 1]), "lengths": torch.tensor([2])})
    scores = model.score_all(users)[0, 1:]
    torch.testing.assert_close(scores, centred @ centred[0], atol=1e-5, rtol=0)
    assert set((scores.argsort(descending=True)[:3] + 1).tolist()) == {1, 2, 3}


def test_texts_of_other_items_are_refused(data, tmp_path):
    text = embed(write_data(tmp_path / "others", TITLES, item_map="others"), name="others_text")
    with pytest.raises(InputError, match="do not number the same items"):
        train(data, "--text", str(text))
