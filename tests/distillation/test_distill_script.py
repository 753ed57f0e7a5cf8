import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import distill
import evaluate
import finetune
from slmrec.artifacts import read_json, read_manifest
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import load_dataset
from slmrec.errors import InputError
from slmrec.llm.model_directory import load_ellmrec
from slmrec.training.trainer import RecommenderTrainer


@pytest.fixture(scope="module")
def flags(tiny_flags, tiny_teacher):
    """flags(**changes): the command line of distill.py for the tiny teacher, as a list."""

    def build(**changes):
        return tiny_flags(**{"teacher": tiny_teacher, "num_blocks": 2, "max_steps": 2} | changes)

    return build


def adapters(directory):
    return sorted(name for name in load_file(directory / "heads.safetensors") if name.startswith("block_projections"))


def test_distils_and_records_what_it_did(flags, tiny_teacher, tmp_path):
    weights = {path: path.read_bytes() for path in tiny_teacher.rglob("*.safetensors")}
    distill.main(flags(num_layers=4, num_blocks=4, lambda_norm=0.01, output_dir=tmp_path / "student"))
    manifest, metrics = read_manifest(tmp_path / "student", "distill"), read_json(tmp_path / "student" / "metrics.json")
    assert manifest["inputs"].keys() == {"data", "embeddings", "base_model", "teacher"}
    assert manifest["inputs"]["teacher"]["digest"] == read_manifest(tiny_teacher)["digest"]
    assert manifest["config"]["lambda_norm"] == 0.01 and "teacher" not in manifest["config"]
    train = metrics["history"][0]["train"]
    assert train.keys() == {"loss", "loss_ce", "loss_cos", "loss_norm", "loss_ms"}
    total = train["loss_ce"] + train["loss_cos"] + 0.01 * train["loss_norm"] + train["loss_ms"]
    assert train["loss"] == pytest.approx(total, rel=1e-5)
    assert adapters(tmp_path / "student") == [f"block_projections.{layer}.weight" for layer in (1, 2, 3)]
    assert load_ellmrec(tmp_path / "student").num_layers == 4
    assert all(path.read_bytes() == content for path, content in weights.items())


@pytest.mark.parametrize(
    "changes, terms",
    [
        ({"lambda_ms": 0}, {"loss_cos", "loss_norm"}),
        ({"lambda_cos": 0, "lambda_norm": 0}, {"loss_ms"}),
        ({"lambda_cos": 0, "lambda_norm": 0, "lambda_ms": 0}, set()),
    ],
)
def test_adapters_are_there_only_for_multiple_supervision(flags, tmp_path, changes, terms):
    distill.main(flags(output_dir=tmp_path / "student", **changes))
    train = read_json(tmp_path / "student" / "metrics.json")["history"][0]["train"]
    assert train.keys() == {"loss", "loss_ce"} | terms
    assert adapters(tmp_path / "student") == (["block_projections.1.weight"] if "loss_ms" in terms else [])


def test_other_switches_change_the_loss(flags, tmp_path):
    losses = {}
    for name, switches in {"paper": [], "released": ["--protocol", "released"], "last": ["--no_distill_last_block"]}.items():
        distill.main(flags(output_dir=tmp_path / name, max_steps=1) + switches)
        losses[name] = read_json(tmp_path / name / "metrics.json")["history"][0]["train"]
    assert losses["paper"]["loss_ce"] == losses["released"]["loss_ce"] == losses["last"]["loss_ce"]
    assert losses["paper"]["loss_cos"] == pytest.approx(losses["released"]["loss_cos"] / 2)  # two blocks: sum and mean
    assert len({values["loss_norm"] for values in losses.values()}) == 3


def test_a_checkpoint_can_teach(flags, tiny_teacher, tmp_path):
    checkpoint = max(tiny_teacher.glob("checkpoint-*"))
    distill.main(flags(teacher=checkpoint, output_dir=tmp_path / "student", max_steps=1))
    digest = read_manifest(tmp_path / "student")["inputs"]["teacher"]["digest"]
    assert digest != read_manifest(tiny_teacher)["digest"]


