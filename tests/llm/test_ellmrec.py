import pytest
import torch
from torch import nn

from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.llm.ellmrec import ENCODINGS, EllmRecommender, next_item_objective
from slmrec.llm.prompt import Prompt
from slmrec.recommender import Recommender


def test_heads_have_the_shapes_of_the_paper(make_recommender):
    """Linear d0 -> d1 with bias before the decoder, d1 -> d0 without bias after it, and one such adapter per supervised layer."""
    model = make_recommender(3, supervised_layers=(1, 2))
    assert isinstance(model, Recommender)
    assert model.item_projection.weight.shape == (32, 8) and model.item_projection.bias.shape == (32,)
    assert model.user_projection.weight.shape == (8, 32) and model.user_projection.bias is None
    assert sorted(model.block_projections) == ["1", "2"]
    assert all(head.weight.shape == (8, 32) and head.bias is None for head in model.block_projections.values())


def test_item_embeddings_are_never_trained(make_recommender):
    model = make_recommender()
    assert not model.item_matrix().requires_grad
    assert all(parameter.data_ptr() != model.item_matrix().data_ptr() for parameter in model.parameters())


@torch.no_grad()
def test_user_vectors_are_projected_states_and_scores_are_dot_products(make_recommender, make_batch):
    model, batch = make_recommender(3, supervised_layers=(1,)), make_batch([3, 8])
    encoded = model(batch, layers=(2, 3))
    assert sorted(encoded.states) == [2, 3] and sorted(encoded.block_users) == [1]
    torch.testing.assert_close(encoded.users, encoded.states[3] @ model.user_projection.weight.T)
    expected = model(batch, layers=(1,)).states[1] @ model.block_projections["1"].weight.T
    torch.testing.assert_close(encoded.block_users[1], expected)
    torch.testing.assert_close(model.score_all(encoded.users), encoded.users @ model.item_embeddings.T)


@torch.no_grad()
def test_with_all_targets_inference_reads_the_last_item(make_recommender, make_batch):
    model, batch = make_recommender(closing=0, targets="all"), make_batch([3, 8], "all")
    every = model(batch).users
    assert every.shape == (11, 8)
    torch.testing.assert_close(model.encode(batch), every[[2, 10]], atol=1e-6, rtol=0)


@torch.no_grad()
def test_user_vectors_are_float32_under_mixed_precision(make_recommender, make_batch):
    model = make_recommender()
    with torch.autocast("cpu", torch.bfloat16):
        encoded = model(make_batch([3, 8]), layers=(1,))
    assert encoded.users.dtype == torch.float32 and encoded.users.isfinite().all()


class OneToken(nn.Module):
    """Stands for a decoder that answers every row with fixed states."""

    config = type("Config", (), {"hidden_size": 2, "num_hidden_layers": 1})()

    def get_input_embeddings(self):
        return nn.Embedding(3, 2)


def test_objective_is_the_cross_entropy_of_equation_1(monkeypatch):
    """Users (1, 0) and (0, 2) against items (1, 0), (0, 1), (1, 1): logits 1 0 1 and 0 2 2; targets 1 and 3."""
    table = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # row 0 is PAD and must not take part
    model = EllmRecommender(OneToken(), table, Prompt((1,), (2,)), max_length=3)
    model.user_projection.weight.data = torch.eye(2)
    states = {1: torch.tensor([[1.0, 0.0], [0.0, 2.0]])}
    monkeypatch.setitem(ENCODINGS, "exact", lambda *_, **__: states)
    batch = {"history": torch.tensor([1, 2]), "lengths": torch.tensor([1, 1]), "targets": torch.tensor([1, 3])}
    e = torch.e
    expected = (-torch.log(torch.tensor(e / (2 * e + 1))) - torch.log(torch.tensor(e**2 / (2 * e**2 + 1)))) / 2
    terms = next_item_objective(model, batch)
    assert terms.keys() == {"ce", "loss"} and terms["ce"] is terms["loss"]
    torch.testing.assert_close(terms["loss"], expected)


@pytest.mark.parametrize("lora", [False, True])
def test_one_step_lowers_the_loss_and_reaches_every_trained_tensor(make_recommender, make_batch, lora):
    model, batch = make_recommender(2, lora=lora), make_batch([3, 8, 30, 1])
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimiser = torch.optim.SGD(trained.values(), lr=1e-3)
    before = next_item_objective(model, batch)["loss"]
    before.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in trained.values())
    optimiser.step()
    assert next_item_objective(model, batch)["loss"] < before
    users = model(batch).users
    torch.testing.assert_close(
        next_item_objective(model, batch)["loss"], catalogue_cross_entropy(users, model.item_matrix(), batch["targets"])
    )


def test_item_dropout_acts_in_training_only_and_keeps_the_expectation(make_recommender, make_batch):
    """With dropout p, item vectors are zeroed or scaled by 1 / (1 - p); in eval mode nothing changes."""
    model, batch = make_recommender(item_dropout=0.5), make_batch([3, 8])
    plain = model.eval().encode(batch)
    torch.testing.assert_close(model.encode(batch), plain, rtol=0, atol=0)
    assert not torch.allclose(model.train().encode(batch), plain)
    vectors = model.item_projection(model.item_embeddings[batch["history"]])
    dropped = model.item_dropout(vectors)
    kept = dropped != 0
    assert 0.3 < kept.float().mean() < 0.7
    torch.testing.assert_close(dropped[kept], 2 * vectors[kept])
