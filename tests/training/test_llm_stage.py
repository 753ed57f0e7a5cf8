"""finetune.py from its command line: killed and started again, up to date, refused, replaced, resumed from elsewhere."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import warnings

import pytest
import torch
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

import finetune
from slmrec.artifacts import Stage, read_json, read_manifest, write_json
from slmrec.embeddings import save_item_embeddings
from slmrec.errors import InputError
from slmrec.llm.model_directory import load_ellmrec
from slmrec.open_model import load_recommender
from slmrec.runtime import quiet_libraries
from slmrec.training import llm_stage, trainer
from slmrec.training.arguments import LlmTrainingArguments
from slmrec.training.llm_stage import validation_history
from slmrec.training.trainer import RecommenderTrainer


def trained_weights(directory):
    """Every trained tensor that a stage directory holds outside its checkpoints, by file and name."""
    files = [path for path in directory.rglob("*.safetensors") if "checkpoint" not in str(path.relative_to(directory))]
    return {(path.name, name): tensor for path in files for name, tensor in load_file(path).items()}


def assert_same_run(first, second):
    ours, theirs = trained_weights(first), trained_weights(second)
    assert ours.keys() == theirs.keys() and len(ours) > 3
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    metrics = [read_json(directory / "metrics.json") for directory in (first, second)]
    for name in ("history", "best_step", "steps", "valid", "trained_parameters"):
        assert metrics[0][name] == metrics[1][name], name


@contextlib.contextmanager
def interrupted(method, calls, killed=True):
    """The trainer's `method` raises KeyboardInterrupt at its call number `calls`; `killed`: nobody tidies up afterwards."""
    original, counted = getattr(RecommenderTrainer, method), []

    def hindered(self, *args, **kwargs):
        counted.append(1)
        if len(counted) == calls:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RecommenderTrainer, method, hindered)
        if killed:
            patch.setattr(Stage, "__exit__", lambda self, *error: None)
        yield


@pytest.fixture
def falling_mrr(monkeypatch):
    """Validation answers 1, 1/2, 1/3 ..., so that a run's first checkpoint is its best. Clear the list for another run."""
    calls, evaluate = [], trainer.evaluate_recommender

    def falling(*args, **kwargs):
        calls.append(1)
        evaluation = evaluate(*args, **kwargs)
        evaluation.metrics["sampled"]["MRR"] = 1 / len(calls)
        return evaluation

    monkeypatch.setattr(trainer, "evaluate_recommender", falling)
    return calls


# 48 users in batches of 6 are 8 steps an epoch; checkpoints at 4, 8 and 12.
RUN = {"max_steps": 12, "save_steps": 4, "per_device_train_batch_size": 6, "save_total_limit": 10, "learning_rate": 0.003}


@pytest.fixture
def flags(tiny_flags, tmp_path):
    """flags(**changes): the command line of finetune.py for RUN, writing tmp_path / "run"."""
    return lambda **changes: tiny_flags(**RUN | {"output_dir": tmp_path / "run"} | changes)


