"""Stage directories under kills, locks, damage, links and names that belong to somebody else."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from slmrec import artifacts
from slmrec.artifacts import Stage, file_input, input_directory, read_manifest, stage_input
from slmrec.errors import InputError, in_one_line
from tests.kills import watching

ROOT = Path(__file__).resolve().parent.parent


def make(directory, size=1, text="result", inputs=None, **options):
    """A stage with a checkpoint that is a file, as the encoders have, and one output."""
    stage = Stage("made", directory, {"size": size}, inputs or {}, resumable=True, **options)
    if not stage.up_to_date:
        with stage:
            (stage.path / "checkpoint.pt").write_text("half way")
            (stage.path / "result.txt").write_text(text)
            stage.metrics = {"MRR": 0.5}
    return stage


def content(directory):
    """What lies in a tree, by name, without what the time of day changes."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.name.endswith(".slmrec.lock"):  # a killed process leaves it, and it blocks nobody
            text = path.read_text()
            if path.name == "manifest.json" and "outputs" in text:
                text = {name: json.loads(text)[name] for name in ("stage", "config", "outputs", "digest")}
            found[str(path.relative_to(directory))] = text
    return found


# -- kills --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("replacing", [False, True])
def test_no_kill_at_any_file_event_spoils_a_directory(tmp_path, monkeypatch, replacing, cut):
    """After a kill the same command ends where an undisturbed one does; what is replaced is there until its successor is."""
    for slow in ("git_state", "library_versions"):
        monkeypatch.setattr(artifacts, slow, dict)
    options = {"size": 2, "text": "new", "overwrite": True}
    make(tmp_path / "expected" / "out", **options)
    expected = content(tmp_path / "expected")
    number, deaths = 0, 0
    while deaths == number:
        number += 1
        place = tmp_path / str(number)
        place.mkdir()
        if replacing:
            make(place / "out")
        with watching(place, at=number, cut=cut) as watch:
            make(place / "out", **options)
        deaths += watch.dead
        if replacing:
            kept = [path for path in place.iterdir() if not path.name.startswith(".")]
            assert any(path.name in ("out", "out.replaced") for path in kept), watch.events
        make(place / "out", **options)
        assert content(place) == expected, watch.events[-1]
        read_manifest(place / "out")
    assert deaths > 15


def test_a_run_that_only_lacks_its_name_is_not_made_again(tmp_path):
    make(tmp_path / "out")
    os.rename(tmp_path / "out", tmp_path / "out.partial")
    assert make(tmp_path / "out", text="made again").up_to_date
    assert (tmp_path / "out" / "result.txt").read_text() == "result"


def test_what_a_killed_run_left_is_no_output(tmp_path):
    make(tmp_path / "out")
    os.rename(tmp_path / "out", tmp_path / "out.partial")
    (tmp_path / "out.partial" / "checkpoint-abc").mkdir()
    for name in ("manifest.tmp", "manifest.json", "junk.bin"):
        (tmp_path / "out.partial" / name).write_text("{")
    make(tmp_path / "out")
    assert set(read_manifest(tmp_path / "out")["outputs"]) == {"config.json", "metrics.json", "result.txt"}
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"checkpoint-abc"}
    assert not (tmp_path / "out" / "junk.bin").exists() and not (tmp_path / "out" / "manifest.tmp").exists()


def test_what_other_programs_hide_in_a_stage_directory_is_no_output(tmp_path):
    with Stage("made", tmp_path / "out", {}, {}) as stage:
        (stage.path / "backbone").mkdir()
        for name in (".DS_Store", "backbone/.nfs000001", "backbone/weights"):
            (stage.path / name).write_text("x")
    assert set(read_manifest(tmp_path / "out")["outputs"]) == {"config.json", "backbone/weights"}


# -- damage -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["", "[]", "{}", "null", "{", '{"stage": "made"}', "\0" * 64, "[" * 100_000, "9" * 5000])
def test_a_damaged_manifest_is_one_line_and_may_be_replaced(tmp_path, damage):
    make(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text(damage)
    with pytest.raises(InputError, match=r"manifest\.json: not ") as refused:
        read_manifest(tmp_path / "out")
    with pytest.raises(InputError, match=r"manifest\.json: not .*--overwrite_output_dir replaces it"):
        make(tmp_path / "out")
    assert len(str(refused.value)) < 300 and "\n" not in str(refused.value)
    make(tmp_path / "out", overwrite=True)
    assert read_manifest(tmp_path / "out")["config"] == {"size": 1}


@pytest.mark.parametrize("field", ["stage", "schema_version", "config", "inputs", "outputs", "digest"])
@pytest.mark.parametrize("value", [None, [], "text", {"other": 1}])
def test_a_field_of_another_kind_is_one_line(tmp_path, field, value):
    make(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest | {field: value}))
    with pytest.raises(InputError, match=r"manifest\.json: "):
        read_manifest(tmp_path / "out")


