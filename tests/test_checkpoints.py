"""Checkpoints without a trainer: whole or not there after a kill at any file event, and every damage is seen."""

import json
import os
import shutil

import pytest

from slmrec.checkpoints import (
    LIST,
    checkpoint_input,
    copy_best,
    damage,
    last_whole_checkpoint,
    new_checkpoint,
    remove_old_checkpoints,
    require_same_training,
    step_of,
)
from slmrec.errors import InputError
from tests.kills import watching

RUN = {"stage": "finetune", "config": {"learning_rate": 0.1}, "inputs": {"data": "abc"}}
FILES = {"trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "backbone/model.safetensors", LIST}


def write(directory, step, best=None, run=RUN):
    with new_checkpoint(directory, step, {"run": run, "train_seconds": 1.0}) as growing:
        checkpoint = growing / f"checkpoint-{step}"
        (checkpoint / "backbone").mkdir(parents=True)
        for name in FILES - {LIST, "trainer_state.json"}:
            (checkpoint / name).write_text(f"{name} of step {step}")
        (checkpoint / "trainer_state.json").write_text(json.dumps({"best_global_step": best or step}))


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_checkpoint_lists_its_files(tmp_path):
    write(tmp_path, 4)
    assert names(tmp_path) == ["checkpoint-4"] and damage(tmp_path / "checkpoint-4") is None
    listed = json.loads((tmp_path / "checkpoint-4" / LIST).read_text())
    assert set(listed["files"]) == FILES - {LIST} and listed["run"] == RUN and listed["train_seconds"] == 1.0


@pytest.mark.parametrize("cut", [False, True])
def test_no_kill_while_a_checkpoint_is_written_spoils_the_run(tmp_path, cut):
    """Either the new one or the old one is the last whole one, and the same write succeeds afterwards."""
    number, deaths = 0, 0
    while deaths == number:
        number += 1
        place = tmp_path / str(number)
        place.mkdir()
        write(place, 4)
        with watching(place, at=number, cut=cut) as watch:
            write(place, 8)
            remove_old_checkpoints(place, 1, 8)
        deaths += watch.dead
        last = last_whole_checkpoint(place, RUN)
        assert last.name in ("checkpoint-4", "checkpoint-8"), watch.events[-1]
        write(place, 8)
        remove_old_checkpoints(place, 1, 8)
        assert names(place) == ["checkpoint-8"] and damage(place / "checkpoint-8") is None
    assert deaths > 12


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("how", ["missing", "empty", "half", "zeroed"])
def test_every_damage_is_seen(tmp_path, capsys, name, how):
    write(tmp_path, 4)
    write(tmp_path, 8)
    path = tmp_path / "checkpoint-8" / name
    content = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "zeroed": bytes(len(content))}[how])
    assert last_whole_checkpoint(tmp_path, RUN).name == "checkpoint-4"
    assert f"checkpoint-8 is not used: it{'' if how == 'missing' and name == LIST else 's'} " in capsys.readouterr().out
    with pytest.raises(InputError, match="checkpoint-8: not a whole checkpoint of a training run"):
        checkpoint_input(tmp_path / "checkpoint-8")


@pytest.mark.parametrize("content", ["[]", "{}", '{"files": 3}', '{"files": {"a": 3}}', '{"files": {"optimizer.pt": {}}}'])
def test_a_list_of_another_kind_is_seen(tmp_path, content):
    write(tmp_path, 4)
    (tmp_path / "checkpoint-4" / LIST).write_text(content)
    assert damage(tmp_path / "checkpoint-4") is not None


@pytest.mark.parametrize("needed", ["optimizer.pt", "scheduler.pt", "trainer_state.json"])
def test_a_list_without_what_a_run_needs_is_not_enough(tmp_path, needed):
    """As after deleting optimizer.pt and its entry: the Trainer would go on from the weights alone without a word."""
    write(tmp_path, 4)
    listed = json.loads((tmp_path / "checkpoint-4" / LIST).read_text())
    del listed["files"][needed]
    (tmp_path / "checkpoint-4" / LIST).write_text(json.dumps(listed))
    assert damage(tmp_path / "checkpoint-4") == f"it has no {needed}"