@pytest.fixture(scope="module")
def whole(tiny_flags, tmp_path_factory):
    """RUN without any interruption."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    finetune.main(tiny_flags(**RUN, output_dir=directory))
    return directory


# Dropout and the order of the rows hang on the random state: "lora" would show a state that is not restored.
@pytest.mark.parametrize("strategy", ["lora", "full"])
def test_a_killed_run_ends_where_an_uninterrupted_one_does(flags, tmp_path, capsys, strategy):
    """The kill comes in step 11, in the second epoch; steps 9 and 10 are done again. Equal to the last bit."""
    finetune.main(flags(output_dir=tmp_path / "whole", train_strategy=strategy))
    with interrupted("training_step", 11):
        finetune.main(flags(train_strategy=strategy))
    with pytest.raises(InputError, match="its stage has not finished yet"):
        read_manifest(tmp_path / "run")
    finetune.main(flags(train_strategy=strategy))
    assert f"Going on from {tmp_path / 'run.partial' / 'checkpoint-8'}" in capsys.readouterr().out
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert [read_manifest(tmp_path / name)["resumed"] for name in ("run", "whole")] == [True, False]
    assert not list(tmp_path.glob("*.partial"))


def test_a_kill_while_a_checkpoint_is_written(flags, tmp_path, capsys, whole):
    """checkpoint-8 has no name yet, so the run goes on from checkpoint-4."""
    with interrupted("_save_rng_state", 2):
        finetune.main(flags())
    assert (tmp_path / "run.partial" / ".writing" / "checkpoint-8" / "heads.safetensors").is_file()
    assert not (tmp_path / "run.partial" / "checkpoint-8").exists()
    finetune.main(flags())
    assert "checkpoint-4\n" in capsys.readouterr().out
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize(
    "name, damage", [("trainer_state.json", "half"), ("optimizer.pt", "missing"), ("backbone/model.safetensors", "zeroed")]
)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_taken(flags, tmp_path, capsys, whole, name, damage):
    with interrupted("training_step", 9):
        finetune.main(flags())
    path = tmp_path / "run.partial" / "checkpoint-8" / name
    size = path.stat().st_size
    path.unlink()
    if damage != "missing":
        path.write_bytes(b"\0" * (size if damage == "zeroed" else size // 2))
    (tmp_path / "run.partial" / "checkpoint-abc").mkdir()
    finetune.main(flags())
    said = capsys.readouterr().out
    assert "checkpoint-8 is not used: it" in said and f"Going on from {tmp_path / 'run.partial' / 'checkpoint-4'}" in said
    assert_same_run(tmp_path / "run", whole)


def test_a_run_whose_best_checkpoint_is_damaged_goes_on_from_before_it(flags, tmp_path, capsys, falling_mrr):
    with interrupted("training_step", 11):
        finetune.main(flags())
    os.truncate(tmp_path / "run.partial" / "checkpoint-4" / "heads.safetensors", 10)
    falling_mrr.clear()
    finetune.main(flags())
    said = capsys.readouterr().out
    assert "checkpoint-8 is not used: of the best checkpoint of its run, checkpoint-4: its heads.safetensors is not" in said
    assert "Going on" not in said


def test_seconds_add_up_over_a_kill(flags, tmp_path, monkeypatch):
    clock = iter(range(0, 10**9, 10))  # every look at the clock is ten seconds later
    monkeypatch.setattr(trainer.time, "time", lambda: float(next(clock)))
    with interrupted("training_step", 11):
        finetune.main(flags())
    before = read_json(tmp_path / "run.partial" / "checkpoint-8" / "checkpoint.json")["train_seconds"]
    with interrupted("_load_best_model", 1):
        finetune.main(flags())
    after = read_json(tmp_path / "run.partial" / "checkpoint-12" / "checkpoint.json")["train_seconds"]
    finetune.main(flags())
    assert 0 < before < after < read_json(tmp_path / "run" / "metrics.json")["train_seconds"]


@pytest.mark.parametrize("warmup, said", [(3, False), (60, True)])
def test_a_run_that_is_all_warm_up_is_named(tiny_flags, tmp_path, capsys, warmup, said):
    finetune.main(tiny_flags(max_steps=3, warmup_steps=warmup, learning_rate=0.02, output_dir=tmp_path / "run"))
    line = "all 3 steps are warm-up (--warmup_steps 60): the learning rate never passes 0.001;"
    assert (line in capsys.readouterr().out) == said


def test_a_kill_before_the_first_checkpoint_starts_afresh(flags, tmp_path, capsys, whole):
    with interrupted("training_step", 3):
        finetune.main(flags())
    finetune.main(flags())
    assert "Going on" not in capsys.readouterr().out
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize("max_steps", [8, 12])
def test_a_kill_after_the_last_step_trains_no_further(flags, tmp_path, max_steps):
    """At the end of an epoch (8) and in the middle of one (12); a constant learning rate would show one step more."""
    arguments = {"max_steps": max_steps, "lr_scheduler_type": "constant"}
    finetune.main(flags(output_dir=tmp_path / "whole", **arguments))
    with interrupted("_load_best_model", 1):
        finetune.main(flags(**arguments))
    finetune.main(flags(**arguments))
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_killed_run_may_move(flags, tmp_path, falling_mrr):
    """A checkpoint names the best one by a path, which is gone when the run goes on; the best weights are saved all the same."""
    finetune.main(flags(output_dir=tmp_path / "whole"))
    falling_mrr.clear()
    with interrupted("_load_best_model", 1):
        finetune.main(flags())
    (tmp_path / "run.partial").rename(tmp_path / "moved.partial")
    finetune.main(flags(output_dir=tmp_path / "moved"))
    assert read_json(tmp_path / "whole" / "metrics.json")["best_step"] == 4
    assert_same_run(tmp_path / "moved", tmp_path / "whole")


DEADLY = """
import os, signal, sys
import torch
import finetune
from slmrec.training.trainer import RecommenderTrainer

