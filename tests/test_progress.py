"""The line of a stage: on a terminal, in a file, inside a pipeline, in other processes of the same run."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import types

import pytest

from slmrec import progress
from slmrec.progress import Counter, finish, say, track


@pytest.fixture(autouse=True)
def a_new_stage(monkeypatch):
    monkeypatch.delenv(progress.STAGE, raising=False)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0.0)
    progress.begin("runs/demo/sasrec")


@pytest.fixture
def terminal(monkeypatch):
    """terminal() makes stderr a terminal of 100 columns; calling its answer gives the lines sent, each redrawing as one."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))

    def lines():
        sent = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += os.read(ours, 1 << 16)
        return re.split(r"[\r\n]+", sent.decode())

    with open(theirs, "w", encoding="utf-8") as stream:
        yield lambda: monkeypatch.setattr(sys, "stderr", stream) or lines  # in the test: pytest sets stderr as it begins
    os.close(ours)


def test_a_terminal_shows_count_bar_time_left_and_note_and_is_left_clean(terminal):
    lines_sent = terminal()
    with Counter("training", 4, unit="steps") as counter:
        counter.update(2)
        counter.show("validation MRR 0.301 at step 2")
    lines = lines_sent()
    assert any(
        re.match(r"runs/demo/sasrec: 2/4 steps \|█+ +\| \d\d:\d\d < \d\d:\d\d  validation MRR 0.301", line) for line in lines
    )
    assert not lines[-1].strip()


def test_a_narrow_terminal_gets_one_line(terminal):
    lines_sent = terminal()
    with Counter("training", 4) as counter:
        counter.show("x" * 200)
    assert max(map(len, lines_sent())) <= 100


def test_a_counter_inside_another_is_a_share_on_the_same_line(terminal):
    lines_sent = terminal()
    with Counter("training", 4, unit="steps") as counter:
        counter.update()
        for _ in track(range(4), "ranking valid", 4):
            pass
    assert any(re.match(r"runs/demo/sasrec: 1/4 steps .*  ranking valid 75%", line) for line in lines_sent())


def test_other_lines_stand_above_the_bar(terminal):
    lines_sent = terminal()
    with Counter("training", 4) as counter:
        counter.update()
        say("the catalogue is small", sys.stderr)
    assert "the catalogue is small" in [line.strip() for line in lines_sent()]


def test_elsewhere_only_plain_lines(capsys, monkeypatch):
    with Counter("training", 3, unit="steps") as counter:
        counter.update()
        assert capsys.readouterr().err == ""  # it runs since a moment
        monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
        counter.update()
    finish("best validation MRR 0.319 at step 2", "3/3 steps")
    printed = capsys.readouterr()
    assert re.fullmatch(r"runs/demo/sasrec: 2/3 steps  00:00 < 00:00\n", printed.err)
    assert printed.out == "runs/demo/sasrec: 3/3 steps  best validation MRR 0.319 at step 2\n"


def test_a_pipeline_numbers_and_names_its_stages(capsys, monkeypatch):
    monkeypatch.setenv(progress.STAGE, "4/9 teacher e4srec_8")
    monkeypatch.setitem(progress._stage, "started", progress._stage["started"] - 29)
    finish("best validation MRR 0.319 at step 100", "110/110 steps")
    assert re.fullmatch(r"\[4/9\] teacher e4srec_8 +110/110 steps  00:29  best .* at step 100\n", capsys.readouterr().out)
    assert progress.in_pipeline()


@pytest.mark.parametrize("first", ["quiet_libraries()", "import transformers"])
def test_transformers_is_quiet_whenever_it_is_imported(first):
    code = f"""
from slmrec.runtime import quiet_libraries
{first}
quiet_libraries()
from transformers.utils import logging
assert not logging.is_progress_bar_enabled() and logging.get_verbosity() == logging.ERROR
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_resumed_run_counts_its_own_steps_for_the_time_left(terminal, monkeypatch):
    lines_sent = terminal()
    now = [0.0]
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    with Counter("training", 100, initial=80) as counter:
        now[0] = 10.0
        counter.update(10)
    assert any("90/100" in line and "00:10 < 00:10" in line for line in lines_sent())


def test_bytes_are_written_for_people(terminal):
    lines_sent = terminal()
    with Counter("reviews.json.gz", 5_000_000, unit="B") as counter:
        counter.update(2_500_000)
    assert any("2.50MB/5.00MB" in line or "2.50M/5.00M" in line for line in lines_sent())


def test_only_the_first_process_of_a_run_speaks(capsys, terminal, monkeypatch):
    lines_sent = terminal()
    monkeypatch.setenv("RANK", "1")
    with Counter("training", 3) as counter:
        counter.update()
        counter.show("note")
    say("something")
    finish("result")
    assert capsys.readouterr().out == "" and counter.done == 1
    sys.stderr.write("end\n")
    sys.stderr.flush()
    assert lines_sent() == ["end", ""]
