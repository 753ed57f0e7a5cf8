import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from slmrec.data.batches import SplitRows
from slmrec.encoders.registry import ENCODERS, WEIGHTS, save_encoder
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.training.encoder_loop import LoopSettings, train_encoder

KNOWING_USERS = [name for name, entry in ENCODERS.items() if entry.knows_users]


@pytest.fixture
def with_newcomers(dataset_of):
    """Five users; number 1 and number 3 have three actions, and so no training row."""
    return dataset_of(np.split(np.arange(1, 25), np.cumsum([6, 3, 5, 3])), 40)


@pytest.mark.parametrize("name", KNOWING_USERS)
def test_the_same_history_of_another_user_is_another_vector(make_encoder, stirred, make_batch, name):
    model, batch = stirred(make_encoder(name)), make_batch([1, 6, 3, 6, 2])
    assert (model.encode(batch) != model.encode(batch | {"users": batch["users"].roll(1)})).any(dim=1).all()


@pytest.mark.parametrize("name", KNOWING_USERS)
def test_users_without_a_training_row_get_the_mean_of_the_others(make_encoder, with_newcomers, tmp_path, name):
    model = make_encoder(name, num_users=5)
    settings = LoopSettings(learning_rate=0.01, batch_size=8, num_epochs=2, patience=2)
    train_encoder(model, with_newcomers, settings, tmp_path, torch.device("cpu"))
    batch = SplitRows(with_newcomers, "test", model.max_length).collate(range(5))
    before, table = model.eval().encode(batch), model.user_embedding.weight
    assert model.trained_users.tolist() == [True, False, True, False, True]
    with torch.no_grad():
        mean = (table[0] + table[2] + table[4]) / 3
        torch.testing.assert_close(model.user_vectors(torch.arange(5)), torch.stack([table[0], mean, table[2], mean, table[4]]))
        table[[1, 3]] = 100.0
        assert torch.equal(model.encode(batch), before)
        save_encoder(model, tmp_path)
        table[[1, 3]] = mean
        model.trained_users.fill_(True)
        torch.testing.assert_close(model.encode(batch), before)
    model.load_state_dict(load_file(tmp_path / WEIGHTS))  # who was trained is part of the state
    assert torch.equal(model.encode(batch), before)
    assert evaluate_recommender(model, with_newcomers, "test", progress=False).ranks["sampled"].min() >= 1