torch.set_num_threads(1)
training_step, steps = RecommenderTrainer.training_step, []

def deadly(*args, **kwargs):
    steps.append(1)
    if len(steps) == 11:
        os.kill(os.getpid(), signal.SIGKILL)
    return training_step(*args, **kwargs)

RecommenderTrainer.training_step = deadly
finetune.main(sys.argv[1:])
"""


def test_a_real_kill(flags, tmp_path, whole):
    """The process gets SIGKILL in step 11, out of reach of any clean-up."""
    command = [sys.executable, "-c", DEADLY, *flags()]
    killed = subprocess.run(command, cwd=os.path.dirname(finetune.__file__), capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finetune.main(flags())
    assert read_manifest(tmp_path / "run")["resumed"]
    assert_same_run(tmp_path / "run", whole)


def test_an_error_before_the_first_checkpoint_leaves_nothing(flags, tmp_path, monkeypatch):
    def broken(self, *args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(RecommenderTrainer, "training_step", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        finetune.main(flags())
    assert not list(tmp_path.iterdir())
    assert not [thread for thread in threading.enumerate() if "tensorboard" in type(thread).__module__]


def test_an_interrupt_by_hand_keeps_the_checkpoints(flags, tmp_path):
    with interrupted("training_step", 6, killed=False):
        finetune.main(flags())
    assert (tmp_path / "run.partial" / "checkpoint-4" / "trainer_state.json").is_file()
    with pytest.raises(InputError, match="its stage has not finished yet"):
        load_recommender(tmp_path / "run")


def test_a_whole_stage_prints_one_line(short, tmp_path, capfd):
    """Nothing of what its libraries would say while they load and save weights, and no carriage return: this is no terminal."""
    verbosity = transformers_logging.get_verbosity()
    with warnings.catch_warnings():
        quiet_libraries()
        finetune.main(short(train_strategy="lora"))
    transformers_logging.set_verbosity(verbosity)
    transformers_logging.enable_progress_bar()
    printed = capfd.readouterr()
    assert re.fullmatch(r"\S+/run: 2/2 steps  (00:\d\d  )?best validation MRR 0\.\d{3} at step 2\n", printed.out)
    assert printed.err == ""


# -- a second start -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def short(flags):
    """short(**changes): the command line of a run of two steps."""
    return lambda **changes: flags(**{"max_steps": 2, "save_steps": 2} | changes)


def test_second_start_is_up_to_date(short, tmp_path, capsys):
    finetune.main(short())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    finetune.main(short())
    finetune.main(short(logging_steps=2, save_total_limit=1, per_device_eval_batch_size=3))  # these change no result
    assert capsys.readouterr().out.count("up to date") == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_another_tokenizer_makes_another_run(short, tiny_backbone, tmp_path):
    """Of somebody else's base model, as one that has been downloaded again: the prompt begins with another token."""
    foreign = shutil.copytree(tiny_backbone, tmp_path / "foreign", ignore=shutil.ignore_patterns("manifest.json", "run.json"))
    finetune.main(short(base_model=foreign))
    tokenizer = read_json(foreign / "tokenizer.json")
    vocabulary = tokenizer["model"]["vocab"]
    first = read_json(tmp_path / "run/recommender.json")["prompt"]["before"][0]
    one, two = next(word for word, number in vocabulary.items() if number == first), max(vocabulary, key=vocabulary.get)
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    write_json(foreign / "tokenizer.json", tokenizer)
    with pytest.raises(
        InputError, match="run: holds a finished run with inputs.base_model = '.*--overwrite_output_dir replaces it"
    ):
        finetune.main(short(base_model=foreign))
    finetune.main([*short(base_model=foreign), "--overwrite_output_dir"])
    assert read_json(tmp_path / "run/recommender.json")["prompt"]["before"][0] == vocabulary[one] != first


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"learning_rate": 0.5}, "config.learning_rate = 0.003, this one has 0.5"),
        ({"num_layers": 3}, "config.num_layers = 2, this one has 3"),
        ({"train_strategy": "lora"}, "config.train_strategy = 'full', this one has 'lora'"),
        ({"seed": 1}, "config.seed = 0, this one has 1"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_configuration_is_refused_by_its_key(short, flags, tmp_path, changes, message, finished):
    base = short if finished else flags
    if finished:
        finetune.main(base())
    else:
        with interrupted("training_step", 6):
            finetune.main(base())
    before = sorted(tmp_path.glob("run*/**/*"))
    kind = "a finished run" if finished else "an unfinished run"
    with pytest.raises(InputError, match=f"holds {kind} with {message} .--overwrite_output_dir replaces it"):
        finetune.main(base(**changes))
    assert sorted(tmp_path.glob("run*/**/*")) == before


def test_overwriting_replaces_another_run(short, tmp_path):
    finetune.main(short())
    finetune.main(short(seed=1) + ["--overwrite_output_dir"])
    assert read_manifest(tmp_path / "run")["seed"] == 1 and not read_manifest(tmp_path / "run")["resumed"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_overwriting_gives_up_another_unfinished_run(flags, tmp_path):
    with interrupted("training_step", 6):
        finetune.main(flags())
    finetune.main(flags(seed=1) + ["--overwrite_output_dir"])
    assert not read_manifest(tmp_path / "run")["resumed"]


def test_other_embeddings_are_another_run(short, write_embeddings, tiny_data, tmp_path):
    finetune.main(short())
    other = write_embeddings(tmp_path / "other", tiny_data, seed=1)
    with pytest.raises(InputError, match="holds a finished run with inputs.embeddings = "):
        finetune.main(short(embeddings=other))


# -- going on from a named checkpoint -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first(tiny_flags, tmp_path_factory):
    """RUN with its best checkpoint first: a run to go on from."""
    calls, evaluate = [], trainer.evaluate_recommender

    def falling(*args, **kwargs):
        calls.append(1)
        evaluation = evaluate(*args, **kwargs)
        evaluation.metrics["sampled"]["MRR"] = 1 / len(calls)
        return evaluation

    directory = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "evaluate_recommender", falling)
        finetune.main(tiny_flags(**RUN, output_dir=directory))
    return directory


def test_a_named_checkpoint_of_a_finished_run(flags, tmp_path, first):
    """Six steps more on top of twelve, with the history of both; the checkpoint is an input of the run."""
    finetune.main(flags(max_steps=18, resume_from_checkpoint=first / "checkpoint-12"))
    metrics, manifest = read_json(tmp_path / "run" / "metrics.json"), read_manifest(tmp_path / "run")
    assert metrics["steps"] == 18 and metrics["history"][:3] == read_json(first / "metrics.json")["history"]
    assert [entry["step"] for entry in metrics["history"]] == [4, 8, 12, 16, 18]
    assert metrics["train_seconds"] > read_json(first / "metrics.json")["train_seconds"] / 2
    assert set(manifest["inputs"]["checkpoint"]) == {"directory", "digest"}
    finetune.main(flags(max_steps=18, resume_from_checkpoint=first / "checkpoint-12"))  # up to date
    with pytest.raises(InputError, match="a finished run with inputs.checkpoint = .*, this one has None"):
        finetune.main(flags(max_steps=18))


def test_the_best_checkpoint_may_lie_in_the_run_that_was_resumed(flags, tmp_path, first):
    """It is copied, so that the new run holds all it needs, and a kill before its own first checkpoint changes nothing."""
    longer = {"max_steps": 16, "resume_from_checkpoint": first / "checkpoint-12"}
    with interrupted("training_step", 3):
        finetune.main(flags(**longer))
    finetune.main(flags(**longer))
    assert read_json(tmp_path / "run" / "metrics.json")["best_step"] == 4 and (tmp_path / "run" / "checkpoint-4").is_dir()
    assert [entry["step"] for entry in read_json(tmp_path / "run" / "metrics.json")["history"]] == [4, 8, 12, 16]
    expected, actual = trained_weights(first), trained_weights(tmp_path / "run")
    assert all(torch.equal(tensor, actual[name]) for name, tensor in expected.items())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_layers": 3}, "config.num_layers = 2, this one 3"),
        ({"train_strategy": "lora"}, "config.train_strategy = 'full', this one 'lora'"),
        ({"item_dropout": 0.1}, "config.item_dropout = 0.0, this one 0.1"),
        ({"targets": "all"}, "config.targets = 'last', this one 'all'"),
        ({"learning_rate": 5e-5}, "config.learning_rate = 0.003, this one 5e-05"),
        ({"weight_decay": 0.1}, "config.weight_decay = 0.0, this one 0.1"),
        ({"lr_scheduler_type": "linear"}, "config.lr_scheduler_type = 'cosine', this one 'linear'"),
    ],
)
def test_what_a_resumed_run_cannot_apply_is_refused(flags, tmp_path, first, changes, message):
    with pytest.raises(InputError) as refused:
        finetune.main(flags(max_steps=16, resume_from_checkpoint=first / "checkpoint-12", **changes))
    assert message in str(refused.value) and "(only --max_steps, --num_train_epochs, --save_steps may differ)" in str(
        refused.value
    )
    assert not list(tmp_path.glob("*run*"))


