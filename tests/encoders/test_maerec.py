import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from slmrec.artifacts import InputError, Stage
from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import SequenceDataset
from slmrec.encoders import maerec
from slmrec.encoders.checkpoint import load_encoder, save_encoder
from slmrec.encoders.maerec import MAERec, gumbel_noise
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.training import encoder_loop
from slmrec.training.encoder_loop import LoopSettings, train_encoder

CPU = torch.device("cpu")
ARCHITECTURE = {
    "hidden_size": 8,
    "num_layers": 2,
    "num_heads": 2,
    "dropout": 0.0,
    "max_length": 5,
    "num_graph_layers": 2,
    "mask_probability": 0.05,
    "reconstruction_weight": 0.1,
    "contrast_weight": 0.5,
}
N = 30


def build(seed=0, num_items=N, **changes):
    torch.manual_seed(seed)
    return MAERec(num_items, **ARCHITECTURE | changes)


def dataset_of(sequences, num_items):
    return SequenceDataset(np.concatenate(sequences).astype(np.int32), np.cumsum([0, *map(len, sequences)]), num_items)


def random_dataset(num_users=20, seed=0):
    """Item 30 occurs nowhere: it has no edge."""
    rng = np.random.default_rng(seed)
    return dataset_of([rng.integers(1, N, rng.integers(3, 9)) for _ in range(num_users)], N)


def prepared(model=None, targets="all", data=None):
    """A model with weights away from the small initial ones, and the training rows it was prepared with."""
    model = model or build()
    for parameter in model.parameters():
        parameter.data.mul_(5.0).add_(0.1 * torch.randn_like(parameter))
    model.item_embedding.weight.data[0] = 0.0
    rows = SplitRows(data or random_dataset(), "train", 5, targets)
    model.prepare(rows)
    return model, rows


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


def loop_attention(block, inputs):
    width = inputs.shape[1] // block.num_heads
    query, key, value = (inputs @ block.query_key_value.weight.T + block.query_key_value.bias).chunk(3, dim=1)
    outputs = torch.zeros_like(inputs)
    for head in range(block.num_heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(len(inputs)):
            weights = (key[: i + 1, part] @ query[i, part] / math.sqrt(width)).softmax(0)
            outputs[i, part] = weights @ value[: i + 1, part]
    return block.attention_output(outputs)


def loop_forward(model, history, items):
    """One user's history [L] -> [L, d]."""
    inputs = [items[item] + model.position_embedding.weight[len(history) - 1 - i] for i, item in enumerate(history.tolist())]
    states = [model.input_norm(torch.stack(inputs))]
    for block in model.blocks:
        attended = block.attention_norm(states[-1] + loop_attention(block, states[-1]))
        states.append(block.feed_forward_norm(attended + block.feed_forward(attended)))
    return sum(states)


def rows_of(batch):
    return torch.split(batch["history"], batch["lengths"].tolist())


# -- the forward pass -----------------------------------------------------------------------------------------------------------


def test_equals_a_loop_over_neighbours_heads_and_positions():
    model, rows = prepared()
    model.eval()
    batch = SplitRows(rows.dataset, "test", 5).collate(np.arange(20))
    with torch.no_grad():
        items = sum(loop_items(model, dense(model.graph)))
        torch.testing.assert_close(model.item_matrix(), items)
        expected = [loop_forward(model, row, items) for row in rows_of(batch)]
        torch.testing.assert_close(model.encode_positions(batch), torch.cat(expected), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.encode(batch), torch.stack([row[-1] for row in expected]), atol=1e-5, rtol=1e-5)
    assert model.item_matrix()[0].abs().max() == 0
    assert torch.equal(model.item_matrix()[N], model.item_embedding.weight[N])  # no edge: its own embedding


@pytest.mark.parametrize("targets", ["all", "last"])
def test_training_reads_the_visible_graph(targets):
    model, rows = prepared(targets=targets)
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


def test_later_items_do_not_influence_earlier_positions():
    model, _ = prepared()
    model.eval()
    batch = {"history": torch.arange(1, 6), "lengths": torch.tensor([5])}
    before = model.encode_positions(batch)
    for changed in range(5):
        history = batch["history"].clone()
        history[changed] += 10
        after = model.encode_positions(batch | {"history": history})
        assert torch.equal(after[:changed], before[:changed])
        assert (after[changed:] != before[changed:]).any(dim=1).all()


def test_same_vectors_alone_and_in_any_batch():
    model, rows = prepared()
    model.eval()
    batch = SplitRows(rows.dataset, "valid", 5).collate(np.arange(20))
    assert batch["lengths"].min() == 1 and batch["lengths"].max() == 5
    together = model.encode(batch)
    for row, history in enumerate(rows_of(batch)):
        alone = model.encode({"history": history, "lengths": torch.tensor([len(history)])})
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)


def test_held_out_items_make_no_edges():
    data = random_dataset()
    changed = SequenceDataset(data.items.copy(), data.offsets, data.num_items)
    changed.items[np.concatenate([data.offsets[1:] - 1, data.offsets[1:] - 2])] = N
    first, second = (prepared(data=each)[0].graph.edges for each in (data, changed))
    assert torch.equal(first, second)


