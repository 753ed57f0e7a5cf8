import shutil
import sys
import types
import warnings

import pytest
import torch
from transformers.utils import logging

from slmrec.artifacts import Stage, stage_directory, stage_input
from slmrec.errors import InputError
from slmrec.open_model import data_directory, load_recommender


def write_stage(name, directory, **inputs):
    stage = Stage(name, directory, {}, {key: stage_input(path) for key, path in inputs.items()})
    with stage:
        (stage.path / "checkpoint-2").mkdir()
    return directory


@pytest.fixture
def loaders(monkeypatch):
    """Stand-ins for the two loaders; each notes which directory it was asked for."""
    calls = []
    for module, function in (("slmrec.encoders.registry", "load_encoder"), ("slmrec.llm.model_directory", "load_ellmrec")):

        def load(directory, function=function):
            calls.append((function, directory))
            return torch.nn.Linear(1, 1).train()

        monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{function: load}))
    return calls


LOADERS = {"encoder": "load_encoder", "finetune": "load_ellmrec", "distill": "load_ellmrec"}


@pytest.mark.parametrize("stage, loader", LOADERS.items())
def test_the_stage_decides_the_loader(stage, loader, tmp_path, loaders):
    directory = write_stage(stage, tmp_path / "model")
    model = load_recommender(directory, "cpu")
    assert loaders == [(loader, directory)] and not model.training


def test_a_checkpoint_is_loaded_itself(tmp_path, loaders):
    checkpoint = write_stage("distill", tmp_path / "model") / "checkpoint-2"
    load_recommender(checkpoint)
    assert loaders == [("load_ellmrec", checkpoint)]
    assert stage_directory(checkpoint) == tmp_path / "model" == stage_directory(tmp_path / "model")
    with pytest.raises(InputError, match="checkpoint-9: no such directory"):
        load_recommender(tmp_path / "model" / "checkpoint-9")


@pytest.mark.parametrize(
    "stage, loader", [("finetune", "llm.model_directory.load_ellmrec"), ("openp5", "openp5.directory.load_openp5")]
)
def test_opening_is_quiet_and_what_a_program_has_set_stays(stage, loader, tmp_path, monkeypatch, capfd, caplog):
    """Bars, reports and coming names of transformers and peft are for whoever uses these, and stay on for them."""

    def load(directory):
        logging.get_logger("transformers.test").warning("left as it is")
        warnings.warn_explicit("will be renamed", FutureWarning, "peft_model.py", 1, module="peft.peft_model")
        for _ in logging.tqdm(range(2)):
            pass
        return torch.nn.Linear(1, 1)

    monkeypatch.setattr(f"slmrec.{loader}", load)
    before = logging.get_verbosity(), logging.is_progress_bar_enabled(), list(warnings.filters)
    logging.set_verbosity_warning()
    logging.enable_progress_bar()
    load_recommender(write_stage(stage, tmp_path / "model"))
    assert capfd.readouterr().err == "" and not caplog.messages
    assert logging.get_verbosity() == logging.WARNING and logging.is_progress_bar_enabled()
    assert before[2] == list(warnings.filters)
    with pytest.warns(FutureWarning):
        load(tmp_path)
    assert "2/2" in capfd.readouterr().err and caplog.messages == ["left as it is"]
    logging.set_verbosity(before[0])
    if not before[1]:
        logging.disable_progress_bar()


def test_a_stage_without_a_model_is_refused(tmp_path):
    directory = write_stage("data", tmp_path / "data")
    with pytest.raises(InputError, match="holds a 'data' stage where 'encoder' or 'finetune' or 'distill' or 'openp5' is needed"):
        load_recommender(directory)


def test_data_directory_is_the_recorded_one(tmp_path, monkeypatch):
    data = write_stage("data", tmp_path / "data")
    model = write_stage("encoder", tmp_path / "runs" / "model", data=data)
    assert data_directory(model) == data == data_directory(model / "checkpoint-2")
    monkeypatch.chdir(tmp_path)  # the record is relative to the stage, not to where one stands
    assert data_directory("runs/model").resolve() == data
    shutil.rmtree(data)
    with pytest.raises(InputError, match="no longer there; name the data directory with --data"):
        data_directory(model)


def test_a_model_without_recorded_data_says_so(tmp_path):
    with pytest.raises(InputError, match="records no data directory"):
        data_directory(write_stage("encoder", tmp_path / "model"))
