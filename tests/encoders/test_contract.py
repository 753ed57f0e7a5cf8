"""What every conventional recommender keeps to, whatever is inside; each has a file of its own for the rest."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import extract_emb
from slmrec.artifacts import Stage
from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import SequenceDataset
from slmrec.embeddings import load_item_embeddings
from slmrec.encoders.registry import ENCODERS, TRAINED, load_encoder, save_encoder
from slmrec.errors import InputError
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.training import encoder_loop
from slmrec.training.encoder_loop import LoopSettings, train_encoder

CPU = torch.device("cpu")
ALL = list(ENCODERS)
PER_POSITION = [name for name in ALL if name != "bert4rec"]
NEXT_ITEM_ALONE = ["sasrec", "gru4rec", "caser", "hgn", "lightsans", "s3rec"]  # no other term in their training loss
IDLE = {"s3rec": {"mask_embedding", "item_projection.weight", "segment_projection.weight"}}  # of pretraining alone
LENGTHS = [1, 6, 3, 6, 2]


@pytest.fixture
def prepared(make_encoder, stirred, random_dataset):
    """prepared(name): a model that knows its training data, in eval mode."""

    def prepare(name):
        model = make_encoder(name)
        model.prepare(SplitRows(random_dataset, "train", model.max_length, "all"))
        return stirred(model)

    return prepare


# -- vectors --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_same_vectors_alone_and_in_any_batch(prepared, make_batch, rows_of, name):
    model, batch = prepared(name), make_batch(LENGTHS)
    together = model.encode(batch)
    for row, history in enumerate(rows_of(batch)):
        alone = {"users": batch["users"][[row]], "history": history, "lengths": batch["lengths"][[row]]}
        torch.testing.assert_close(model.encode(alone)[0], together[row], atol=1e-5, rtol=1e-5)
    order = torch.tensor([3, 0, 4, 2, 1])
    shuffled = {key: batch[key][order] for key in ("users", "lengths")}
    shuffled["history"] = torch.cat([rows_of(batch)[row] for row in order])
    torch.testing.assert_close(model.encode(shuffled), together[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", PER_POSITION)
def test_items_influence_the_positions_from_them_on_alone(prepared, make_batch, name):
    model, batch = prepared(name), make_batch([6])
    before = model.encode_positions(batch)
    for changed in range(6):
        history = batch["history"].clone()
        history[changed] = history[changed] % 40 + 1
        after = model.encode_positions(batch | {"history": history})
        differs = (after != before).any(dim=1)
        assert not differs[:changed].any() and differs[changed]
        assert differs[changed:].all() or name not in TRAINED  # counting reads the last item alone


@pytest.mark.parametrize("name", ALL)
def test_the_target_does_not_influence_its_own_score(prepared, make_batch, name):
    """A target is no input, and at a training position it is only in the history of later positions."""
    model, batch = prepared(name), make_batch(LENGTHS, "all")
    others = batch | {"targets": batch["targets"] % 40 + 1}
    if not ENCODERS[name].knows_users:
        others["users"] = batch["users"].flip(0)
    assert torch.equal(model.encode(batch), model.encode(others))
    if name in PER_POSITION:
        assert torch.equal(model.encode_positions(batch), model.encode_positions(others))


@pytest.mark.parametrize("name", ALL)
def test_prediction_draws_no_random_numbers(prepared, make_batch, name):
    model, batch, state = prepared(name), make_batch(LENGTHS), torch.get_rng_state()
    assert torch.equal(model.encode(batch), model.encode(batch))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", TRAINED)
def test_dropout_acts_in_training(prepared, make_batch, name):
    model, batch = prepared(name).train(), make_batch(LENGTHS)
    assert not torch.equal(model.encode(batch), model.encode(batch))


# -- losses ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", ["all", "last"])
@pytest.mark.parametrize("name", NEXT_ITEM_ALONE)
def test_training_loss_reads_the_named_positions(prepared, make_batch, name, targets):
    model, batch = prepared(name), make_batch(LENGTHS, targets)
    vectors = model.encode_positions(batch) if targets == "all" else model.encode(batch)
    expected = F.cross_entropy(vectors @ model.item_matrix()[1:].T, batch["targets"] - 1)
    terms = model.training_loss(batch, targets, catalogue_cross_entropy)
    torch.testing.assert_close(terms["total"], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", TRAINED)
def test_a_step_reaches_every_weight_but_padding(make_encoder, random_dataset, name):
    model = make_encoder(name)
    rows = SplitRows(random_dataset, "train", model.max_length, "all")
    model.prepare(rows)
    model.training_loss(rows.collate(np.arange(len(rows))), "all", catalogue_cross_entropy)["total"].backward()
    reached = {key for key, weight in model.named_parameters() if weight.grad is not None and weight.grad.abs().sum() > 0}
    assert dict(model.named_parameters()).keys() - reached == IDLE.get(name, set())
    torch.optim.Adam(model.parameters(), weight_decay=0.1).step()
    tables = [module for module in model.modules() if isinstance(module, torch.nn.Embedding) and module.padding_idx == 0]
    assert tables and all(table.weight[0].abs().max() == 0 for table in tables)
    assert model.eval().item_matrix()[0].abs().max() == 0


# -- training -------------------------------------------------------------------------------------------------------------------


def settings_of(name, **changes):
    values = {"targets": "all", "learning_rate": 0.01, "batch_size": 5, "num_epochs": 3, "weight_decay": 0.0, "seed": 3}
    values |= {"pretrain_epochs": 1 if name == "s3rec" else 0} | changes
    return LoopSettings(**values, patience=values["num_epochs"]) if name in TRAINED else LoopSettings()


def same_state(model, other):
    states = model.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())


@pytest.mark.parametrize("name", ALL)
def test_held_out_items_have_no_influence_on_training(make_encoder, random_dataset, tmp_path, keep_last_epoch, name):
    items = random_dataset.items.copy()
    items[np.concatenate([random_dataset.offsets[1:] - 1, random_dataset.offsets[1:] - 2])] = 40
    models = []
    for dataset in (random_dataset, SequenceDataset(items, random_dataset.offsets, random_dataset.num_items)):
        models.append(make_encoder(name))
        (tmp_path / str(len(models))).mkdir()
        train_encoder(models[-1], dataset, settings_of(name, num_epochs=2), tmp_path / str(len(models)), CPU)
    learns = name != "nearest"  # which knows the texts alone
    assert same_state(*models) and same_state(models[0], make_encoder(name)) != learns


@pytest.mark.parametrize("name", TRAINED)
def test_a_resumed_run_equals_an_uninterrupted_one(make_encoder, random_dataset, tmp_path, monkeypatch, name):
    def run(directory, seed):
        directory.mkdir(exist_ok=True)
        model = make_encoder(name, seed=seed)
        train_encoder(model, random_dataset, settings_of(name), directory, CPU)
        return model

    whole = run(tmp_path / "whole", 0)
    original, calls = encoder_loop.evaluate_recommender, []

    def killed_at_the_third_call(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments, **keywords)

    monkeypatch.setattr(encoder_loop, "evaluate_recommender", killed_at_the_third_call)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 0)
    assert same_state(run(tmp_path / "cut", 5), whole)  # a new process has other initial weights


@pytest.mark.parametrize(("name", "pretraining"), [*((name, False) for name in TRAINED), ("s3rec", True)])
def test_a_step_in_bf16_is_near_the_one_in_fp32(make_encoder, random_dataset, name, pretraining):
    weights, terms = [], []
    for precision in ("fp32", "bf16"):
        model, settings = make_encoder(name), settings_of(name, precision=precision)
        rows = SplitRows(random_dataset, "train", model.max_length, "all")
        model.prepare(rows)
        optimizer, objective = torch.optim.SGD(model.parameters(), lr=1.0), encoder_loop.Objective(model, settings, pretraining)
        torch.manual_seed(7)
        batch = rows.collate(np.arange(len(rows)))
        terms.append(encoder_loop.train_step(objective, batch, optimizer)["total"].detach())
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    before = torch.cat([parameter.detach().flatten() for parameter in make_encoder(name).parameters()])
    assert weights[1].dtype == torch.float32
    assert 0 < (terms[1] - terms[0]).abs() < 0.005 * terms[0]
    assert F.cosine_similarity(weights[1] - before, weights[0] - before, dim=0) > 0.99


LEARNING = {"hidden_size": 16, "num_layers": 1, "dropout": 0.0, "max_length": 4}  # as many items as a training row has
LEARNING |= {"batch_size": 8, "num_epochs": 32}
SLOW = {"hidden_size": 32, "last_mask_share": 0.8, "learning_rate": 0.005, "batch_size": 24, "num_epochs": 100}


@pytest.mark.parametrize("targets", ["all", "last"])
@pytest.mark.parametrize("name", [name for name in TRAINED if name != "maerec"])  # test_maerec.py: it needs validation
def test_learns_a_cycle_by_heart(make_encoder, cycle, tmp_path, keep_last_epoch, name, targets):
    values, entry = LEARNING | {"bert4rec": SLOW, "s3rec": {"pretrain_epochs": 8}}.get(name, {}), ENCODERS[name]
    sizes = {key: value for key, value in values.items() if key in entry.architecture_defaults()}
    training = {key: value for key, value in values.items() if key in entry.training_defaults}
    model = make_encoder(name, cycle.num_items, cycle.num_users, **sizes)
    train_encoder(model, cycle, settings_of(name, targets=targets, **training), tmp_path, CPU)
    if not entry.knows_users:
        assert evaluate_recommender(model, cycle, "test", full_ranking=True, progress=False).metrics["full"]["HR@1"] == 1.0
        return
    # With a user's embedding it may be whose target an item is that was learnt, not what the item follows.
    batch = SplitRows(cycle, "train", model.max_length, targets).collate(np.arange(24))
    vectors = model.eval().encode_positions(batch) if targets == "all" else model.eval().encode(batch)
    assert torch.equal(model.score_all(vectors)[:, 1:].argmax(1) + 1, batch["targets"])


# -- on disk --------------------------------------------------------------------------------------------------------------------


def saved(model, name, architecture, directory, num_items=40):
    config = {"model": name, "num_items": num_items, "num_users": 20, "architecture": architecture}
    with Stage("encoder", directory, config, {}, item_map="forty items") as stage:
        save_encoder(model, stage.path)
    return directory


@pytest.mark.parametrize("name", ALL)
def test_saved_and_loaded_it_scores_alike(prepared, architectures, make_batch, tmp_path, name):
    model, batch = prepared(name), make_batch(LENGTHS)
    loaded = load_encoder(saved(model, name, architectures[name], tmp_path / "encoder"))
    assert not loaded.training and same_state(loaded, model)
    assert torch.equal(loaded.score_all(loaded.encode(batch)), model.score_all(model.encode(batch)))


@pytest.mark.parametrize("name", TRAINED)
def test_its_item_vectors_can_be_handed_to_the_llm_stages(prepared, architectures, tmp_path, name):
    directory = saved(prepared(name), name, architectures[name], tmp_path / "encoder")
    extract_emb.main(["--encoder", str(directory), "--output_dir", str(tmp_path / "embeddings")])
    table, model = load_item_embeddings(tmp_path / "embeddings"), load_encoder(directory)
    assert table.shape == (41, 8) and table[0].abs().max() == 0
    assert torch.equal(table[1:], model.item_matrix()[1:])


# -- refusals -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_weights_for_another_catalogue_are_refused(prepared, architectures, tmp_path, name):
    directory = saved(prepared(name), name, architectures[name], tmp_path / "encoder", num_items=41)
    with pytest.raises(InputError, match=f"model.safetensors: not the weights of {name}"):
        load_encoder(directory)


@pytest.mark.parametrize("name", [name for name in ALL if "num_heads" in ENCODERS[name].architecture_defaults()])
def test_heads_must_divide_the_width(make_encoder, name):
    with pytest.raises(InputError, match="--hidden_size 10 .* --num_heads 4"):
        make_encoder(name, hidden_size=10, num_heads=4)


@pytest.mark.parametrize("name", [name for name in ALL if name != "s3rec"])
def test_only_s3rec_is_pretrained(prepared, make_batch, name):
    with pytest.raises(NotImplementedError, match="is not pretrained"):
        prepared(name).pretraining_loss(make_batch(LENGTHS))