def test_second_start_is_up_to_date_and_another_weight_is_refused(flags, tmp_path, capsys):
    output = tmp_path / "student"
    distill.main(flags(output_dir=output, max_steps=1))
    before = (output / "manifest.json").read_bytes()
    distill.main(flags(output_dir=output, max_steps=1))
    assert "up to date" in capsys.readouterr().out
    with pytest.raises(InputError, match="config.lambda_cos = 1.0, this one has 0.5"):
        distill.main(flags(output_dir=output, max_steps=1, lambda_cos=0.5))
    assert (output / "manifest.json").read_bytes() == before


# -- a teacher that does not fit ----------------------------------------------------------------------------------------------


def assert_refused(arguments, output, message):
    inputs_before = sorted(output.parent.rglob("*"))
    with pytest.raises(InputError, match=message):
        distill.main(arguments)
    assert sorted(output.parent.rglob("*")) == inputs_before
    assert not output.exists() and not output.with_name(output.name + ".partial").exists()


def test_blocks_that_do_not_divide(flags, tmp_path):
    output = tmp_path / "student"
    assert_refused(flags(num_blocks=3, output_dir=output), output, "--num_blocks 3 does not divide the teacher's 4 layers")
    assert_refused(flags(num_blocks=4, output_dir=output), output, "--num_blocks 4 does not divide the student's 2 layers")


def test_another_width(flags, write_backbone, tmp_path):
    wide, output = write_backbone(tmp_path / "wide", hidden_size=48, num_layers=2), tmp_path / "student"
    message = "the teacher has hidden_size 32, the student 48"
    assert_refused(flags(base_model=wide, output_dir=output), output, message)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"targets": "all"}, "the teacher has targets last, the student all"),
        ({"max_length": 20}, "the teacher has max_length 30, the student 20"),
        ({"teacher": "nowhere"}, "nowhere: no such directory"),
        ({"num_layers": 9}, "--num_layers 9: .* has 4 layers"),
        ({"lambda_ms": -1}, "--lambda_ms -1.0: must be at least 0"),
    ],
)
def test_other_settings(flags, tmp_path, changes, message):
    assert_refused(flags(output_dir=tmp_path / "student", **changes), tmp_path / "student", message)


def test_a_directory_that_holds_no_teacher(flags, tiny_data, tmp_path):
    output = tmp_path / "student"
    assert_refused(flags(teacher=tiny_data, output_dir=output), output, "holds a 'data' stage where 'finetune' is needed")


def test_another_data_set(flags, write_data, write_embeddings, tmp_path):
    """Once with other items, once with the same items in other sequences."""
    output = tmp_path / "student"
    other = write_data(tmp_path / "other", seed=1, item_map="other items")
    embeddings = write_embeddings(tmp_path / "other embeddings", other)
    message = "do not number the same items .*tiny items.*other items"
    assert_refused(flags(data=other, embeddings=embeddings, output_dir=output), output, message)
    reordered = write_data(tmp_path / "reordered", seed=1)
    assert_refused(flags(data=reordered, output_dir=output), output, "the teacher was trained on other data than .*reordered")


def test_other_embeddings(flags, write_embeddings, tiny_data, tmp_path):
    other, output = write_embeddings(tmp_path / "other", tiny_data, seed=1), tmp_path / "student"
    assert_refused(flags(embeddings=other, output_dir=output), output, "the teacher was trained on other embeddings than .*other")


def test_embeddings_of_other_items_are_refused_by_the_first_stage(tiny_flags, write_data, write_embeddings, tmp_path):
    other = write_embeddings(tmp_path / "other", write_data(tmp_path / "data", item_map="other items"))
    with pytest.raises(InputError, match="do not number the same items"):
        finetune.main(tiny_flags(embeddings=other, output_dir=tmp_path / "teacher"))
    assert not list(tmp_path.glob("teacher*"))


def test_a_truncated_teacher_is_refused(flags, tiny_teacher, tmp_path):
    teacher, output = shutil.copytree(tiny_teacher, tmp_path / "teacher"), tmp_path / "student"
    content = (teacher / "heads.safetensors").read_bytes()
    (teacher / "heads.safetensors").write_bytes(content[:-1])
    assert_refused(flags(teacher=teacher, output_dir=output), output, "heads.safetensors: missing or not the")


