"""Two processes give the numbers of one: training curves, best steps, metrics, ranks; killed and started again, too."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import distill
import evaluate
import finetune
import train_openp5
import train_sr_trad
from slmrec.artifacts import read_json

ROOT = Path(__file__).parents[2]
MAIN = {stage.__name__: stage.main for stage in (finetune, distill, train_openp5, train_sr_trad, evaluate)}


def run_of(directory, jobs, kill=None, **environment):
    """A run of [script, flags] one after the other, as forked_stages.py takes it."""
    return {"jobs": jobs, "kill": kill, "environment": environment, "directory": str(directory)}


@pytest.fixture(scope="module")
def jobs(tiny_flags, tiny_teacher, tiny_data):
    """jobs(directory, processes): every kind of training as [script, flags], writing directory/NAME, by name.

    48 rows in batches of 10: the last batch of an epoch has 8. With "all", the halves of a batch have different numbers of
    targets. SASRec's batches of 47 leave one row for the last, and so none for the second process.
    """

    def made(directory, processes):
        def llm(script, name, **changes):
            shared = {"per_device_train_batch_size": 10 // processes, "save_steps": 3, "max_steps": 6, "learning_rate": 0.003}
            shared |= {"logging_steps": 1, "output_dir": directory / name}
            return [script, tiny_flags(**shared | changes)]

        student = {"num_layers": 2, "num_blocks": 2, "teacher": tiny_teacher}
        learning = {"teacher": None, "teacher_layers": 4}
        adapters = {"train_strategy": "lora", "lora_dropout": 0}
        encoder = {"data": tiny_data, "batch_size": 47, "num_epochs": 3, "dropout": 0, "hidden_size": 16, "device": "cpu"}
        encoder |= {"output_dir": directory / "sasrec"}
        ranked = {"model": tiny_teacher, "full_ranking": "true", "eval_batch_size": 7, "device": "cpu", "num_candidates": 20}
        ranked |= {"output_dir": directory / "ranks"}
        plain = lambda flags: [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        return {
            "all": llm("finetune", "all", targets="all"),
            "lora": llm("finetune", "lora", **adapters, num_layers=4),
            "lora, offline": llm("distill", "lora, offline", **adapters | student),
            "lora, online": llm("distill", "lora, online", **adapters | student | learning, online=True),
            "offline": llm("distill", "offline", **student),
            "cached": llm("distill", "cached", teacher_cache=directory / "states", **student),
            "online": llm("distill", "online", **student | learning, online=True),
            "openp5": llm("train_openp5", "openp5", embeddings=None, gradient_accumulation_steps=1),
            "sasrec": ["train_sr_trad", plain(encoder)],
            "ranks": ["evaluate", plain(ranked)],
        }

    return made


@pytest.fixture(scope="module")
def one(jobs, tmp_path_factory):
    directory = tmp_path_factory.mktemp("one")
    for script, flags in jobs(directory, 1).values():
        MAIN[script](flags)
    return directory


@pytest.fixture(scope="module")
def runs(jobs, tmp_path_factory):
    """Every run in two processes, by name: its directory, its status, and what it said. One start loads the libraries."""
    plain, killed, sharded = (tmp_path_factory.mktemp(name) for name in ("two", "killed", "sharded"))
    asked, parts = accelerate_environment("fsdp_13b.yaml"), [jobs(sharded, 2)[name] for name in SHARDED]
    made = {
        "two": run_of(plain, list(jobs(plain, 2).values())),
        "killed": run_of(killed, [jobs(killed, 2)["all"]], kill=[1, 4]),
        "resumed": run_of(killed, [jobs(killed, 2)["all"]]),
        "sharded, killed": run_of(sharded, parts[:1], kill=[1, 4], **asked),
        "sharded": run_of(sharded, parts, **asked),
    }
    words = [sys.executable, str(ROOT / "tests" / "forked_stages.py"), "2", json.dumps(list(made.values()))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=2000, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    return {name: (Path(run["directory"]), said) for (name, run), said in zip(made.items(), found, strict=True)}


@pytest.fixture(scope="module")
def two(runs):
    directory, said = runs["two"]
    assert said["status"] == 0, said["stderr"]
    return directory


def agree(one, two, name):
    """The runs of a stage in two directories have the same curve, validations, and best step."""
    alone, shared = (read_json(directory / name / "metrics.json") for directory in (one, two))
    assert [entry["step"] for entry in shared["history"]] == [3, 6]
    for ours, theirs in zip(shared["history"], alone["history"], strict=True):
        assert ours["train"] == pytest.approx(theirs["train"], abs=1e-5)
        assert ours["valid"] == pytest.approx(theirs["valid"], abs=1e-12)
    assert shared["best_step"] == alone["best_step"] and shared["trained_parameters"] == alone["trained_parameters"]
    states = [read_json(directory / name / "checkpoint-6" / "trainer_state.json") for directory in (one, two)]
    curves = [[entry["loss"] for entry in state["log_history"] if "loss" in entry] for state in states]
    assert len(curves[0]) == 6 and curves[1] == pytest.approx(curves[0], abs=1e-5)


@pytest.mark.parametrize("name", ["all", "lora", "offline", "cached", "online", "openp5"])
def test_an_llm_stage_trains_alike(one, two, name):
    agree(one, two, name)


def test_an_encoder_trains_alike(one, two):
    alone, shared = (read_json(directory / "sasrec" / "metrics.json") for directory in (one, two))
    for ours, theirs in zip(shared["history"], alone["history"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5) and ours["valid_MRR"] == theirs["valid_MRR"]
    assert shared["best_epoch"] == alone["best_epoch"]


def test_torchrun_itself_starts_a_stage(jobs, one, tmp_path):
    """The other tests fork, which is faster."""
    script, flags = jobs(tmp_path, 2)["sasrec"]
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", f"{script}.py", *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1000, check=False)
    assert ended.returncode == 0, ended.stderr
    alone, shared = (read_json(directory / "sasrec" / "metrics.json") for directory in (one, tmp_path))
    losses = [[entry["loss"] for entry in metrics["history"]] for metrics in (alone, shared)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5) and shared["best_epoch"] == alone["best_epoch"]


def test_users_are_ranked_alike_to_the_last_bit(one, two):
    alone, shared = (read_json(directory / "ranks" / "metrics.json") for directory in (one, two))
    assert shared == alone
    ranks = [np.load(directory / "ranks" / "ranks.npz") for directory in (one, two)]
    assert all(np.array_equal(ranks[0][name], ranks[1][name]) for name in ("users", "sampled", "full"))


def test_a_run_is_the_same_run_in_any_number_of_processes(one, two, jobs, capsys):
    """Two times five rows are one step of ten: what two processes wrote is up to date for one."""
    script, flags = jobs(two, 1)["all"]
    MAIN[script](flags)
    assert "up to date" in capsys.readouterr().out


def test_a_killed_process_ends_the_run_which_goes_on_when_started_again(runs, one):
    (directory, killed), (_, again) = runs["killed"], runs["resumed"]
    assert killed["status"] == 9 and "Traceback" not in killed["stderr"]
    assert "all.partial/checkpoint-3" in killed["left"] and "all" not in killed["left"]
    assert again["status"] == 0 and "Going on from" in again["stdout"], again["stderr"]
    alone, shared = (read_json(place / "all" / "metrics.json") for place in (one, directory))
    assert shared["best_step"] == alone["best_step"]
    for ours, theirs in zip(shared["history"], alone["history"], strict=True):
        assert ours["train"] == pytest.approx(theirs["train"], abs=1e-5) and ours["valid"] == theirs["valid"]


@pytest.fixture(scope="module")
def sharded(runs):
    """What two processes train that each hold a part of the frozen weights; the first run is killed and goes on.

    Gives its directory and what was said.
    """
    (directory, said), (_, killed) = runs["sharded"], runs["sharded, killed"]
    assert killed["status"] == 9 and "Traceback" not in killed["stderr"]
    assert said["status"] == 0, said["stderr"]
    return directory, said["stdout"]


def accelerate_environment(name):
    """What accelerate launch makes of the FSDP settings in one of our configurations."""
    settings = yaml.safe_load((ROOT / "scripts" / "accelerate" / name).read_text(encoding="utf-8"))["fsdp_config"]
    return {"ACCELERATE_USE_FSDP": "true"} | {
        setting.upper(): str(value).replace("True", "true").replace("False", "false") for setting, value in settings.items()
    }


SHARDED = ["lora", "lora, offline", "lora, online"]


@pytest.mark.parametrize("name", SHARDED)
def test_shared_out_weights_train_alike(one, sharded, name):
    """Also what is written is the same, but for the random states of two processes."""
    directory, _ = sharded
    agree(one, directory, name)
    files = [{path.relative_to(run / name) for path in (run / name).rglob("*.safetensors")} for run in (one, directory)]
    assert files[0] == files[1]
    for file in files[0]:
        alone, shared = (load_file(run / name / file) for run in (one, directory))
        assert alone.keys() == shared.keys()
        assert all(torch.allclose(shared[key], alone[key], atol=1e-4) for key in alone), file


def test_weights_are_shared_out(sharded):
    """Each process has half of the layers' frozen weights, and all of the few others."""
    _, said = sharded
    held = [tuple(map(float, found)) for found in re.findall(r"holds ([\d.]+) of ([\d.]+) MiB of frozen", said)]
    assert len(held) == 3 and all(0.5 <= here / whole < 0.6 for here, whole in held)
    assert "Going on from" in said
