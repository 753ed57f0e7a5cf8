"""Which stages are started: those whose command, input, output or code is not what it was, and what depends on them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slmrec.artifacts import Stage, read_json, stage_input
from slmrec.errors import InputError
from slmrec.pipeline import run
from slmrec.pipeline.run import Record, pending_steps, run_stages
from slmrec.pipeline.steps import Step

ROOT = Path(__file__).parents[2]


def step(name, **flags):
    """A command `python NAME.py --output_dir run/NAME ...`, of no stage that the checks know."""
    words = [text for flag, value in flags.items() for text in (f"--{flag}", str(value))]
    return Step(name, ("python", f"{name}.py", "--output_dir", f"run/{name}", *words))


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Runs steps without starting anything: their outputs are written here. Gives the names of those that were started."""
    monkeypatch.chdir(tmp_path)
    started = []

    def make(words):
        words = words[:-1] if words[-1] == "--overwrite_output_dir" else words
        name = Path(words[1]).stem
        started.append(name)
        if "--output_dir" in words:
            output = words[words.index("--output_dir") + 1]
            inputs = {word: stage_input(word) for word in words if word != output and Path(word, "manifest.json").is_file()}
            stage = Stage(name, output, {"words": words[2:]}, inputs, overwrite=True)
            if stage.up_to_date:
                return 0
            with stage:
                (stage.path / "file").write_text(" ".join(words))
        return 0

    monkeypatch.setattr(run, "run_command", make)

    def go(*steps):
        started.clear()
        assert run_stages(list(steps), "run") == 0
        return list(started)

    return go


def chain(first=1, second=1, third=1):
    return (
        step("a", value=first),
        step("b", source="run/a", value=second),
        step("c", value=third),
        step("d", source="run/b", other="run/c"),
    )


def test_a_second_start_starts_nothing(made, capsys):
    assert made(*chain()) == ["a", "b", "c", "d"]
    capsys.readouterr()
    assert made(*chain()) == []
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [[f"[{number}/4]", name, "up", "to", "date"] for number, name in enumerate("abcd", 1)]


@pytest.mark.parametrize(
    "changes, started",
    [
        ({"first": 2}, ["a", "b", "d"]),
        ({"second": 2}, ["b", "d"]),
        ({"third": 2}, ["c", "d"]),
        ({"first": 2, "third": 2}, [*"abcd"]),
    ],
)
def test_a_change_redoes_itself_and_what_depends_on_it(made, changes, started):
    made(*chain())
    assert made(*chain(**changes)) == started
    assert made(*chain(**changes)) == []
    assert made(*chain()) == started  # and back


def test_lost_or_changed_files_are_noticed(made):
    made(*chain())
    Path("run/c/file").unlink()
    assert made(*chain()) == ["c"]  # which writes the same again, so that d has nothing new
    Path("run/b/file").write_text("of somebody else")
    assert made(*chain()) == ["b"]


def test_a_stage_that_rightly_wrote_nothing_is_not_asked_again(made, monkeypatch):
    steps = (step("a"), step("b", source="run/a"))
    monkeypatch.setattr(run, "run_command", lambda words: 0)
    assert run_stages(list(steps), "run") == 0 and not Path("run/a").exists()
    assert not pending_steps(list(steps), Record(Path("run")))


def test_a_lost_directory_is_made_again(made):
    made(*chain())
    shutil.rmtree("run/c")
    assert made(*chain()) == ["c"]


def test_a_plain_input_file_counts_by_its_size_and_time(made):
    Path("reviews.json").write_text("1")
    steps = (step("a", input="reviews.json"), step("b", source="run/a"))
    made(*steps)
    assert made(*steps) == []
    Path("reviews.json").write_text("12")
    assert made(*steps) == ["a"]


def test_other_code_asks_the_stages_themselves(made, monkeypatch):
    made(*chain())
    monkeypatch.setattr(run, "code_digest", lambda: "another")
    assert made(*chain()) == ["a", "b", "c", "d"]
    assert made(*chain()) == []


def test_an_inner_stage_is_lost_with_the_directory_around_it(made):
    inner = Step("e", ("python", "e.py", "--output_dir", "run/a/evaluation", "--model", "run/a"))
    assert made(step("a"), inner) == ["a", "e"]
    assert made(step("a"), inner) == []
    assert made(step("a", value=2), inner) == ["a", "e"]


def test_preparing_runs_with_what_it_prepares_and_the_last_one_always(made):
    download, table = Step("download", ("bash", "download.sh")), Step("table", ("python", "table.py"))
    assert made(download, step("a"), table) == ["download", "a", "table"]
    assert made(download, step("a"), table) == ["table"]


def test_pending_steps_are_known_before_anything_runs(made):
    made(*chain())
    names = [pending.name for pending in pending_steps(list(chain(second=2)), Record(Path("run")))]
    assert names == ["b", "d"]


def test_a_dry_run_prints_commands_and_writes_nothing(made, capsys):
    assert run_stages(list(chain()), "run", dry_run=True) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "python b.py --output_dir run/b --source run/a --value 1" and not Path("run").exists()
    made(*chain())
    capsys.readouterr()
    run_stages(list(chain(second=2)), "run", dry_run=True)
    assert ["up to date" in line for line in capsys.readouterr().out.splitlines()] == [True, False, True, False]


def test_a_damaged_record_is_one_line(made):
    made(step("a"))
    Path("run/up_to_date.json").write_text("{")
    with pytest.raises(InputError, match=r"run/up_to_date.json: not valid JSON"):
        run_stages([step("a")], "run")


# -- real processes --------------------------------------------------------------------------------------------------------------


def command(*words, cwd, name="x"):
    start = [sys.executable, "-m", "slmrec.pipeline.run", "run", "", str(len(words) + 1), name, *words]
    return subprocess.Popen(
        start, cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_a_stage_that_fails_ends_the_run_with_its_status(tmp_path):
    (tmp_path / "x.py").write_text("import os, sys; print(os.environ['SLMREC_STAGE'], *sys.argv[1:]); sys.exit(7)")
    process = command("python", "x.py", "--x", "a b", "--output_dir", "run/x", cwd=tmp_path, name="a name")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 7
    assert out.decode().strip() == "1/1 a name --x a b --output_dir run/x --overwrite_output_dir"
    assert not (tmp_path / "run/up_to_date.json").exists()


def test_what_stops_the_runner_stops_the_stage_which_may_clean_up(tmp_path):
    lines = ["import signal, sys, time", "def end(*_):", "    open('cleaned', 'w')", "    sys.exit(3)"]
    lines += ["signal.signal(signal.SIGTERM, end)", "open('up', 'w')", "time.sleep(60)"]
    (tmp_path / "x.py").write_text("\n".join(lines))
    process = command("python", "x.py", cwd=tmp_path)
    while not (tmp_path / "up").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 3 and (tmp_path / "cleaned").exists()


def test_the_record_is_json(made):
    made(step("a"))
    assert read_json(Path("run/up_to_date.json")).keys() == {"run/a"}


def test_a_start_with_nothing_to_do_loads_no_slow_library():
    slow = "{'torch', 'transformers', 'scipy', 'polars'}"
    code = f"import slmrec.pipeline.run, reproduce.comparison, sys; print({slow} & set(sys.modules))"
    outcome = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "set()"
