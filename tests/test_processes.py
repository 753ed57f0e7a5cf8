"""Several processes of one run: what they share, who speaks, and how one that fails ends all."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import GPT2Config

from slmrec import processes
from slmrec.accelerate_configuration import ASKS, TAKEN, Sharding, sharding
from slmrec.data.batches import SplitRows, collate_share
from slmrec.data.dataset import load_dataset
from slmrec.errors import InputError
from slmrec.llm.arguments import EllmArguments
from slmrec.llm.sharding import check_sharding

ROOT = Path(__file__).parent.parent
SCRIPT = """
import atexit, os, signal, sys
import numpy as np
from slmrec import processes
from slmrec.errors import InputError
from slmrec.progress import say
from slmrec.runtime import run_main

class Held:  # by the interpreter until it takes itself apart, as a tensor may be by a thread of gloo
    def __del__(self, abort=os.abort):
        abort()

def main(argv):
    if processes.launched(__file__, None, None):
        return
    case, rank = sys.argv[1], processes.rank()
    if case == "all fail":
        raise InputError("something that a user gave")
    told, total = processes.same({"from": rank}), processes.summed(np.array([rank, 2**40], dtype=np.int64))
    say(f"{told} {total.tolist()}")
    if case == "one fails" and rank == 1:
        raise InputError("something that a user gave")
    if case == "one is killed" and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    processes.wait()
    if case == "all end":
        atexit.register(say, "end")
        globals()["held"] = Held()
        if rank == 1:
            raise SystemExit(0)
    if case == "one has a bug" and rank == 1:
        raise KeyError("a bug")

