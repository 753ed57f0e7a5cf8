"""User vectors pulled to those of a conventional recommender."""

import json

import pytest
import torch

import distill
import extract_emb
import finetune
import train_sr_trad
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import load_dataset
from slmrec.encoders.registry import load_encoder
from slmrec.errors import InputError
from slmrec.llm.ellmrec import next_item_objective
from slmrec.training.guide import GuideArguments, GuidedObjective, squared_distance

SASREC = [
    "--hidden_size",
    "8",
    "--num_heads",
    "1",
    "--num_layers",
    "1",
    "--max_length",
    "30",
    "--num_epochs",
    "1",
    "--device",
    "cpu",
]


@pytest.fixture(scope="module")
def guide(tiny_data, tmp_path_factory):
    """A SASRec and its item embeddings."""
    directory = tmp_path_factory.mktemp("guide")
    train_sr_trad.main(["--data", str(tiny_data), "--output_dir", str(directory / "sasrec"), *SASREC])
    extract_emb.main(["--encoder", str(directory / "sasrec"), "--output_dir", str(directory / "embeddings")])
    return directory


@pytest.fixture
def guided_flags(guide, tiny_flags):
    return lambda **changes: tiny_flags(**{"embeddings": guide / "embeddings", "guide": guide / "sasrec"} | changes)


def test_the_distance_by_hand():
    ours, theirs = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    assert squared_distance(ours, theirs).item() == (1 + 4 + 9) / 4


@pytest.mark.parametrize("targets", ["all", "last"])
def test_the_terms_and_their_sum(guide, tiny_data, make_recommender, targets):
    encoder = load_encoder(guide / "sasrec")
    rows = SplitRows(load_dataset(tiny_data), "train", 30, targets)
    batch = rows.collate(range(6))
    model = make_recommender(targets=targets, closing=0 if targets == "all" else 7)
    terms = GuidedObjective(next_item_objective, encoder, targets, 20.0, 0.3)(model, batch)
    plain = next_item_objective(model, batch)
    with torch.no_grad():
        theirs = encoder.encode_positions(batch) if targets == "all" else encoder.encode(batch)
        expected = squared_distance(model(batch).users, theirs)
    torch.testing.assert_close(terms["ce"], plain["ce"])
    torch.testing.assert_close(terms["guide"], expected)
    torch.testing.assert_close(terms["loss"], 0.3 * plain["ce"] + 20 * expected)
    terms["loss"].backward()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert model.user_projection.weight.grad.abs().sum() > 0


def test_a_model_comes_nearer_to_its_guide(guided_flags, guide, tmp_path):
    flags = guided_flags(output_dir=tmp_path / "model", lambda_ce=0.0, lambda_guide=1.0, max_steps=12, save_steps=4)
    finetune.main(flags)
    history = json.loads((tmp_path / "model" / "metrics.json").read_text())["history"]
    assert history[-1]["train"]["loss_guide"] < 0.8 * history[0]["train"]["loss_guide"]
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert manifest["config"]["lambda_guide"] == 1.0 and manifest["inputs"]["guide"]["stage"] == "encoder"


def test_a_student_has_a_teacher_and_a_guide(guided_flags, guide, tmp_path):
    finetune.main(guided_flags(output_dir=tmp_path / "teacher", num_layers=4, max_steps=2))
    student = guided_flags(output_dir=tmp_path / "student", teacher=tmp_path / "teacher", num_blocks=2, max_steps=2)
    distill.main(student)
    train = json.loads((tmp_path / "student" / "metrics.json").read_text())["history"][0]["train"]
    assert {"loss_ce", "loss_cos", "loss_norm", "loss_ms", "loss_guide"} <= train.keys()


@pytest.mark.parametrize(
    "changes, message",
    [({"max_length": 31}, "reads 30 items, --max_length is 31"), ({"embeddings": None}, "are not its item embeddings")],
)
def test_a_guide_that_does_not_fit(guided_flags, tiny_embeddings, tmp_path, changes, message):
    if "embeddings" in changes:
        changes = {"embeddings": tiny_embeddings}
    with pytest.raises(InputError, match=message):
        finetune.main(guided_flags(output_dir=tmp_path / "model", **changes))
    assert not (tmp_path / "model").exists()


def test_weights_without_a_guide_are_refused():
    with pytest.raises(InputError, match="--lambda_ce is only for --guide"):
        GuideArguments(lambda_ce=0.5)
    assert GuideArguments().lambda_guide is None and GuideArguments(guide="x").lambda_guide == 20