def test_named_checkpoints_that_cannot_be_used(flags, tmp_path, first):
    named = first / "checkpoint-12"
    alone = shutil.copytree(named, tmp_path / "alone" / "checkpoint-12")
    damaged = shutil.copytree(first, tmp_path / "damaged") / "checkpoint-12"
    os.truncate(damaged / "backbone" / "model.safetensors", 100)
    for checkpoint, message in (
        ("nowhere", "--resume_from_checkpoint nowhere: no such directory"),
        (alone, "not a whole checkpoint .*of the best checkpoint of its run, checkpoint-4: it is gone"),
        (damaged, "checkpoint-12: not a whole checkpoint .*its backbone/model.safetensors is not what was written"),
        (first, "first: not a whole checkpoint of a training run .it has no checkpoint.json"),
    ):
        with pytest.raises(InputError, match=message):
            finetune.main(flags(max_steps=16, resume_from_checkpoint=checkpoint))
        assert not list(tmp_path.glob("*run*"))


def test_a_run_does_not_start_from_its_own_unfinished_checkpoint(flags, tmp_path):
    with interrupted("training_step", 6):
        finetune.main(flags())
    with pytest.raises(InputError, match="would replace its own input"):
        finetune.main(flags(resume_from_checkpoint=tmp_path / "run.partial" / "checkpoint-4") + ["--overwrite_output_dir"])
    assert (tmp_path / "run.partial" / "checkpoint-4").is_dir()


