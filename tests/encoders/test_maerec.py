import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.data.batches import SplitRows
from slmrec.encoders import maerec
from slmrec.encoders.maerec import gumbel_noise
from slmrec.errors import InputError
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.training.encoder_loop import LoopSettings, train_encoder

N = 40


@pytest.fixture
def prepared(make_encoder, stirred, random_dataset):
    """prepared(targets="all", **changes): a model in training and the rows it was prepared with; item 40 has no edge."""

    def prepare(targets="all", **changes):
        model = stirred(make_encoder("maerec", dropout=0.0, **changes)).train()
        rows = SplitRows(random_dataset, "train", model.max_length, targets)
        model.prepare(rows)
        return model, rows

    return prepare


def dense(graph):
    matrix = torch.zeros(N + 1, N + 1)
    matrix[graph.edges[0], graph.edges[1]] = 1.0
    return matrix


def loop_items(model, adjacency):
    """Sum over layers of e^(l+1)_v = sum over neighbours w of e^l_w / sqrt(degree v * degree w), item by item."""
    degree = adjacency.sum(1)
    layers = [model.item_embedding.weight.detach()]
    for _ in range(model.num_graph_layers):
        vectors = torch.zeros_like(layers[0])
        for v, w in adjacency.nonzero().tolist():
            vectors[v] += layers[-1][w] / math.sqrt(degree[v] * degree[w])
        layers.append(vectors)
    return layers


# -- the forward pass -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def loop_forward(loop_blocks):
    """One user's history [L] -> [L, d]: the sum of what goes into the blocks and of what comes out of each."""
    return lambda model, history, items: sum(loop_blocks(model, items[history], causal=True))


def test_equals_a_loop_over_neighbours_heads_and_positions(prepared, rows_of, loop_forward):
    model, rows = prepared()
    model.eval()
    batch = SplitRows(rows.dataset, "test", model.max_length).collate(np.arange(20))
    with torch.no_grad():
        items = sum(loop_items(model, dense(model.graph)))
        torch.testing.assert_close(model.item_matrix(), items)
        expected = [loop_forward(model, row, items) for row in rows_of(batch)]
        torch.testing.assert_close(model.encode_positions(batch), torch.cat(expected), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.encode(batch), torch.stack([row[-1] for row in expected]), atol=1e-5, rtol=1e-5)
    assert torch.equal(model.item_matrix()[N], model.item_embedding.weight[N])  # no edge: its own embedding


@pytest.mark.parametrize("targets", ["all", "last"])
def test_training_reads_the_visible_graph(prepared, rows_of, loop_forward, targets):
    model, rows = prepared(targets)
    batch = rows.collate(np.arange(8))
    terms = model.training_loss(batch, targets, catalogue_cross_entropy)
    assert 0 < model.visible.edges.shape[1] < model.graph.edges.shape[1]
    with torch.no_grad():
        items = sum(loop_items(model, dense(model.visible)))
        read = slice(None) if targets == "all" else slice(-1, None)
        vectors = torch.cat([loop_forward(model, row, items)[read] for row in rows_of(batch)])
        expected = F.cross_entropy(vectors @ items[1:].T, batch["targets"] - 1)
    torch.testing.assert_close(terms["next_item"], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(terms["total"], terms["next_item"] + 0.1 * terms["reconstruction"] + 0.5 * terms["mask"])


# -- learning to mask -----------------------------------------------------------------------------------------------------------


def test_relatedness_equals_a_loop_over_walks(prepared):
    model, _ = prepared()
    adjacency, vectors = dense(model.graph), model.item_embedding.weight.detach()
    transition = adjacency / adjacency.sum(1, keepdim=True).clamp(min=1)
    expected = torch.zeros(N + 1)
    for v in range(1, N + 1):
        ends = F.one_hot(torch.tensor(v), N + 1).float()
        for _ in range(maerec.MASK_DEPTH):
            ends = ends @ transition  # [N + 1] the share of walks from v that end at each item
            cosines = F.cosine_similarity(vectors[v], vectors, dim=1)
            expected[v] += (ends * cosines).sum() / maerec.MASK_DEPTH
    torch.testing.assert_close(model.relatedness().detach(), expected)


def test_the_mask_loss_is_that_of_noisy_relatedness(prepared):
    model, _ = prepared()
    torch.manual_seed(4)
    loss = model.next_mask()
    torch.manual_seed(4)
    scores = model.relatedness() + gumbel_noise(torch.zeros(N + 1))
    connected = model.graph.degree > 0
    assert not connected[N] and not connected[0]
    torch.testing.assert_close(loss, -scores[connected].mean())
    loss.backward()
    assert model.item_embedding.weight.grad[connected].abs().sum() > 0


def test_gumbel_noise_has_its_mean_and_variance():
    torch.manual_seed(0)
    noise = gumbel_noise(torch.zeros(100_000))
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.02)
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, abs=0.05)


def test_the_mask_is_what_paths_from_the_anchors_reach(prepared, monkeypatch):
    model, _ = prepared(mask_probability=0.05)
    assert model.num_anchors == 2
    adjacency, scores = dense(model.graph), torch.randn(N + 1)
    scores[[0, N]] = 100.0  # PAD and an item without an edge are no anchors
    connected = model.graph.degree > 0
    anchors = scores.masked_fill(~connected, -1e9).topk(2).indices.tolist()
    reached = {0: set(anchors)}
    for k in range(1, maerec.MASK_DEPTH):
        reached[k] = reached[k - 1] | {w for v in reached[k - 1] for w in adjacency[v].nonzero().squeeze(1).tolist()}
    for kept, depth in ((0.0, 0), (1.0, maerec.MASK_DEPTH - 1)):
        monkeypatch.setattr(maerec, "KEPT", kept)
        assert set(model.draw_mask(scores).nonzero().squeeze(1).tolist()) == reached[depth]
    monkeypatch.setattr(maerec, "KEPT", 0.5)
    some = set(model.draw_mask(scores).nonzero().squeeze(1).tolist())
    assert reached[0] < some < reached[maerec.MASK_DEPTH - 1]


