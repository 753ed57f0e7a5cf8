"""train_openp5.py on tiny inputs: it learns by heart what has a rule, goes on after a kill, and is used like any model."""

import json
import re
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM, MistralConfig, MistralForCausalLM

import evaluate
import export
import recommend
import slmrec
import train_openp5
from slmrec.artifacts import Stage, read_json, write_json
from slmrec.data.dataset import load_dataset
from slmrec.errors import InputError
from slmrec.llm import make_backbone
from slmrec.open_model import load_recommender
from slmrec.openp5 import stage as openp5_stage
from slmrec.openp5.item_index import build_index, load_index
from slmrec.openp5.model import OpenP5Recommender
from slmrec.tensors import read_tensors
from slmrec.training import trainer

RING = 12


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    """A data directory of 12 items in a ring, each user starting elsewhere: after item n always comes n + 1."""
    directory = tmp_path_factory.mktemp("ring") / "data"
    items = np.concatenate([(start + np.arange(7)) % RING + 1 for start in range(RING)]).astype(np.int32)
    with Stage("data", directory, {}, {}, item_map="ring") as stage:
        np.savez(stage.path / "sequences.npz", items=items, offsets=np.arange(RING + 1) * 7)
        titles = pl.DataFrame({"source_id": [f"i{n}" for n in range(1, RING + 1)], "title": [""] * RING})
        titles.with_row_index("id", 1).write_csv(stage.path / "items.csv")
        pl.DataFrame({"source_id": [f"u{n}" for n in range(RING)]}).with_row_index("id").write_csv(stage.path / "users.csv")
        write_json(stage.path / "stats.json", {"users": RING, "items": RING, "interactions": len(items)})
    return directory


@pytest.fixture
def flags(ring, tiny_backbone):
    """flags(**changes): a command line of train_openp5.py."""

    def listed(**changes):
        chosen = {"data": ring, "base_model": tiny_backbone, "num_layers": 2, "learning_rate": 0.01, "warmup_steps": 2}
        chosen |= {"per_device_train_batch_size": 48, "gradient_accumulation_steps": 1, "num_candidates": 9, "device": "cpu"}
        chosen |= {"softmax": "ids", "max_length": 3, "report_to": "none"} | changes
        return [str(word) for name, value in chosen.items() for word in (f"--{name}", value)]

    return listed


def test_a_sliding_window_below_the_longest_prompt_is_refused(flags, tiny_backbone, tmp_path):
    base = tmp_path / "mistral"
    config = AutoConfig.from_pretrained(tiny_backbone)
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers")
    config = MistralConfig(**{name: getattr(config, name) for name in sizes}, sliding_window=20)
    MistralForCausalLM(config).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_backbone).save_pretrained(base)
    line = f"--base_model {base}: looks back 20 tokens, and a prompt with its answer has up to "
    with pytest.raises(InputError, match=re.escape(line) + r"(\d+); give a smaller --max_length$") as raised:
        train_openp5.main(flags(base_model=base, output_dir=tmp_path / "out", max_steps=1))
    longest = int(re.search(r"up to (\d+)", str(raised.value))[1])
    write_json(base / "config.json", read_json(base / "config.json") | {"sliding_window": longest})
    train_openp5.main(flags(base_model=base, output_dir=tmp_path / "out", max_steps=1))


def test_it_learns_a_ring_by_heart_and_is_used_like_any_model(flags, tmp_path, capsys):
    model, backbone = tmp_path / "openp5", tmp_path / "backbone"
    make_backbone.main(f"--output_dir {backbone} --hidden_size 64 --num_layers 1 --num_heads 2 --initializer_range 0.1".split())
    ids = {"indexing": "collaborative", "clusters": 3, "cluster_size": 4, "max_length": 1}
    how = {"base_model": backbone, "num_layers": 1, "learning_rate": 0.005, "per_device_train_batch_size": 24}
    train_openp5.main(
        flags(output_dir=model, max_steps=90, save_steps=45, lr_scheduler_type="constant_with_warmup", **how, **ids)
    )
    evaluate.main(["--model", str(model), "--full_ranking", "--device", "cpu"])
    metrics = json.loads((model / "evaluation-test/metrics.json").read_text())["test"]
    assert metrics["sampled"]["HR@1"] == metrics["full"]["HR@1"] == 1.0
    capsys.readouterr()
    recommend.main(["--model", str(model), "--history", "i4,i5", "--k", "1", "--device", "cpu"])
    assert "i6" in capsys.readouterr().out.splitlines()[1]
    create_app = pytest.importorskip("slmrec.serving.app", reason="pip install -e '.[serve]'", exc_type=ImportError).create_app
    from fastapi.testclient import TestClient

    with TestClient(create_app(slmrec.load(model, "cpu"), "openp5")) as client:
        answer = client.post("/recommend", json={"history": ["i4", "i5"], "k": 1}).json()
    assert [one["item"] for one in answer["items"]] == ["i6"]
    with pytest.raises(InputError, match="no vector of any item"):
        load_recommender(model).item_matrix()
    with pytest.raises(InputError, match="'openp5'"):
        export.main(["--model", str(model), "--output_dir", str(tmp_path / "exported")])