# -- divergence ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1e3, 1e6])
def test_a_run_that_diverges_stops_at_that_step(flags, tmp_path, rate):
    with pytest.raises(
        InputError,
        match=rf"training diverged at step [2-9] .learning rate {re.escape(f'{rate:g}')}.: the loss is .*lower --learning_rate",
    ):
        finetune.main(flags(learning_rate=rate))
    assert not list(tmp_path.glob("run"))


# -- what is written ----------------------------------------------------------------------------------------------------------


def test_what_a_finished_run_holds(tiny_teacher, tiny_data, tiny_embeddings):
    manifest, metrics = read_manifest(tiny_teacher, "finetune"), read_json(tiny_teacher / "metrics.json")
    assert set(manifest["outputs"]) >= {"recommender.json", "heads.safetensors", "item_embeddings.safetensors", "metrics.json"}
    assert not [name for name in manifest["outputs"] if name.startswith(("checkpoint-", "runs"))]
    assert manifest["inputs"]["data"]["digest"] == read_manifest(tiny_data)["digest"]
    assert manifest["inputs"]["embeddings"]["digest"] == read_manifest(tiny_embeddings)["digest"]
    assert manifest["item_map"] == "tiny items" and manifest["seed"] == 0 and manifest["device"] == "cpu"
    assert manifest["config"]["train_strategy"] == "full" and manifest["config"]["precision"] == "fp32"
    assert "base_model" not in manifest["config"] and "device" not in manifest["config"]
    best = max(metrics["history"], key=lambda entry: entry["valid"]["MRR"])
    assert metrics["best_step"] == best["step"] and metrics["valid"]["sampled"] == best["valid"]
    assert metrics["training_rows"] == 48 and metrics["steps"] == 6
    model = load_ellmrec(tiny_teacher)
    assert metrics["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert list(tiny_teacher.glob("runs/events*"))  # TensorBoard's


def test_nothing_that_is_written_is_a_pickle_of_ours(tiny_teacher):
    """optimizer.pt, scheduler.pt and rng_state.pth are the Trainer's; they are read back by its restricted loader."""
    allowed = {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    suspicious = {path.name for path in tiny_teacher.rglob("*") if path.suffix in (".pt", ".pth", ".bin", ".pkl", ".pickle")}
    assert suspicious <= allowed


def test_validation_history_by_hand():
    log = [
        {"loss": 4.0, "loss_ce": 3.0, "grad_norm": 9.0, "learning_rate": 0.1, "step": 1},
        {"loss": 2.0, "loss_ce": 1.0, "grad_norm": 9.0, "learning_rate": 0.1, "step": 2},
        {"eval_MRR": 0.25, "eval_HR@1": 0.1, "epoch": 0.5, "step": 2},
        {"loss": 1.0, "loss_ce": 0.5, "step": 3},
        {"eval_MRR": 0.5, "eval_HR@1": 0.2, "epoch": 1.0, "step": 3},
        {"train_runtime": 1.0, "train_loss": 2.33, "step": 3},
    ]
    assert validation_history(log) == [
        {"step": 2, "valid": {"MRR": 0.25, "HR@1": 0.1}, "train": {"loss": 3.0, "loss_ce": 2.0}},
        {"step": 3, "valid": {"MRR": 0.5, "HR@1": 0.2}, "train": {"loss": 1.0, "loss_ce": 0.5}},
    ]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"max_steps": 0}, "--max_steps 0: must be at least 1, or -1"),
        ({"targets": "some"}, "--targets some: choose one of last, all"),
        ({"base_model": "."}, "--base_model .: the directory has no config.json"),
        ({"lora_target_modules": ["nowhere"], "train_strategy": "lora"}, "--lora_target_modules nowhere"),
        ({"lr_scheduler_type": "sideways"}, "--lr_scheduler_type sideways: choose one of cosine, linear"),
        ({"embeddings": "nowhere"}, "nowhere: no such directory"),
    ],
)
def test_bad_input_is_one_clear_error_and_leaves_nothing(flags, tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        finetune.main(flags(**changes))
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_embeddings_with_another_number_of_items(flags, tmp_path):
    """Same item map on paper, fewer rows in the file."""
    with Stage("embeddings", tmp_path / "fewer", {}, {}, item_map="tiny items") as stage:
        save_item_embeddings(torch.randn(40, 8), stage.path)
    with pytest.raises(InputError, match="fewer: the embeddings of 39 items, .*data has 40"):
        finetune.main(flags(embeddings=tmp_path / "fewer"))
    assert not list(tmp_path.glob("run*"))


@pytest.mark.parametrize(
    "asked, native, width, expected",
    [
        ("auto", True, 256, "bf16"),
        ("auto", True, 128, "fp32"),  # narrow: measured not to pay
        ("auto", False, 4096, "fp32"),
        ("bf16", False, 128, "bf16"),
        ("fp32", True, 4096, "fp32"),
    ],
)
def test_precision_on_a_cpu(asked, native, width, expected, monkeypatch):
    monkeypatch.setattr(llm_stage, "multiplies_bf16_natively", lambda: native)
    assert llm_stage.resolve_precision(LlmTrainingArguments(precision=asked, device="cpu"), width) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_bf16_with_the_device_left_open_trains_on_the_cpu(tiny_flags, tmp_path):
    finetune.main(tiny_flags(output_dir=tmp_path / "run", device="auto", precision="bf16", max_steps=2))
    manifest = read_manifest(tmp_path / "run")
    assert manifest["config"]["precision"] == "bf16" and manifest["device"] == "cpu"