# -- learning to mask -----------------------------------------------------------------------------------------------------------


def test_relatedness_equals_a_loop_over_walks():
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


def test_the_mask_loss_is_that_of_noisy_relatedness():
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


def test_the_mask_is_what_paths_from_the_anchors_reach(monkeypatch):
    model, _ = prepared(build(mask_probability=0.07))
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


def test_a_mask_is_kept_for_its_steps():
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


def test_edge_scores_equal_a_loop_over_pairs_of_layers():
    model, _ = prepared()
    layers = [layer.detach() for layer in model.graph_layers(model.graph)]
    ends = torch.randint(1, N + 1, (2, 4, 3))
    scores = model.edge_scores(layers, ends)
    for i in range(4):
        for j in range(3):
            v, w = ends[:, i, j].tolist()
            products = [layers[a][v] * layers[b][w] for a in range(2) for b in range(2)]
            torch.testing.assert_close(scores[i, j], model.decoder(torch.cat(products)).squeeze())


def test_masked_edges_are_told_from_edges_with_one_end_exchanged(monkeypatch):
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


def test_every_weight_gets_a_gradient():
    model, rows = prepared()
    model.training_loss(rows.collate(np.arange(8)), "all", catalogue_cross_entropy)["total"].backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


# -- the table, odd data --------------------------------------------------------------------------------------------------------


def test_evaluation_sees_the_present_weights():
    model, rows = prepared()
    model.eval()
    before = model.item_matrix().clone()
    model.train()
    model.training_loss(rows.collate(np.arange(8)), "all", catalogue_cross_entropy)["total"].backward()
    torch.optim.Adam(model.parameters(), lr=0.1).step()
    evaluate_recommender(model, rows.dataset, "valid", progress=False)
    assert model.training and not torch.equal(model.item_matrix(), before)
    torch.testing.assert_close(model.item_matrix(), sum(loop_items(model, dense(model.graph))))


def test_the_state_has_shapes_that_no_data_changes():
    shapes = {name: tensor.shape for name, tensor in build().state_dict().items()}
    model, rows = prepared()
    model.training_loss(rows.collate(np.arange(8)), "all", catalogue_cross_entropy)
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == shapes


def test_data_without_transitions_is_refused():
    rows = SplitRows(dataset_of([[1, 1, 1, 1, 2], [3, 3, 3, 4, 5]], 5), "train", 5)
    with pytest.raises(InputError, match="maerec needs transitions between different items"):
        build(num_items=5).prepare(rows)


# -- training -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", ["all", "last"])
def test_learns_a_cycle_by_heart_and_comes_back_from_disk(tmp_path, monkeypatch, targets):
    monkeypatch.setattr(maerec, "HOPS", 1)  # of twelve items, all would be neighbours within three places
    cycle = dataset_of([(np.arange(7) + user) % 12 + 1 for user in range(24)], 12)
    settings = LoopSettings(targets, learning_rate=0.01, batch_size=8, num_epochs=60, patience=60, weight_decay=0.0, seed=0)
    architecture = ARCHITECTURE | {"hidden_size": 16, "num_layers": 1}
    torch.manual_seed(0)
    model = MAERec(12, **architecture)
    history = train_encoder(model, cycle, settings, tmp_path, CPU)
    assert history[-1]["reconstruction"] < history[0]["reconstruction"]
    metrics = evaluate_recommender(model, cycle, "test", full_ranking=True, progress=False).metrics
    assert metrics["full"]["HR@1"] == 1.0
    config = {"model": "maerec", "num_items": 12, "num_users": 24, "architecture": architecture}
    with Stage("encoder", tmp_path / "encoder", config, {}, item_map="twelve items") as stage:
        save_encoder(model, stage.path)
    loaded = load_encoder(tmp_path / "encoder")
    batch = SplitRows(cycle, "test", 5).collate(np.arange(24))
    model.eval()
    assert torch.equal(loaded.item_matrix(), model.item_matrix())
    assert torch.equal(loaded.score_all(loaded.encode(batch)), model.score_all(model.encode(batch)))


@pytest.mark.parametrize("killed_in", ["train_epoch", "evaluate_recommender"])
def test_a_run_resumed_under_a_kept_mask_equals_an_uninterrupted_one(tmp_path, monkeypatch, killed_in):
    def run(directory, seed):
        directory.mkdir(exist_ok=True)
        model = build(seed, dropout=0.2)
        settings = LoopSettings("all", learning_rate=0.01, batch_size=5, num_epochs=5, patience=9, weight_decay=0.0, seed=3)
        train_encoder(model, random_dataset(), settings, directory, CPU)
        return model

    whole = run(tmp_path / "whole", 0)
    original, calls = getattr(encoder_loop, killed_in), []

    def killed_at_the_third_call(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments, **keywords)

    monkeypatch.setattr(encoder_loop, killed_in, killed_at_the_third_call)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 0)
    resumed = run(tmp_path / "cut", 5).state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.state_dict().items())
