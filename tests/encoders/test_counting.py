import json

import numpy as np
import pytest
import torch

import evaluate
import extract_emb
import train_sr_trad
from slmrec.artifacts import Stage, write_json
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import SequenceDataset
from slmrec.encoders.counting import Markov, Popularity
from slmrec.encoders.registry import load_encoder, save_encoder
from slmrec.errors import InputError
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.training.encoder_loop import LoopSettings, train_encoder

# Seven items. The last two items of each user are those of validation and test; the user of three actions gives no training row.
SEQUENCES = [[1, 2, 1, 2, 6, 7], [1, 3, 2, 3, 4, 5], [3, 2, 6, 1], [4, 5, 6]]
TRAINING_PARTS = [[1, 2, 1, 2], [1, 3, 2, 3], [3, 2]]


def dataset(sequences=SEQUENCES, num_items=7):
    offsets = np.cumsum([0, *map(len, sequences)])
    return SequenceDataset(np.concatenate(sequences).astype(np.int32), offsets, num_items)


def prepared(model_class, data=None):
    data = data or dataset()
    model = model_class(data.num_items)
    model.prepare(SplitRows(data, "train", model.max_length))
    return model.eval()


def scores_after(model, *last_items):
    return model.score_all(torch.tensor(last_items, dtype=torch.float32).unsqueeze(1))


def test_popularity_by_hand():
    model = prepared(Popularity)
    assert scores_after(model, 1, 7).tolist() == [[0, 3, 4, 3, 0, 0, 0, 0]] * 2


def test_markov_by_hand():
    """After 1: twice 2, once 3. After 2: once 1, once 3. After 3: twice 2. After 4 to 7: nothing."""
    back_off = torch.tensor([0, 3, 4, 3, 0, 0, 0, 0]) / 5
    counts = {1: {2: 2, 3: 1}, 2: {1: 1, 3: 1}, 3: {2: 2}, 4: {}, 7: {}}
    expected = torch.stack([back_off + torch.tensor([row.get(item, 0) for item in range(8)]) for row in counts.values()])
    torch.testing.assert_close(scores_after(prepared(Markov), *counts), expected)


def test_markov_equals_a_loop_over_random_sequences():
    rng = np.random.default_rng(0)
    data = dataset([rng.integers(1, 13, rng.integers(3, 12)) for _ in range(60)], 12)
    counts = np.zeros((13, 13))
    popularity = np.zeros(13)
    for user in range(60):
        part = data.sequence(user)[:-2]
        if len(part) > 1:
            np.add.at(popularity, part, 1)
            for left, right in zip(part[:-1], part[1:], strict=True):
                counts[left, right] += 1
    expected = counts + popularity / (1 + popularity.max())
    torch.testing.assert_close(scores_after(prepared(Markov, data), *range(13)), torch.from_numpy(expected).float())


def test_the_last_item_is_read_and_at_test_it_is_that_of_validation():
    model = prepared(Markov)
    assert model.encode({"history": torch.tensor([4, 1, 2]), "lengths": torch.tensor([2, 1])}).tolist() == [[1.0], [2.0]]
    rows = SplitRows(dataset(), "test", model.max_length)
    assert model.encode(rows.collate(np.arange(4))).tolist() == [[6.0], [4.0], [6.0], [5.0]]


def test_back_off_ranks_what_follows_an_unknown_item_by_popularity():
    ranks = evaluate_recommender(prepared(Markov), dataset(), "test", full_ranking=True, progress=False).ranks["full"]
    # User 2: after item 6, never seen in training, items 1, 4, 5 and 7 are left to rank: 1 is the most popular of them.
    assert ranks[2] == 1
    # User 0: items 3, 4, 5 and 7 are left: 3 is ahead of 7, and the ties with 4 and 5 count against it.
    assert ranks[0] == 4


@pytest.mark.parametrize("model_class", [Popularity, Markov])
def test_candidates_get_the_scores_of_the_whole_catalogue(model_class):
    model = prepared(model_class)
    users, candidates = torch.tensor([[1.0], [6.0]]), torch.tensor([[2, 3, 7], [0, 1, 2]])
    assert torch.equal(model.score(users, candidates), model.score_all(users).gather(1, candidates))


def test_markov_learns_a_cycle_by_heart(tmp_path):
    cycle = dataset([(np.arange(7) + user) % 12 + 1 for user in range(24)], 12)
    model = Markov(12)
    (entry,) = train_encoder(model, cycle, LoopSettings(), tmp_path, torch.device("cpu"))
    assert entry["valid_MRR"] == 1.0
    assert evaluate_recommender(model, cycle, "test", full_ranking=True, progress=False).metrics["full"]["HR@1"] == 1.0


# -- through the stages ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path, write_names):
    with Stage("data", tmp_path / "data", {}, {}, item_map="seven items") as stage:
        np.savez(stage.path / "sequences.npz", items=dataset().items, offsets=dataset().offsets)
        write_names(stage.path, 4, 7)
        write_json(stage.path / "stats.json", {"items": 7, "users": 4})
    return tmp_path / "data"


def train(data, model, *flags):
    output = data.parent / model
    train_sr_trad.main(["--model", model, "--data", str(data), "--output_dir", str(output), "--device", "cpu", *flags])
    return output


@pytest.mark.parametrize("name, model_class", [("popularity", Popularity), ("markov", Markov)])
def test_trained_saved_loaded_and_evaluated(data, name, model_class):
    output = train(data, name)
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["parameters"] == 0 and metrics["best_epoch"] == 1 and len(metrics["history"]) == 1
    loaded = load_encoder(output)
    assert isinstance(loaded, model_class)
    assert torch.equal(scores_after(loaded, *range(8)), scores_after(prepared(model_class), *range(8)))
    evaluate.main(["--model", str(output), "--split", "valid", "--device", "cpu"])
    again = json.loads((output / "evaluation-valid" / "metrics.json").read_text())
    assert again["valid"]["sampled"]["MRR"] == metrics["valid"]["sampled"]["MRR"]


def test_weights_of_the_other_are_refused(data, reseal):
    output = train(data, "markov")
    save_encoder(prepared(Popularity), output)
    reseal(output)
    with pytest.raises(InputError, match="model.safetensors: not the weights of markov"):
        load_encoder(output)


@pytest.mark.parametrize("name", ["popularity", "markov"])
def test_there_are_no_embeddings_to_extract(data, name):
    output = train(data, name)
    with pytest.raises(InputError, match=f"^{name} only counts and has no item embeddings; choose another --model for them$"):
        extract_emb.main(["--encoder", str(output), "--output_dir", str(data.parent / "embeddings")])
    assert not list(data.parent.glob("embeddings*"))


@pytest.mark.parametrize("flag", ["--hidden_size", "--max_length", "--batch_size"])
def test_flags_without_an_effect_are_refused(data, flag):
    with pytest.raises(InputError, match=f"{flag}: markov has no such setting"):
        train(data, "markov", flag, "8")
