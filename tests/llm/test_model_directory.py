import json
import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModel

from slmrec.embeddings import save_item_embeddings
from slmrec.errors import InputError
from slmrec.llm.arguments import EllmArguments
from slmrec.llm.backbone import plain_backbone, shallow_config
from slmrec.llm.model_directory import (
    load_ellmrec,
    model_input,
    new_recommender,
    resolve_train_strategy,
    restore_weights,
    save_weights,
    stage_directory,
)
from slmrec.runtime import seed_everything

LENGTHS = [4, 1, 30, 9]


@pytest.fixture
def trained(tiny_backbone):
    """trained(strategy, targets="last", supervised=()): a model whose trained weights differ from those it started with."""

    def build(strategy, targets="last", supervised=()):
        seed_everything(3)
        arguments = EllmArguments(str(tiny_backbone), 2, strategy, targets)
        table = torch.randn(41, 8)
        table[0] = 0.0  # PAD's row, as in every table on disk
        model = new_recommender(arguments, table, supervised_layers=supervised)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return model.eval()

    return build


def save(model, base_model, stage):
    for directory in (stage, stage / "checkpoint-3"):
        save_weights(model, str(base_model), directory)
    save_item_embeddings(model.item_matrix(), stage)
    return stage


@pytest.mark.parametrize("where", [".", "checkpoint-3"])
@pytest.mark.parametrize("strategy, targets", [("lora", "last"), ("full", "last"), ("full", "all")])
@torch.no_grad()
def test_loaded_model_scores_alike(trained, tiny_backbone, tmp_path, make_batch, strategy, targets, where):
    model, batch = trained(strategy, targets, supervised=(1,)), make_batch(LENGTHS)
    loaded = load_ellmrec(save(model, tiny_backbone, tmp_path) / where).eval()
    users = loaded.encode(batch)
    assert torch.equal(users, model.encode(batch))
    assert torch.equal(loaded.score_all(users), model.score_all(users))
    candidates = torch.tensor([[1, 40], [2, 3], [4, 4], [5, 6]])
    assert torch.equal(loaded.score(users, candidates), model.score(users, candidates))
    assert torch.equal(loaded(batch).block_users[1], model(batch).block_users[1])
    assert (loaded.targets, loaded.max_length, loaded.prompt) == (model.targets, model.max_length, model.prompt)


@torch.no_grad()
def test_encoding_can_be_chosen_when_loading(trained, tiny_backbone, tmp_path, make_batch):
    model, batch = trained("full"), make_batch(LENGTHS)
    loaded = load_ellmrec(save(model, tiny_backbone, tmp_path), encoding="reference").eval()
    assert (model.encoding, loaded.encoding) == ("exact", "reference")
    torch.testing.assert_close(loaded.encode(batch), model.encode(batch), atol=1e-5, rtol=0)


@torch.no_grad()
def test_adapter_is_in_the_format_of_peft(trained, tiny_backbone, tmp_path, make_batch):
    """PeftModel.from_pretrained on the plain first layers gives the states of the model."""
    model, batch = trained("lora"), make_batch(LENGTHS)
    save(model, tiny_backbone, tmp_path)
    plain = AutoModel.from_pretrained(tiny_backbone, config=shallow_config(str(tiny_backbone), 2))
    expected = model(batch, layers=(1, 2)).states
    model.backbone = plain
    without = model(batch, layers=(1, 2)).states
    model.backbone = PeftModel.from_pretrained(plain, tmp_path)
    states = model(batch, layers=(1, 2)).states
    for layer in (1, 2):
        assert torch.equal(states[layer], expected[layer])
        assert not torch.allclose(without[layer], expected[layer], atol=1e-3)


def test_no_frozen_weight_and_no_pickle_is_written(trained, tiny_backbone, tmp_path):
    save_weights(trained("lora"), str(tiny_backbone), tmp_path)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names >= {"recommender.json", "heads.safetensors", "adapter_model.safetensors", "adapter_config.json"}
    assert "model.safetensors" not in names and not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]


@pytest.mark.parametrize("strategy", ["lora", "full"])
def test_restoring_changes_the_same_tensors_that_the_optimiser_holds(trained, tiny_backbone, tmp_path, strategy):
    model = trained(strategy, supervised=(1,))
    held = [parameter for parameter in model.parameters() if parameter.requires_grad]
    expected = [parameter.detach().clone() for parameter in held]
    save_weights(model, str(tiny_backbone), tmp_path)
    with torch.no_grad():
        for parameter in held:
            parameter.zero_()
    restore_weights(model, tmp_path)
    assert all(torch.equal(now, before) for now, before in zip(held, expected, strict=True))
    assert [id(parameter) for parameter in model.parameters() if parameter.requires_grad] == [id(parameter) for parameter in held]


def test_random_checkpoints_of_ours_are_trained_whole_and_others_by_lora(tiny_backbone, tmp_path):
    foreign = shutil.copytree(tiny_backbone, tmp_path / "foreign", ignore=shutil.ignore_patterns("manifest.json", "run.json"))
    assert resolve_train_strategy(EllmArguments(str(tiny_backbone))) == "full"
    assert resolve_train_strategy(EllmArguments(str(foreign))) == "lora"
    assert resolve_train_strategy(EllmArguments(str(tiny_backbone), train_strategy="lora")) == "lora"
    model = new_recommender(EllmArguments(str(foreign), num_layers=1), torch.randn(41, 8))
    assert isinstance(model.backbone, PeftModel) and plain_backbone(model.backbone).config.num_hidden_layers == 1


def test_frozen_weights_take_the_dtype_and_trained_ones_stay_float32(tiny_backbone):
    arguments = EllmArguments(str(tiny_backbone), num_layers=1, train_strategy="lora")
    model = new_recommender(arguments, torch.randn(41, 8), torch.bfloat16, supervised_layers=(1,))
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16), name


def test_base_model_of_another_width_is_refused(trained, tiny_backbone, write_backbone, tmp_path):
    save(trained("lora"), tiny_backbone, tmp_path / "model")
    wide = write_backbone(tmp_path / "wide", hidden_size=48, num_layers=2)
    description = tmp_path / "model" / "recommender.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | {"base_model": str(wide)}))
    with pytest.raises(InputError, match="its adapters are 32 wide, .*wide is 48"):
        load_ellmrec(tmp_path / "model")


def test_directory_without_a_model(tmp_path):
    with pytest.raises(InputError, match="no E-LLMRec here"):
        load_ellmrec(tmp_path)


def test_a_checkpoint_belongs_to_the_stage_around_it(tiny_teacher):
    checkpoint = max(tiny_teacher.glob("checkpoint-*"))
    assert stage_directory(checkpoint) == tiny_teacher == stage_directory(tiny_teacher)
    whole, part = model_input(tiny_teacher, "finetune"), model_input(checkpoint, "finetune")
    assert (whole["stage"], part["stage"]) == ("finetune", "finetune")
    assert whole["digest"] != part["digest"] and part["directory"] == str(checkpoint)
    with pytest.raises(InputError, match="holds a 'finetune' stage where 'distill' is needed"):
        model_input(tiny_teacher, "distill")
    with pytest.raises(InputError, match="checkpoint-999: not a checkpoint of an E-LLMRec"):
        model_input(tiny_teacher / "checkpoint-999", "finetune")
