"""Training checkpoints that are whole or not there: written under another name, listed, and renamed into place.

A `checkpoint-N` holds, beside the model's weights and the Trainer's states, `checkpoint.json`: every file with its size and
sha256, the configuration and inputs of the run, and the seconds of training that led to it. A directory that differs from its
list, or has none, is not used.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slmrec import processes
from slmrec.artifacts import first_difference, json_sha256, read_json
from slmrec.errors import InputError
from slmrec.files import file_sha256, synchronise, write_json
from slmrec.progress import say

LIST = "checkpoint.json"
WRITING = ".writing"  # where a checkpoint grows; a resumed stage removes it
TRAINER_STATE = "trainer_state.json"
NEEDED = {TRAINER_STATE, "optimizer.pt", "scheduler.pt"}  # without these a run would go on from weights alone, in silence


@contextmanager
def new_checkpoint(directory: Path, step: int, description: dict) -> Iterator[Path]:
    """Gives a directory to write `checkpoint-<step>` of `directory` into; it has that name once the body ends without an error.

    `description` (JSON values) is kept in its list. Several processes may write into it, at the same time.
    """
    growing, name = directory / WRITING, f"checkpoint-{step}"
    if processes.first():
        shutil.rmtree(growing, ignore_errors=True)
        growing.mkdir()
    processes.wait()
    yield growing
    processes.wait()
    if processes.first():
        _complete(directory, name, description)
    processes.wait()


def when_whole(directory: Path) -> Path:
    """Where a checkpoint that is being written will lie; any other directory as it is."""
    return directory.parent.parent / directory.name if directory.parent.name == WRITING else directory


def _complete(directory: Path, name: str, description: dict) -> None:
    """List what was written, and give it its name."""
    growing = directory / WRITING
    files = [path for path in sorted((growing / name).rglob("*")) if path.is_file()]
    for path in (*files, *(path.parent for path in files)):
        synchronise(path)
    listed = {
        str(path.relative_to(growing / name)): {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in files
    }
    write_json(growing / name / LIST, description | {"files": listed})
    if (directory / name).exists():  # a damaged one of the same step
        os.rename(directory / name, growing / "damaged")
    os.rename(growing / name, directory / name)
    synchronise(directory)
    shutil.rmtree(growing)


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint directory, in a few words; None for a whole one."""
    if not (checkpoint / LIST).is_file():
        return f"it has no {LIST}"
    try:
        listed = read_json(checkpoint / LIST).get("files")
        missing = NEEDED - listed.keys()
        if missing:
            return f"it has no {min(missing)}"
        for name, recorded in listed.items():
            path = checkpoint / name
            if not path.is_file():
                return f"its {name} is missing"
            if path.stat().st_size != recorded["bytes"] or file_sha256(path) != recorded["sha256"]:
                return f"its {name} is not what was written"
    except (InputError, AttributeError, TypeError, KeyError):
        return f"its {LIST} is damaged"
    return None


def require_whole(place: Path) -> None:
    """Raise InputError when a checkpoint-N, or what lies in one, differs from its list. An earlier version made none."""
    for directory in (place, *place.parents):
        if step_of(directory) is not None and (directory / LIST).is_file() and damage(directory):
            raise InputError(f"{directory}: damaged or changed since it was written ({damage(directory)})")


def step_of(checkpoint: Path) -> int | None:
    """N of a directory `checkpoint-N`; None for any other name."""
    named = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(named[1]) if named else None


def last_whole_checkpoint(directory: Path, run: dict) -> Path | None:
    """The latest checkpoint in `directory` from which `run` can go on: whole, and so is the best one of its time.

    Damaged ones are reported. `run` is `Stage.identity()`; the copied best checkpoint of another run does not count.
    """
    numbered = [path for path in directory.glob("checkpoint-*") if path.is_dir() and step_of(path) is not None]
    for path in sorted(numbered, key=lambda path: step_of(path) or 0, reverse=True):
        problem = resume_problem(path)
        if problem:
            say(f"{path} is not used: {problem}")
        elif read_json(path / LIST).get("run") == run:
            return path
    return None