def test_a_changed_byte_of_the_same_size_is_noticed(tmp_path):
    """In an output, by whoever opens it and by the same command; in the configuration that the manifest records."""
    make(tmp_path / "out")
    (tmp_path / "out" / "result.txt").write_text("resulT")
    for opened in (lambda: stage_input(tmp_path / "out"), lambda: make(tmp_path / "out")):
        with pytest.raises(InputError, match=r"result\.txt: damaged or changed since it was written"):
            opened()
    make(tmp_path / "out", overwrite=True)
    text = (tmp_path / "out" / "manifest.json").read_text()
    (tmp_path / "out" / "manifest.json").write_text(text.replace('"size": 1', '"size": 7'))
    with pytest.raises(InputError, match=r"manifest\.json: damaged or changed"):
        make(tmp_path / "out", size=7)


def test_an_input_that_is_replaced_while_it_is_read_stops_the_stage(tmp_path):
    make(tmp_path / "source")
    (tmp_path / "plain").write_text("before")
    for inputs in ({"source": stage_input(tmp_path / "source")}, {"source": file_input(tmp_path / "plain")}):
        stage = Stage("reader", tmp_path / "out", {}, inputs)
        with pytest.raises(InputError, match="was changed while this stage read it"), stage:
            make(tmp_path / "source", size=2, overwrite=True)
            (tmp_path / "plain").write_text("after!")
        assert not list(tmp_path.glob("out*"))


# -- what is not ours ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out", "out.partial", "out.replaced"])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("file", ["thesis.tex", "manifest.json", "run.json"])
def test_a_directory_of_somebody_else_is_never_deleted(tmp_path, name, overwrite, file):
    (tmp_path / name).mkdir()
    (tmp_path / name / file).write_text('{"name": "years of work"}')
    with pytest.raises(InputError, match=f"{name}: not "):
        make(tmp_path / "out", overwrite=overwrite)
    assert content(tmp_path) == {f"{name}/{file}": '{"name": "years of work"}'}


@pytest.mark.parametrize("name", ["out", "out.partial"])
def test_a_file_in_the_place_of_a_directory(tmp_path, name):
    (tmp_path / name).write_text("years of work")
    with pytest.raises(InputError, match=f"{name}: not "):
        make(tmp_path / "out", overwrite=True)
    assert content(tmp_path) == {name: "years of work"}


def test_a_link_stays_and_is_followed(tmp_path):
    """runs/out -> another disk: the result lies there, whether the directory was empty or held an older run."""
    (tmp_path / "disk" / "place").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "place")
    for size in (1, 2):
        make(tmp_path / "out", size=size, overwrite=True)
        assert (tmp_path / "out").is_symlink() and read_manifest(tmp_path / "disk" / "place")["config"] == {"size": size}
    assert make(tmp_path / "out", size=2).up_to_date
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["place"]


