"""Fixtures for all tests: tiny inputs in the layout that the stages write, and tiny E-LLMRec models in memory."""

import os
from collections import namedtuple
from itertools import count
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from transformers import LlamaConfig, LlamaModel, Qwen2Config, Qwen2Model

from slmrec.artifacts import Stage, read_manifest, stage_input, write_json
from slmrec.embeddings import save_item_embeddings
from slmrec.files import file_sha256, read_json
from slmrec.llm import make_backbone
from slmrec.llm.backbone import add_lora
from slmrec.llm.ellmrec import EllmRecommender
from slmrec.llm.prompt import Prompt
from slmrec.manifest import MANIFEST, manifest_digest
from slmrec.runtime import seed_everything
from slmrec.training import encoder_loop

torch.set_num_threads(1)  # tiny matrices gain nothing from more, and tests that run side by side lose

NUM_USERS, NUM_ITEMS, EMBEDDING_SIZE = 48, 40, 8
LONG = ("test_pipeline.py", "test_several_processes.py", "test_campaign.py", "test_state_on_disk.py", "test_shell_scripts.py")


def pytest_collection_modifyitems(items):
    """The files that take longest come first, so that two processes that take a file at a time end together."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def _write_names(directory, num_users, num_items):
    """items.csv with ids i1, i2, .. and a title for four of five items; users.csv with ids u0, u1, .."""
    titles = [f"item number {n}" if n % 5 else "" for n in range(1, num_items + 1)]
    items = pl.DataFrame({"source_id": [f"i{n}" for n in range(1, num_items + 1)], "title": titles})
    items.with_row_index("id", 1).write_csv(directory / "items.csv")
    pl.DataFrame({"source_id": [f"u{n}" for n in range(num_users)]}).with_row_index("id").write_csv(directory / "users.csv")


def _write_data(directory, seed=0, item_map="tiny items"):
    random = np.random.default_rng(seed)
    lengths = random.integers(4, 12, NUM_USERS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = np.concatenate([(random.integers(0, NUM_ITEMS) + np.arange(n) * 3) % NUM_ITEMS + 1 for n in lengths])
    with Stage("data", directory, {"made_with": seed}, {}, item_map=item_map) as stage:
        np.savez(stage.path / "sequences.npz", items=items.astype(np.int32), offsets=offsets)
        _write_names(stage.path, NUM_USERS, NUM_ITEMS)
        write_json(stage.path / "stats.json", {"users": NUM_USERS, "items": NUM_ITEMS, "interactions": len(items)})
    return directory


def _write_embeddings(directory, data, seed=0, width=EMBEDDING_SIZE):
    table = np.random.default_rng(seed).standard_normal((NUM_ITEMS + 1, width), dtype=np.float32)
    item_map = read_manifest(data)["item_map"]
    with Stage("embeddings", directory, {"made_with": seed}, {"data": stage_input(data)}, item_map=item_map) as stage:
        save_item_embeddings(torch.from_numpy(table), stage.path)
    return directory


def _write_backbone(directory, hidden_size=32, num_layers=4, num_heads=4):
    sizes = {"hidden_size": hidden_size, "num_layers": num_layers, "num_heads": num_heads, "output_dir": directory}
    make_backbone.main([text for name, value in sizes.items() for text in (f"--{name}", str(value))])
    return directory


@pytest.fixture(scope="session")
def write_data():
    """write_data(directory, seed=0, item_map=...): a finished data directory of 48 users with 4 to 11 actions on 40 items."""
    return _write_data


@pytest.fixture(scope="session")
def write_names():
    """write_names(directory, num_users, num_items): items.csv and users.csv of a data directory."""
    return _write_names


@pytest.fixture(scope="session")
def write_embeddings():
    """write_embeddings(directory, data, seed=0, width=8): a finished embeddings directory for a data directory."""
    return _write_embeddings


@pytest.fixture(scope="session")
def write_backbone():
    """write_backbone(directory, hidden_size=32, num_layers=4, num_heads=4): a random LLaMA checkpoint."""
    return _write_backbone


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    return _write_data(tmp_path_factory.mktemp("inputs") / "data")


@pytest.fixture(scope="session")
def tiny_embeddings(tiny_data):
    return _write_embeddings(tiny_data.parent / "embeddings", tiny_data)


@pytest.fixture(scope="session")
def tiny_backbone(tiny_data):
    return _write_backbone(tiny_data.parent / "backbone")


@pytest.fixture(scope="session")
def tiny_flags(tiny_data, tiny_embeddings, tiny_backbone):
    """tiny_flags(**changes): the command line of finetune.py or distill.py on the tiny inputs, as a list; None drops a flag."""

    def flags(**changes):
        chosen = {
            "data": tiny_data,
            "embeddings": tiny_embeddings,
            "base_model": tiny_backbone,
            "num_layers": 2,
            "max_steps": 6,
            "save_steps": 2,
            "warmup_steps": 1,
            "learning_rate": 0.01,
            "per_device_train_batch_size": 8,
            "num_candidates": 20,
            "device": "cpu",
        } | changes
        listed = {name: value if isinstance(value, list) else [value] for name, value in chosen.items() if value is not None}
        return [text for name, values in listed.items() for text in (f"--{name}", *map(str, values))]

    return flags


@pytest.fixture(scope="session")
def tiny_teacher(tiny_data, tiny_flags):
    """A finished finetune.py run with 4 layers."""
    import finetune

    directory = tiny_data.parent / "teacher"
    finetune.main(tiny_flags(num_layers=4, output_dir=directory))
    return directory


def _make_recommender(
    num_layers=2,
    kind="llama",
    kv_heads=4,
    lora=False,
    lora_dropout=0.0,
    closing=7,
    targets="last",
    encoding="exact",
    supervised_layers=(),
    item_dropout=0.0,
    projected_layers=None,
    text_vectors=None,
    train_items=False,
    seed=0,
    **config,
):
    seed_everything(seed)
    build_config, build = {"llama": (LlamaConfig, LlamaModel), "qwen2": (Qwen2Config, Qwen2Model)}[kind]
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4} | config
    sizes |= {"num_hidden_layers": num_layers, "num_key_value_heads": kv_heads, "initializer_range": 0.15}
    backbone = build(build_config(attn_implementation="sdpa", **sizes))
    if lora:
        backbone = add_lora(backbone, 4, 4, lora_dropout, ["gate_proj", "up_proj", "down_proj"])
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:  # peft starts them at zero, where the adapters change nothing and A gets no gradient
                torch.nn.init.normal_(parameter, std=0.2)
    prompt = Prompt(tuple(i % 47 for i in range(62)), tuple(range(40, 40 + closing)))
    table = torch.randn(NUM_ITEMS + 1, EMBEDDING_SIZE)
    options = {"targets": targets, "encoding": encoding, "item_dropout": item_dropout}
    options |= {"supervised_layers": supervised_layers, "projected_layers": projected_layers}
    options |= {"text_vectors": text_vectors, "train_items": train_items}
    return EllmRecommender(backbone, table, prompt, max_length=30, **options)


@pytest.fixture(scope="session")
def make_recommender():
    """make_recommender(num_layers=2, lora=False, ...): a random E-LLMRec of width 32, with a prompt of 62 + `closing` tokens."""
    return _make_recommender


def _make_batch(lengths, targets="last", seed=0):
    random = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    number = total if targets == "all" else len(lengths)
    return {
        "users": torch.arange(len(lengths)),
        "history": torch.randint(1, NUM_ITEMS + 1, (total,), generator=random),
        "lengths": torch.tensor(lengths),
        "targets": torch.randint(1, NUM_ITEMS + 1, (number,), generator=random),
    }


@pytest.fixture(scope="session")
def reseal():
    """reseal(directory): write the manifest of a stage anew after a test has changed its outputs."""

    def seal(directory):
        manifest = read_json(directory / MANIFEST)
        for name, output in manifest["outputs"].items():
            output |= {"bytes": (directory / name).stat().st_size, "sha256": file_sha256(directory / name)}
        write_json(directory / MANIFEST, manifest | {"digest": manifest_digest(manifest)})

    return seal


@pytest.fixture(scope="session")
def make_batch():
    """make_batch(lengths, targets="last", seed=0): random histories of these lengths as one batch of `SplitRows`."""
    return _make_batch


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data sets; skips the test where there is none."""
    folder = Path(os.environ.get("SLMREC_SHARED", "")) / "data"
    if "SLMREC_SHARED" not in os.environ or not folder.is_dir():
        pytest.skip("SLMREC_SHARED names no folder with real data")
    return folder


@pytest.fixture(scope="session")
def shared_cases():
    """The folder of small inputs that once went wrong; skips the test where there is none."""
    folder = Path(os.environ.get("SLMREC_SHARED", "")) / "cases"
    if "SLMREC_SHARED" not in os.environ or not folder.is_dir():
        pytest.skip("SLMREC_SHARED names no folder with cases")
    return folder


@pytest.fixture
def keep_last_epoch(monkeypatch):
    """Validation MRR that rises: among the few rivals of a tiny catalogue the real one is 1 before all is learnt."""
    result, rising = namedtuple("Evaluation", "metrics"), count()
    monkeypatch.setattr(encoder_loop, "evaluate_recommender", lambda *_, **__: result({"sampled": {"MRR": next(rising)}}))