def test_the_saved_student_is_its_best_checkpoint(flags, tmp_path):
    distill.main(flags(output_dir=tmp_path / "student"))
    description = json.loads((tmp_path / "student" / "recommender.json").read_text())
    assert (description["num_layers"], description["supervised_layers"], description["train_strategy"]) == (2, [1], "full")
    heads = load_ellmrec(tmp_path / "student").heads().state_dict()
    checkpoint = load_file(tmp_path / "student" / "checkpoint-2" / "heads.safetensors")
    assert heads.keys() == checkpoint.keys() and all(torch.equal(heads[name], checkpoint[name]) for name in heads)


# -- online, other terms, other widths ------------------------------------------------------------------------------------------


def test_online_trains_both_and_exports_the_student_alone(flags, tiny_data, tmp_path):
    output = tmp_path / "online"
    distill.main(flags(teacher=None, online=True, teacher_layers=4, output_dir=output, lambda_logits=0.5))
    metrics = read_json(output / "metrics.json")
    assert metrics["trained_along"]["teacher"]["parameters"] > metrics["parameters"]
    train = metrics["history"][0]["train"]
    assert train.keys() == {f"loss_{name}" for name in ("ce", "teacher_ce", "cos", "norm", "ms", "logits")} | {"loss"}
    for place in (output, output / "checkpoint-2"):
        assert (load_ellmrec(place).num_layers, load_ellmrec(place / "teacher").num_layers) == (2, 4)
    alone = shutil.copytree(output, tmp_path / "alone", ignore=shutil.ignore_patterns("teacher", "checkpoint-*"))
    rows = SplitRows(load_dataset(tiny_data), "test", 30).collate([0, 1, 2])
    assert torch.equal(load_ellmrec(alone).eval().encode(rows), load_ellmrec(output).eval().encode(rows))
    evaluate.main(["--model", str(output / "teacher"), "--data", str(tiny_data), "--num_candidates", "20"])
    assert (output / "teacher" / "evaluation-test" / "metrics.json").is_file()


@pytest.mark.parametrize("strategy", ["lora", "full"])
def test_an_online_teacher_is_computed_in_bf16_like_its_student(flags, tmp_path, strategy):
    """The losses are near those in float32, and the teacher's are not the same to the last digit."""
    how = {"teacher": None, "online": True, "teacher_layers": 4, "train_strategy": strategy, "lambda_logits": 0.5}
    losses = {}
    for precision in ("fp32", "bf16"):
        distill.main(flags(output_dir=tmp_path / precision, precision=precision, **how))
        losses[precision] = read_json(tmp_path / precision / "metrics.json")["history"][0]["train"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=3e-2)
    assert losses["bf16"]["loss_teacher_ce"] != losses["fp32"]["loss_teacher_ce"]


def test_an_interrupted_online_run_goes_on_with_both_models(flags, tmp_path, monkeypatch):
    arguments = {"teacher": None, "online": True, "teacher_layers": 4, "max_steps": 4}
    distill.main(flags(output_dir=tmp_path / "whole", **arguments))

    def killed(*_, **__):
        raise KeyboardInterrupt

    evaluate_after = RecommenderTrainer.evaluate
    calls = iter([evaluate_after, killed])
    monkeypatch.setattr(RecommenderTrainer, "evaluate", lambda self, *a, **k: next(calls)(self, *a, **k))
    with pytest.raises(KeyboardInterrupt):
        distill.main(flags(output_dir=tmp_path / "cut", **arguments))
    monkeypatch.setattr(RecommenderTrainer, "evaluate", evaluate_after)
    distill.main(flags(output_dir=tmp_path / "cut", **arguments))
    assert read_manifest(tmp_path / "cut")["resumed"]
    for place in ("", "teacher"):
        whole, cut = (load_ellmrec(tmp_path / name / place).state_dict() for name in ("whole", "cut"))
        assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_a_teacher_of_another_width_with_projected_states(flags, write_backbone, tmp_path):
    narrow = write_backbone(tmp_path / "narrow", hidden_size=16, num_layers=2)
    distill.main(flags(base_model=narrow, output_dir=tmp_path / "student", project_states=True))
    student = load_ellmrec(tmp_path / "student")
    assert student.state_projections["1"].weight.shape == (32, 16)


def test_heads_must_agree_for_attention(flags, write_backbone, tmp_path):
    other, output = write_backbone(tmp_path / "other", num_heads=2, num_layers=2), tmp_path / "student"
    message = "the teacher has num_attention_heads 4, the student 2"
    assert_refused(flags(base_model=other, lambda_attention=1, output_dir=output), output, message)