run_main(main)
"""


def as_process(monkeypatch, rank, number):
    for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", number)):
        monkeypatch.setenv(name, str(value))


def launch(tmp_path, case):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = os.environ | {"LAUNCH": "2", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, str(script), case]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=1000, check=False)


@pytest.mark.parametrize(
    "case, status, line",
    [
        ("all fail", 2, "error: something that a user gave\n"),
        ("one fails", 2, "error: something that a user gave\n"),
        ("one is killed", 2, "error: process 2 of 2 was ended by signal 9; the same command goes on from the last checkpoint"),
    ],
)
def test_a_failure_ends_all_with_one_line(tmp_path, case, status, line):
    ended = launch(tmp_path, case)
    assert ended.returncode == status and ended.stdout == ("" if case == "all fail" else "{'from': 0} [1, 2199023255552]\n")
    assert ended.stderr.startswith(line) and ended.stderr.count("\n") == 1


def test_they_end_without_taking_python_apart(tmp_path):
    """A thread of gloo that lets go of a tensor meanwhile ends its process by SIGABRT, though all its work is done."""
    ended = launch(tmp_path, "all end")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "{'from': 0} [1, 2199023255552]\nend\n" and not ended.stderr


def test_a_bug_stays_a_traceback(tmp_path):
    ended = launch(tmp_path, "one has a bug")
    assert ended.returncode == 1 and "Traceback" in ended.stderr and ended.stderr.endswith("KeyError: 'a bug'\n")


def test_without_a_launcher_there_is_one(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")  # as a cluster's scheduler may set it
    assert processes.number() == 1 and processes.first()
    monkeypatch.delenv("LAUNCH", raising=False)
    assert not processes.launched("script.py", None, [])


@pytest.mark.parametrize("value", ["0", "many", "-1", ""])
def test_a_number_of_processes_that_is_none(monkeypatch, value):
    monkeypatch.setenv("LAUNCH", value)
    with pytest.raises(InputError, match=f"LAUNCH={value}: "):
        processes.launched("script.py", None, [])


@pytest.mark.parametrize("stage", ["finetune", "distill", "train_openp5", "train_sr_trad", "evaluate"])
@pytest.mark.parametrize(
    "name, value, what",
    [
        ("ACCELERATE_USE_FSDP", "true", "FSDP is not supported by this stage|configuration has no fsdp_version; it has to be 2"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed is not supported"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "mixed_precision: bf16"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "dynamo_backend: INDUCTOR"),
    ],
)
def test_what_accelerate_is_asked_for_in_vain(monkeypatch, tiny_flags, tiny_data, tmp_path, stage, name, value, what):
    """Every stage that runs in several processes says so before it opens anything."""
    as_process(monkeypatch, 0, 2)
    monkeypatch.setenv(name, value)
    flags = {"evaluate": ["--model", "missing"], "train_sr_trad": ["--data", str(tiny_data), "--model", "sasrec"]}
    given = flags.get(stage) or tiny_flags(teacher="missing" if stage == "distill" else None, base_model="missing", num_layers=4)
    if stage == "train_openp5":
        given = ["--data", "missing", "--base_model", "missing"]
    with pytest.raises(InputError, match=what):
        importlib.import_module(stage).main([*given, "--output_dir", str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())


OUR_FSDP = {"VERSION": "2", "AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "RESHARD_AFTER_FORWARD": "true"}
OUR_FSDP |= {"STATE_DICT_TYPE": "FULL_STATE_DICT", "CPU_RAM_EFFICIENT_LOADING": "false"}


@pytest.fixture
def fsdp(monkeypatch):
    """fsdp(**settings): this is a process that accelerate has started with FSDP, in these settings or else in ours."""

    def asked(**settings):
        as_process(monkeypatch, 0, 2)
        monkeypatch.setenv(TAKEN, "false")  # so that it is as before afterwards
        monkeypatch.setenv(ASKS, "true")
        for name, value in (OUR_FSDP | settings).items():
            monkeypatch.setenv(f"FSDP_{name}", value)

    return asked


@pytest.mark.parametrize(
    "setting, value, what",
    [
        ("VERSION", "1", "fsdp_version: 1; it has to be 2"),
        ("AUTO_WRAP_POLICY", "SIZE_BASED_WRAP", "fsdp_auto_wrap_policy: SIZE_BASED_WRAP; it has to be TRANSFORMER_BASED_WRAP"),
        ("RESHARD_AFTER_FORWARD", "FULL_SHARD", "fsdp_reshard_after_forward: FULL_SHARD; it has to be true or false"),
        ("STATE_DICT_TYPE", "SHARDED_STATE_DICT", "fsdp_state_dict_type: SHARDED_STATE_DICT"),
        ("CPU_RAM_EFFICIENT_LOADING", "true", "fsdp_cpu_ram_efficient_loading: true; it has to be false"),
        ("OFFLOAD_PARAMS", "true", "fsdp_offload_params: true"),
        ("ACTIVATION_CHECKPOINTING", "true", "fsdp_activation_checkpointing: true"),
        ("TRANSFORMER_CLS_TO_WRAP", "LlamaMLP", "fsdp_transformer_layer_cls_to_wrap: LlamaMLP; it has to be left out"),
        ("IGNORED_MODULES", ".*mlp", "fsdp_ignored_modules: .*mlp; it has to be left out"),
    ],
)
def test_settings_of_fsdp_that_would_be_ignored(fsdp, setting, value, what):
    fsdp(**{setting: value})
    with pytest.raises(InputError, match=re.escape(what)):
        processes.launched("script.py", None, [], shards=True)


def test_fsdp_is_taken_from_accelerate_which_would_shard_what_is_trained_too(fsdp):
    fsdp(RESHARD_AFTER_FORWARD="false")
    assert not processes.launched("script.py", None, [], shards=True)
    assert ASKS not in os.environ and sharding() == Sharding(reshard=False)


@pytest.mark.parametrize("stage", ["finetune", "distill"])
def test_a_model_that_is_trained_whole_is_not_shared_out(fsdp, tiny_flags, tiny_teacher, tmp_path, stage):
    fsdp()
    given = {"teacher": tiny_teacher, "num_blocks": 2} if stage == "distill" else {}
    with pytest.raises(InputError, match="FSDP shares out frozen weights, and .*backbone is trained whole"):
        importlib.import_module(stage).main(tiny_flags(output_dir=tmp_path / "out", **given))
    assert not list(tmp_path.iterdir())


def test_weights_that_cannot_be_shared_out(fsdp, tiny_backbone, tmp_path):
    fsdp()
    processes.launched("script.py", None, [], shards=True)
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="FSDP knows the layers of llama, .* not those of gpt2"):
        check_sharding(EllmArguments(base_model=str(tmp_path), encoding="reference"))
    with pytest.raises(InputError, match="FSDP of weights in 4 bits is not supported: leave out --load_in_4bit"):
        check_sharding(EllmArguments(base_model=str(tiny_backbone), train_strategy="lora", load_in_4bit=True))


@pytest.mark.parametrize("targets", ["last", "all"])
def test_the_parts_of_a_batch_are_the_batch(tiny_data, monkeypatch, targets):
    """Also where there are fewer rows than processes: a part without rows has one that does not count."""
    rows = SplitRows(load_dataset(tiny_data), "train", 30, targets)
    for chosen in (np.array([5, 3, 40, 7, 9, 1, 2]), np.array([8, 2])):
        whole, parts = rows.collate(chosen), []
        for rank in range(4):
            as_process(monkeypatch, rank, 4)
            parts.append(collate_share(rows, chosen))
        counted = [part for part in parts if part["own_targets"]]
        assert len(counted) == min(4, len(chosen))
        for name, values in whole.items():
            assert sum((part[name].tolist() for part in counted), []) == values.tolist()
        assert all(part["all_targets"] == len(whole["targets"]) for part in parts)
        assert sum(int(part["own_targets"]) for part in parts) == len(whole["targets"])
        assert all(len(part["users"]) for part in parts)
