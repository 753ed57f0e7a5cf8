"""Stage directories: what one stage hands to the next.

A stage writes into `<output_dir>.partial`, and the directory gets its name when it is whole, so a directory that exists under its
name is finished. Its `manifest.json` says what made it (configuration, inputs, versions) and what it holds (sha256 of each file);
its `run.json` is written first and removed last, and marks a directory as one that a stage made: nothing else is ever deleted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from slmrec import processes, progress
from slmrec.errors import InputError, place
from slmrec.files import (  # noqa: F401  (the names that stages use, in one place)
    file_sha256,
    json_sha256,
    open_to_colleagues,
    read_arrays,
    read_json,
    synchronise,
    write_json,
)
from slmrec.locks import DirectoryLock
from slmrec.manifest import (  # noqa: F401
    MANIFEST,
    SCHEMA_VERSION,
    described_place,
    file_input,
    input_directory,
    manifest_digest,
    read_manifest,
    require_same_item_map,
    stage_directory,
    stage_input,
)
from slmrec.ownership import RUN, is_empty, is_ours, place_of, remove, remove_stage
from slmrec.provenance import command_line, git_state, library_versions

WRITTEN_BY = {"written_by": "slmrec"}
KEPT = ("checkpoint", "runs")  # what a resumed stage finds again: training checkpoints and TensorBoard logs, which are no outputs
REPLACE = "(--overwrite_output_dir replaces it)"


class Stage:
    """One run of one stage.

    Use::

        stage = Stage("embeddings", output_dir, config, inputs, overwrite=False)
        if stage.up_to_date:
            return
        with stage:
            ...                       # write files into stage.path
            stage.metrics = {...}     # optional, becomes metrics.json
            stage.result = "..."      # for the stage's line on the terminal, beside stage.count ("110/110 steps")

    `config` is everything that determines the result (plain JSON values), `inputs` maps a name to `stage_input(...)` or
    `file_input(...)`. A finished directory with the same configuration and inputs is up to date; another run's is an InputError
    that names the differing key, or, with `overwrite`, is replaced once this run is whole. After a kill, `resumable` stages find
    their checkpoints in `stage.path` again (`stage.resumed` is then true), others start afresh; whatever else the killed process
    left is removed, so that the outputs are the files that this process wrote. A checkpoint that is a file (the encoders') goes
    once everything else is whole; directories of checkpoints stay, for a longer run to start from.

    Unless it is up to date, a stage holds the lock of its directory from here to the end of the `with`: a second process
    waits, and then finds the first one's result. Of several processes of one run the first does all this, the others follow.
    """

    def __init__(self, name, output_dir, config, inputs, *, overwrite=False, resumable=False, item_map=None, seed=None):
        self.name, self.output_dir = name, place_of(output_dir)
        progress.begin(str(output_dir))
        self.config, self.inputs = json.loads(json.dumps(config)), inputs
        self.item_map, self.seed, self.resumable, self.overwrite = item_map, seed, resumable, overwrite
        self.path = self.output_dir.with_name(self.output_dir.name + ".partial")
        self._replaced = self.output_dir.with_name(self.output_dir.name + ".replaced")
        self.metrics: dict | None = None
        self.result = self.count = ""
        self.device = "cpu"
        self.resumed = False
        self._changes: list[tuple] = []  # from the run that is there to this one
        self._refuse_own_inputs()
        self._lock = DirectoryLock(self.output_dir)
        self.up_to_date = processes.same(processes.first() and self._is_up_to_date())
        if self.up_to_date:
            progress.say(f"{progress.head()}up to date")

    # -- what is there already -----------------------------------------------------------------------------------------------

    def identity(self) -> dict:
        """What two runs must share to be the same run; paths do not count, contents do."""
        digests = {name: described["digest"] for name, described in self.inputs.items()}
        return {"stage": self.name, "schema_version": SCHEMA_VERSION, "config": self.config, "inputs": digests}

    def _refuse_own_inputs(self) -> None:
        for described in self.inputs.values():
            source = described.get("directory") or described.get("path")
            places = (self.output_dir.resolve(), self.path.resolve())
            if source and any(Path(source).resolve().is_relative_to(place) for place in places):
                raise InputError(f"{self.output_dir}: writing this stage here would replace its own input {source}")

    def _is_up_to_date(self) -> bool:
        nothing_left_over = not os.path.lexists(self._replaced)
        return (nothing_left_over and self._finished_before()) or self._locked_and_finished()

    def _locked_and_finished(self) -> bool:
        """Take the lock, and look again at what another process, alive or killed, has left."""
        self._lock.acquire()
        try:
            self._tidy_up_after_a_kill()
            finished = self._finished_before() or self._only_lacks_its_name()
        except BaseException:
            self._lock.release()
            raise
        if finished:
            self._lock.release()
        return finished

    def _finished_before(self) -> bool:
        """Whether this very run is there already, whole. A directory that no stage wrote is never replaced."""
        if not os.path.lexists(self.output_dir) or is_empty(self.output_dir):
            return False
        if not is_ours(self.output_dir):
            raise InputError(
                f"{self.output_dir}: not a stage directory (no stage of this program made it), so it is not replaced"
            )
        try:
            manifest = read_manifest(self.output_dir)
        except InputError as damage:
            if self.overwrite:  # what will be replaced need not be valid
                return False
            raise InputError(f"{damage} {REPLACE}") from None
        return self._same_run(_identity_in(manifest), self.output_dir, "a finished run")

    def _same_run(self, recorded: dict, directory: Path, what: str) -> bool:
        """False for another run that `overwrite` allows to be replaced. Raises InputError for one that it does not."""
        self._changes = list(differences(recorded, self.identity()))
        if self._changes and not self.overwrite:
            key, theirs, ours = self._changes[0]
            raise InputError(f"{directory}: holds {what} with {key} = {theirs!r}, this one has {ours!r} {REPLACE}")
        return not self._changes

    def _tidy_up_after_a_kill(self) -> None:
        """Undo or complete a replacement that was cut short. Raises InputError when a name that is needed is somebody else's."""
        for needed in (self.path, self._replaced):
            if os.path.lexists(needed) and not is_empty(needed) and not is_ours(needed):
                raise InputError(
                    f"{needed}: not made by a stage, and this stage needs the name; move it or choose another output"
                )
        if self._replaced.exists():
            if not os.path.lexists(self.output_dir):
                os.rename(self._replaced, self.output_dir)  # the new one never got its name
            else:
                remove_stage(self._replaced)

    def _only_lacks_its_name(self) -> bool:
        """Whether a killed process had written this very run to its end; then it gets its name here."""
        if not (self.path / MANIFEST).is_file():
            return False
        try:
            manifest = read_manifest(self.path)
        except InputError:
            return False  # cut short: the run begins again, from its checkpoints if it has any
        if first_difference(_identity_in(manifest), self.identity()):
            return False
        self._give_it_its_name()
        return True

    # -- the run -------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._started = time.time()
        if processes.first():
            self._begin()
        self.resumed = processes.same(self.resumed)
        return self

    def _begin(self) -> None:
        """Make the directory, with what an unfinished run of this stage left in it."""
        if self.up_to_date:  # made again all the same
            self._lock.acquire()
        try:
            marker = self.path / RUN
            if self.resumable and marker.is_file():
                self.resumed = self._same_run(_identity_in(read_json(marker)), self.path, "an unfinished run")
            self._say_what_changed()
            if self.path.exists():
                self._remove_leftovers() if self.resumed else remove_stage(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(marker, WRITTEN_BY | self.identity())
        except BaseException:
            self._lock.release()
            raise

    def _say_what_changed(self) -> None:
        """One line about a run that this one replaces."""
        inputs = [key.removeprefix("inputs.") for key, *_ in self._changes if key.startswith("inputs")]
        values = [f"{key.removeprefix('config.')} was {theirs}, is {ours}" for key, theirs, ours in self._changes]
        values = [text for (key, *_), text in zip(self._changes, values, strict=True) if not key.startswith("inputs")]
        if self._changes:
            progress.say(f"{progress.head()}made again: {', '.join([*values, *(f'other {name}' for name in inputs)])}")

    def _remove_leftovers(self) -> None:
        """Everything that a killed process left but checkpoints and logs: this one writes its outputs itself."""
        for path in self.path.iterdir():
            if path.name != RUN and not path.name.startswith(KEPT):
                remove(path)

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            processes.wait()  # until nobody reads the unfinished directory any more
        if processes.first():
            self._end(kind, error)

    def _end(self, kind: type[BaseException] | None, error: BaseException | None) -> None:
        try:
            if kind is None:
                self._finish()
        except BaseException as failure:
            self._give_up(failure)
            raise
        else:
            if error is not None:
                self._give_up(error)
        finally:
            self._lock.release()
        if kind is None and self.result:
            progress.finish(self.result, self.count)

    def _give_up(self, error: BaseException) -> None:
        """Leave nothing half-written, but checkpoints to go on from; a killed process is handled by the next `__enter__`."""
        place(error, self.path)
        if not (self.resumable and any(self.path.glob("checkpoint*"))):
            try:
                remove_stage(self.path)
            except OSError:  # the disk that failed may fail again; the error that is being raised matters more
                return

    def _finish(self) -> None:
        if not (self.path / "config.json").exists():  # a Hugging Face checkpoint has its own; the manifest holds ours as well
            write_json(self.path / "config.json", self.config)
        if self.metrics is not None:
            write_json(self.path / "metrics.json", self.metrics)
        self._refuse_changed_inputs()
        written = [path for path in self.path.rglob("*") if not path.is_symlink()]
        open_to_colleagues((path for path in written if path.is_file()), like=self.path / RUN)
        for path in written:
            synchronise(path)
        write_json(self.path / MANIFEST, self._manifest())
        self._give_it_its_name()

    def _refuse_changed_inputs(self) -> None:
        """An input that changed while this stage ran may have been read half before and half after that."""
        for described in self.inputs.values():
            if "path" in described:
                place, digest = described["path"], file_sha256(described["path"])
            elif (Path(described.get("directory", "")) / MANIFEST).is_file():
                place, digest = described["directory"], read_json(Path(described["directory"]) / MANIFEST).get("digest")
            else:
                continue
            if digest != described["digest"]:
                raise InputError(f"{place}: was changed while this stage read it; start again")

    def _give_it_its_name(self) -> None:
        """Put the whole directory in its place; a kill between any two of these steps is repaired by the next start."""
        for path in self.path.glob("checkpoint*"):
            if path.is_file():
                path.unlink()
        if self.output_dir.exists() and not is_empty(self.output_dir):
            if not (self.output_dir / RUN).is_file():  # of an earlier version: marked, so that its remains can be told
                write_json(self.output_dir / RUN, WRITTEN_BY)
            os.rename(self.output_dir, self._replaced)
        os.rename(self.path, self.output_dir)
        synchronise(self.output_dir.parent)
        if self._replaced.exists():
            remove_stage(self._replaced)

    def _manifest(self) -> dict:
        files = self._output_files()
        outputs = {
            str(path.relative_to(self.path)): {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in files
        }
        content = self.identity() | {"inputs": {name: self._described(name) for name in self.inputs}, "outputs": outputs}
        return content | {
            "digest": manifest_digest(content),
            "item_map": self.item_map,
            "seed": self.seed,
            "command": command_line(),
            "git": git_state(),
            "libraries": library_versions(),
            "device": self.device,
            "wall_seconds": round(time.time() - self._started, 2),
            "resumed": self.resumed,
        }

    def _described(self, name: str) -> dict:
        described = {key: value for key, value in self.inputs[name].items() if key != "path"}
        return described | (described_place(described["directory"], self.output_dir) if "directory" in described else {})

    def _output_files(self) -> list[Path]:
        """What this process wrote, but for checkpoints and logs, which a user may delete, and what other programs hide here."""
        files = [path for path in sorted(self.path.rglob("*")) if path.is_file()]
        tops = {path: path.relative_to(self.path).parts[0] for path in files}
        return [
            path
            for path in files
            if tops[path] not in (RUN, MANIFEST) and not tops[path].startswith((*KEPT, ".")) and not path.name.startswith(".")
        ]


def _identity_in(recorded: dict) -> dict:
    """The identity that a manifest or a marker records."""
    identity = {name: recorded.get(name) for name in ("stage", "schema_version", "config")}
    inputs = recorded.get("inputs", {}).items()
    digests = {name: entry.get("digest") if isinstance(entry, dict) else entry for name, entry in inputs}
    return identity | {"inputs": digests}


def differences(recorded, current, key: str = "") -> Iterator[tuple[str, object, object]]:
    """The keys at which two nested JSON values differ, with both values."""
    if isinstance(recorded, dict) and isinstance(current, dict):
        for name in sorted(recorded.keys() | current.keys()):
            yield from differences(recorded.get(name), current.get(name), f"{key}.{name}" if key else name)
    elif recorded != current:
        yield key, recorded, current


def first_difference(recorded, current) -> tuple[str, object, object] | None:
    """The first of the differences; None where there are none."""
    return next(differences(recorded, current), None)