@pytest.mark.parametrize("indexing", ["sequential", "collaborative"])
def test_what_is_saved_is_what_was_trained(indexing, flags, tmp_path, ring):
    """The id tokens' vectors are read back, never drawn again; a checkpoint-N is a model too."""
    model = tmp_path / "openp5"
    train_openp5.main(flags(output_dir=model, max_steps=4, save_steps=2, train_strategy="lora", indexing=indexing))
    assert load_index(model).ids == build_index(load_dataset(ring), indexing, 0, 20, 100).ids
    loaded = load_recommender(model)
    assert torch.equal(loaded.id_vectors, read_tensors(model / "id_tokens.safetensors")["id_vectors"])
    step = json.loads((model / "metrics.json").read_text())["best_step"]
    checkpoint = load_recommender(model / f"checkpoint-{step}")
    batch = {"history": torch.tensor([3, 4]), "lengths": torch.tensor([2]), "users": torch.tensor([0])}
    with torch.inference_mode():
        assert torch.equal(loaded.encode(batch), checkpoint.encode(batch))


@pytest.mark.parametrize("strategy", ["lora", "full"])
def test_a_base_model_with_a_head_of_its_own(strategy, flags, tmp_path, tiny_backbone):
    """As LLaMA-2 has: what ids are written with is trained, saved and read beside what they are read with; users have numbers."""
    base, model = tmp_path / "base", tmp_path / "openp5"
    config = AutoConfig.from_pretrained(tiny_backbone)
    LlamaForCausalLM(config).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_backbone).save_pretrained(base)
    how = {"base_model": base, "train_strategy": strategy, "user_ids": True, "softmax": "vocabulary"}
    train_openp5.main(flags(output_dir=model, max_steps=2, save_steps=2, **how))
    loaded, saved = load_recommender(model), read_tensors(model / "id_tokens.safetensors")
    assert torch.equal(loaded.id_heads, saved["id_heads"]) and not torch.equal(saved["id_heads"], saved["id_vectors"])
    known, new = ({"history": torch.tensor([3]), "lengths": torch.tensor([1]), "users": torch.tensor([n])} for n in (0, -1))
    with torch.inference_mode():
        assert not torch.equal(loaded.encode(known), loaded.encode(new))


def test_a_killed_run_goes_on_to_the_same_weights(flags, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    how = {"max_steps": 6, "save_steps": 2, "per_device_train_batch_size": 12, "sample_share": 0.6}
    train_openp5.main(flags(output_dir=whole, **how))

    class Killed(BaseException):
        pass

    evaluations = []

    def evaluate_or_die(self, *args, **kwargs):
        evaluations.append(self.state.global_step)
        if self.state.global_step == 4:
            raise Killed
        return type(self).__mro__[1].evaluate(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(openp5_stage.OpenP5Trainer, "evaluate", evaluate_or_die, raising=False)
        with pytest.raises(Killed):
            train_openp5.main(flags(output_dir=killed, **how))
    assert (tmp_path / "killed.partial/checkpoint-2").is_dir()
    monkeypatch.setattr(openp5_stage, "build_index", None)  # clustering takes minutes
    train_openp5.main(flags(output_dir=killed, **how))
    first, second = (read_tensors(place / "checkpoint-6/id_tokens.safetensors")["id_vectors"] for place in (whole, killed))
    assert torch.equal(first, second)


def test_validation_on_some_users_asks_as_those_users(flags, tmp_path, monkeypatch):
    """With names, and among the candidates, that `evaluate.py` has for the same users."""
    asked, ranked = [], []
    prompts, evaluate_recommender = OpenP5Recommender.prompts, trainer.evaluate_recommender

    def watched(model, batch):
        asked.append((batch["users"].tolist(), prompts(model, batch)))
        return asked[-1][1]

    def evaluated(model, dataset, *args, **kwargs):
        chosen = kwargs["users"]
        every, some = (evaluate_recommender(model, dataset, *args, **kwargs | {"users": users}) for users in (None, chosen))
        assert some.ranks["sampled"][chosen].tolist() == every.ranks["sampled"][chosen].tolist()
        assert some.metrics["sampled"]["users"] == 4 and "users_without_rivals" not in some.metrics["sampled"]
        ranked.append(chosen.tolist())
        return some

    monkeypatch.setattr(OpenP5Recommender, "prompts", watched)
    monkeypatch.setattr(trainer, "evaluate_recommender", evaluated)
    train_openp5.main([*flags(output_dir=tmp_path / "openp5", max_steps=1, save_steps=1, valid_users=4), "--user_ids"])
    (users, written), (chosen,) = asked[-1], ranked
    assert sorted(users) == chosen and len(chosen) == 4 and chosen != [0, 1, 2, 3]
    model = load_recommender(tmp_path / "openp5")
    digits = [model.prompter.digits.index(token) for token in written[0] if token in model.prompter.digits][-4:]
    assert int("".join(map(str, digits))) == 1001 + users[0]


def test_another_item_index_is_refused(flags, tmp_path, reseal):
    model = tmp_path / "openp5"
    train_openp5.main(flags(output_dir=model, max_steps=2, save_steps=2))
    shutil.copy(model / "item_index.csv", tmp_path)
    table = (model / "item_index.csv").read_text().replace("1 0 0 1", "z9")
    (model / "item_index.csv").write_text(table)
    reseal(model)
    with pytest.raises(InputError, match="its item index is not the one"):
        load_recommender(model)


def test_refusals(flags, tmp_path):
    for changes, message in (
        ({"num_layers": 9}, "--num_layers 9: .* has 4 layers"),
        ({"train_strategy": "lora", "lora_target_modules": "qq"}, "--lora_target_modules qq: no layer has this name"),
        ({"lora_r": 4}, "--lora_r: .* is trained whole, without adapters"),
        ({"base_model": tmp_path}, "has no config.json"),
    ):
        with pytest.raises(InputError, match=message):
            train_openp5.main(flags(output_dir=tmp_path / "never", **changes))
    assert not (tmp_path / "never").exists() and not (tmp_path / "never.partial").exists()