def test_a_mask_is_kept_for_its_steps(prepared):
    model, rows = prepared()
    batch = rows.collate(np.arange(8))
    masks, losses = [], []
    for _ in range(maerec.MASK_STEPS + 1):
        losses.append(float(model.training_loss(batch, "all", catalogue_cross_entropy)["mask"].detach()))
        masks.append(model.masked.clone())
        edges = model.visible.edges
        assert not model.masked[edges].any()
    assert all(torch.equal(masks[0], mask) for mask in masks[:-1]) and not torch.equal(masks[0], masks[-1])
    assert losses[0] != 0 and losses[-1] != 0 and not any(losses[1:-1])


# -- reconstruction -------------------------------------------------------------------------------------------------------------


def test_edge_scores_equal_a_loop_over_pairs_of_layers(prepared):
    model, _ = prepared()
    layers = [layer.detach() for layer in model.graph_layers(model.graph)]
    ends = torch.randint(1, N + 1, (2, 4, 3))
    scores = model.edge_scores(layers, ends)
    for i in range(4):
        for j in range(3):
            v, w = ends[:, i, j].tolist()
            products = [layers[a][v] * layers[b][w] for a in range(2) for b in range(2)]
            torch.testing.assert_close(scores[i, j], model.decoder(torch.cat(products)).squeeze())


def test_masked_edges_are_told_from_edges_with_one_end_exchanged(prepared, monkeypatch):
    model, _ = prepared()
    model.next_mask()
    seen = []

    def recorded(layers, ends):
        seen.append(ends)
        return torch.arange(1 + maerec.NUM_NEGATIVES).float().expand(maerec.NUM_POSITIVES, -1)

    monkeypatch.setattr(model, "edge_scores", recorded)
    loss = model.reconstruction_loss([])
    torch.testing.assert_close(loss, torch.arange(1.0 + maerec.NUM_NEGATIVES).logsumexp(0))  # the positive has score 0
    (ends,) = seen
    assert ends.shape == (2, maerec.NUM_POSITIVES, 1 + maerec.NUM_NEGATIVES) and ends.min() >= 1 and ends.max() <= N
    adjacency = dense(model.graph)
    positives = ends[:, :, 0]
    assert adjacency[positives[0], positives[1]].all() and model.masked[positives].any(0).all()
    half = 1 + maerec.NUM_NEGATIVES // 2
    assert torch.equal(ends[1, :, :half], positives[1].unsqueeze(1).expand(-1, half))
    assert torch.equal(ends[0, :, half:], positives[0].unsqueeze(1).expand(-1, maerec.NUM_NEGATIVES - half + 1))
    assert set(ends[0, :, 1:half].flatten().tolist()) == set(range(1, N + 1))


# -- the table, odd data --------------------------------------------------------------------------------------------------------


def test_evaluation_sees_the_present_weights(prepared):
    model, rows = prepared()
    model.eval()
    before = model.item_matrix().clone()
    model.train()
    model.training_loss(rows.collate(np.arange(8)), "all", catalogue_cross_entropy)["total"].backward()
    torch.optim.Adam(model.parameters(), lr=0.1).step()
    evaluate_recommender(model, rows.dataset, "valid", progress=False)
    assert model.training and not torch.equal(model.item_matrix(), before)
    torch.testing.assert_close(model.item_matrix(), sum(loop_items(model, dense(model.graph))))


def test_the_state_has_shapes_that_no_data_changes(make_encoder, prepared):
    shapes = {name: tensor.shape for name, tensor in make_encoder("maerec").state_dict().items()}
    model, rows = prepared()
    model.training_loss(rows.collate(np.arange(8)), "all", catalogue_cross_entropy)
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == shapes


def test_data_without_transitions_is_refused(make_encoder, dataset_of):
    rows = SplitRows(dataset_of([[1, 1, 1, 1, 2], [3, 3, 3, 4, 5]], 5), "train", 5)
    with pytest.raises(InputError, match="maerec needs transitions between different items"):
        make_encoder("maerec", 5).prepare(rows)


@pytest.mark.parametrize("targets", ["all", "last"])
def test_learns_a_cycle_by_heart(make_encoder, cycle, tmp_path, monkeypatch, targets):
    """Scored by the epoch that validation chooses: each new mask unsettles what was learnt."""
    monkeypatch.setattr(maerec, "HOPS", 1)  # of twelve items, all would be neighbours within three places
    monkeypatch.setattr(maerec, "NUM_POSITIVES", 64)
    model = make_encoder("maerec", cycle.num_items, hidden_size=16, num_layers=1, dropout=0.0, max_length=5)
    settings = LoopSettings(targets, learning_rate=0.01, batch_size=8, num_epochs=60, patience=60)
    history = train_encoder(model, cycle, settings, tmp_path, torch.device("cpu"))
    assert history[-1]["reconstruction"] < history[0]["reconstruction"]
    metrics = evaluate_recommender(model, cycle, "test", full_ranking=True, progress=False).metrics
    assert metrics["full"]["HR@1"] == 1.0