@pytest.mark.parametrize("place", [".", "..", "", "/", "deeper/..", "../here"])
def test_the_working_directory_is_not_an_output(tmp_path, monkeypatch, place):
    (tmp_path / "here" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(InputError, match="name a directory of its own"):
        make(place, overwrite=True)


def test_a_stage_does_not_replace_a_file_that_it_reads(tmp_path):
    with Stage("demo", tmp_path / "out", {}, {}) as stage:
        (stage.path / "reviews.json").write_text("{}")
    inputs = {"reviews": file_input(tmp_path / "out" / "reviews.json")}
    with pytest.raises(InputError, match="would replace its own input"):
        make(tmp_path / "out", inputs=inputs, overwrite=True)


# -- two at once --------------------------------------------------------------------------------------------------------------

SLOW = """
import sys, time
from pathlib import Path
from slmrec.artifacts import Stage
from slmrec.runtime import run_main

def main(_):
    directory, size = Path(sys.argv[1]), int(sys.argv[2])
    stage = Stage("made", directory, {"size": size}, {}, resumable=True)
    if stage.up_to_date:
        return
    with stage:
        (stage.path / "first.txt").write_text(str(size))
        Path(str(directory) + ".started").touch()
        while not Path(str(directory) + ".go").exists():
            time.sleep(0.02)
        (stage.path / "second.txt").write_text(str(size))

run_main(main)
"""


def start(directory, size):
    command = [sys.executable, "-c", SLOW, str(directory), str(size)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("second_size", [1, 2])
def test_the_second_process_waits_naming_the_first(tmp_path, second_size):
    """The same run is then up to date, another one is refused; the two never mix."""
    first = start(tmp_path / "out", 1)
    wait_for(tmp_path / "out.started")
    second = start(tmp_path / "out", second_size)
    waits = second.stdout.readline()
    assert f"process {first.pid} on " in waits and "is writing it, waiting" in waits
    (tmp_path / "out.go").touch()
    answers = [process.communicate(timeout=60) for process in (first, second)]
    assert first.returncode == 0, answers
    if second_size == 1:
        assert second.returncode == 0 and answers[1][0].endswith("out: up to date\n")
    else:
        assert second.returncode == 2 and answers[1][1].count("\n") == 1 and "config.size = 1, this one has 2" in answers[1][1]
    assert [(tmp_path / "out" / name).read_text() for name in ("first.txt", "second.txt")] == ["1", "1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.go", "out.started"]


def test_a_dead_holder_does_not_block(tmp_path):
    process = start(tmp_path / "out", 1)
    wait_for(tmp_path / "out.started")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close(), process.stderr.close()
    assert (tmp_path / ".out.slmrec.lock").is_file()
    make(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.started"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_place_that_holds_no_files_is_not_waited_for(capsys):
    with pytest.raises(OSError) as error:
        make(Path("/proc/out"))
    assert in_one_line(error.value) == "/proc/.out.slmrec.lock: no such file or directory"
    assert "waiting" not in capsys.readouterr().err


def test_a_process_does_not_wait_for_itself(tmp_path):
    with Stage("made", tmp_path / "out", {}, {}), pytest.raises(InputError, match="this very process is writing it already"):
        Stage("made", tmp_path / "out", {}, {})


# -- colleagues, moves --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask, expected", [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_get_the_permissions_that_the_umask_asks_for(tmp_path, umask, expected):
    """safetensors writes its files for their owner alone."""
    before = os.umask(umask)
    try:
        with Stage("made", tmp_path / "out", {}, {}) as stage:
            for name in ("weights.safetensors", "checkpoint-2/weights.safetensors"):
                (stage.path / name).parent.mkdir(exist_ok=True)
                save_file({"a": np.zeros(2)}, stage.path / name)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert set(modes.values()) == {expected}, modes


def test_inputs_are_found_through_links_and_after_moves(tmp_path, monkeypatch):
    """runs -> another disk, data beside it: opened by either path, from anywhere, and after the run alone has moved."""
    (tmp_path / "disk" / "runs").mkdir(parents=True)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "runs").symlink_to(tmp_path / "disk" / "runs")
    monkeypatch.chdir(tmp_path / "tree")
    make("data")
    make("runs/model", inputs={"data": stage_input("data")})
    for directory in ("runs/model", tmp_path / "disk" / "runs" / "model"):
        assert input_directory(directory, "data").samefile("data")
    monkeypatch.chdir(tmp_path / "disk" / "runs" / "model")
    assert input_directory(".", "data").samefile(tmp_path / "tree" / "data")
    shutil.copytree(tmp_path / "tree", tmp_path / "copy")  # in which runs is a directory of its own
    os.rename(tmp_path / "disk", tmp_path / "unplugged")
    os.rename(tmp_path / "tree", tmp_path / "elsewhere")
    assert input_directory(tmp_path / "copy" / "runs" / "model", "data").samefile(tmp_path / "copy" / "data")
    os.rename(tmp_path / "elsewhere", tmp_path / "tree")
    os.rename(tmp_path / "unplugged" / "runs" / "model", tmp_path / "model")
    monkeypatch.chdir(tmp_path / "tree")
    assert input_directory(tmp_path / "model", "data").samefile("data")  # as it was named, from the same working directory
    make("data", size=2, overwrite=True)
    assert not input_directory(tmp_path / "model", "data").exists()  # other data in its place is not what is meant