def resume_problem(checkpoint: Path) -> str | None:
    """Why training cannot go on from a checkpoint; None when it can."""
    problem = damage(checkpoint)
    if problem:
        return problem
    best = best_checkpoint_beside(checkpoint)
    problem = damage(best) if best.is_dir() else "it is gone"
    return f"of the best checkpoint of its run, {best.name}: {problem}" if problem else None


def best_checkpoint_beside(checkpoint: Path) -> Path:
    """The best checkpoint-N of the run that `checkpoint` belongs to, as of that checkpoint."""
    return checkpoint.parent / f"checkpoint-{read_json(checkpoint / TRAINER_STATE)['best_global_step']}"


def remove_old_checkpoints(directory: Path, limit: int, best_step: int | None) -> None:
    """Keep `limit` checkpoints, among them the latest and the best; a limit of 0 or None keeps all."""
    whole = [path for path in directory.glob("checkpoint-*") if step_of(path) is not None]
    numbered = sorted(whole, key=lambda path: step_of(path) or 0)
    spare = [path for path in numbered[:-1] if step_of(path) != best_step]
    for path in spare[: max(0, len(numbered) - limit)] if limit and limit > 0 else []:
        (path / LIST).unlink(missing_ok=True)  # a kill on the way leaves one that nobody takes for whole
        shutil.rmtree(path)


# -- another run's checkpoint -------------------------------------------------------------------------------------------------


def copy_best(checkpoint: Path, directory: Path) -> None:
    """Copy the best checkpoint of another run into this one's directory, which so holds all that it needs."""
    best = best_checkpoint_beside(checkpoint)
    growing = directory / WRITING
    if (directory / best.name).exists():  # copied before a kill
        return
    shutil.rmtree(growing, ignore_errors=True)
    shutil.copytree(best, growing / best.name)
    os.rename(growing / best.name, directory / best.name)
    growing.rmdir()


MAY_DIFFER = {"max_steps", "num_train_epochs", "save_steps"}  # a run goes on for longer, or is looked at more often


def checkpoint_input(checkpoint: str | Path) -> dict:
    """Describe the checkpoint of another run as a stage input: its place and the digest of what it and its best sibling hold.

    Raises InputError when training cannot go on from it.
    """
    checkpoint = Path(checkpoint)
    if not checkpoint.is_dir():
        raise InputError(f"--resume_from_checkpoint {checkpoint}: no such directory")
    problem = resume_problem(checkpoint)
    if problem:
        raise InputError(f"--resume_from_checkpoint {checkpoint}: not a whole checkpoint of a training run ({problem})")
    lists = [read_json(path / LIST)["files"] for path in (checkpoint, best_checkpoint_beside(checkpoint))]
    return {"directory": str(checkpoint), "digest": json_sha256(lists)}


def require_same_training(checkpoint: str | Path, stage: str, config: dict, inputs: dict) -> None:
    """Refuse a checkpoint whose run differs from this one in what its states bring along (learning rate, rank, data ...).

    `config` and `inputs` are those that this run gives to `Stage`.
    """
    recorded = read_json(Path(checkpoint) / LIST).get("run", {})
    if recorded.get("stage") != stage:
        raise InputError(f"--resume_from_checkpoint {checkpoint}: of a {recorded.get('stage')!r} stage, this one is {stage!r}")
    digests = {name: described["digest"] for name, described in inputs.items()}
    ours = {"config": json.loads(json.dumps(config)), "inputs": digests}
    difference = first_difference(_comparable(recorded), _comparable(ours))
    if difference:
        key, theirs, this = difference
        raise InputError(
            f"--resume_from_checkpoint {checkpoint}: its run has {key} = {theirs!r}, this one {this!r}, which cannot be applied "
            f"to a run that goes on (only {', '.join(f'--{name}' for name in sorted(MAY_DIFFER))} may differ)"
        )


def _comparable(run: dict) -> dict:
    config = {name: value for name, value in run.get("config", {}).items() if name not in MAY_DIFFER}
    inputs = {name: digest for name, digest in run.get("inputs", {}).items() if name != "checkpoint"}
    return {"config": config, "inputs": inputs}