def test_names_that_are_no_steps_are_ignored(tmp_path):
    write(tmp_path, 4)
    for name in ("checkpoint-abc", "checkpoint-", "checkpoint-8.old", "checkpoint--3", "checkpoint-9"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-99").write_text("a file")
    (tmp_path / "checkpoint-9").rmdir()
    assert last_whole_checkpoint(tmp_path, RUN).name == "checkpoint-4"
    remove_old_checkpoints(tmp_path, 1, 4)
    assert (tmp_path / "checkpoint-abc").is_dir() and (tmp_path / "checkpoint-4").is_dir()
    assert [step_of(tmp_path / name) for name in ("checkpoint-12", "checkpoint-x")] == [12, None]


def test_the_latest_is_the_one_of_the_highest_number(tmp_path):
    assert last_whole_checkpoint(tmp_path, RUN) is None
    for step in (100, 9, 10):
        write(tmp_path, step)
    (tmp_path / "checkpoint-100" / LIST).unlink()
    assert last_whole_checkpoint(tmp_path, RUN).name == "checkpoint-10"


def test_the_best_and_the_latest_are_kept(tmp_path):
    for step in (2, 4, 6, 8):
        write(tmp_path, step, best=4)
    remove_old_checkpoints(tmp_path, 2, 4)
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-8"]
    for limit in (None, 0, 5):
        remove_old_checkpoints(tmp_path, limit, 4)
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-8"]


def test_a_damaged_best_one_spoils_those_that_name_it(tmp_path, capsys):
    for step in (2, 4, 6):
        write(tmp_path, step, best=min(step, 4))
    os.truncate(tmp_path / "checkpoint-4" / "optimizer.pt", 3)
    assert last_whole_checkpoint(tmp_path, RUN).name == "checkpoint-2"
    said = capsys.readouterr().out
    assert "checkpoint-6 is not used: of the best checkpoint of its run, checkpoint-4: its optimizer.pt is not what was" in said


def test_the_copied_best_checkpoint_is_not_taken_for_one_of_this_run(tmp_path):
    other, own = tmp_path / "other", tmp_path / "own"
    other.mkdir(), own.mkdir()
    write(other, 4)
    write(other, 8, best=4)
    for _ in range(2):
        copy_best(other / "checkpoint-8", own)
    assert names(own) == ["checkpoint-4"] and damage(own / "checkpoint-4") is None
    assert last_whole_checkpoint(own, RUN | {"config": {"learning_rate": 0.2}}) is None


def test_the_digest_is_that_of_the_content(tmp_path):
    write(tmp_path, 4)
    before = checkpoint_input(tmp_path / "checkpoint-4")["digest"]
    moved = shutil.copytree(tmp_path, tmp_path / "elsewhere")
    assert checkpoint_input(moved / "checkpoint-4")["digest"] == before
    with new_checkpoint(tmp_path, 4, {"run": RUN}) as growing:
        shutil.copytree(moved / "checkpoint-4", growing / "checkpoint-4", ignore=shutil.ignore_patterns(LIST))
        (growing / "checkpoint-4" / "optimizer.pt").write_text("other")
    assert checkpoint_input(tmp_path / "checkpoint-4")["digest"] != before


def test_a_checkpoint_of_another_stage_or_setting_is_refused(tmp_path):
    write(tmp_path, 2)
    named, inputs = tmp_path / "checkpoint-2", {"data": {"digest": "abc"}}
    require_same_training(named, "finetune", {"learning_rate": 0.1, "max_steps": 9}, inputs)
    for stage, rate, message in (
        ("distill", 0.1, "of a 'finetune' stage, this one is 'distill'"),
        ("finetune", 0.2, "its run has config.learning_rate = 0.1, this one 0.2"),
    ):
        with pytest.raises(InputError, match=message):
            require_same_training(named, stage, {"learning_rate": rate}, inputs)
