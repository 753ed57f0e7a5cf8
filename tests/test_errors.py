"""What a user sees of errors: one line for what files, disks and memory cause, a traceback for a bug."""

import errno
import threading

import pytest
import torch

from slmrec.errors import LONGEST, InputError, in_one_line, naming, quiet_threads
from slmrec.runtime import run_main


def answer(capsys, error):
    """(exit status, stderr) of an entry point that raises `error`."""

    def main(_):
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_main(main)
    return stopped.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    "error, line",
    [
        (InputError("data.csv, row 3: no rating"), "error: data.csv, row 3: no rating"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), "error: out: no permission; check who owns it, or choose"),
        (FileNotFoundError(errno.ENOENT, "No such file", b"in.csv"), "error: in.csv: no such file or directory"),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"),
            "error: a/b: a part of this path is a file, not a directory",
        ),
        (FileExistsError(errno.EEXIST, "File exists", "a"), "error: a: is in the way, where a directory is needed; move it, or"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), "error: a: a directory, not a file"),
        (OSError(errno.ENOSPC, "No space", "out"), "error: out: no space is left on its disk; make room and start again"),
        (OSError(errno.EROFS, "Read-only", "out"), "error: out: its file system is read-only; choose another place"),
        (OSError(errno.EFBIG, "File too large", "out"), "error: out: the file would be larger than this system allows"),
        (OSError(errno.ENAMETOOLONG, "Name too long", "o" * 999), "error: ooo"),
        (OSError(errno.EXDEV, "Cross-device", "a", None, "b"), "error: b: lies on two file systems"),
        (OSError(errno.ENOSPC, "No space"), "error: no space is left on its disk"),
        (OSError("some library's own words\nand more of them"), "error: some library's own words"),
        (OSError(), "error: OSError"),
        (MemoryError(), "error: not enough memory; smaller batches"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "error: not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "error: not enough memory"),
    ],
)
def test_what_the_world_causes_is_one_line(capsys, error, line):
    status, said = answer(capsys, error)
    assert status == 2 and said.startswith(line) and said.count("\n") == 1 and len(said) <= LONGEST + 10


def test_a_message_is_short_and_without_control_characters(capsys):
    status, said = answer(capsys, InputError("file:\x1b[31m\r\nred\x07 " + "x" * 5000))
    assert status == 2 and said.count("\n") == 1 and len(said) < LONGEST + 10
    assert said.startswith("error: file: [31m red x") and said.rstrip("\n").isprintable()


@pytest.mark.parametrize("bug", [ValueError("x"), KeyError("x"), RuntimeError("x"), AssertionError(), ZeroDivisionError()])
def test_a_bug_stays_a_traceback(bug):
    def main(_):
        raise bug

    with pytest.raises(type(bug)):
        run_main(main)
    assert in_one_line(bug) is None


def test_an_interrupt_says_how_to_go_on(capsys):
    status, said = answer(capsys, KeyboardInterrupt())
    assert status == 130 and said.count("\n") == 1 and "the same command goes on" in said


def test_a_nameless_error_gets_the_name_of_what_was_written():
    with pytest.raises(OSError) as error, naming("out/states.npy"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert in_one_line(error.value).startswith("out/states.npy: no space is left")
    with pytest.raises(OSError) as error, naming("out"):
        raise OSError(errno.EACCES, "Permission denied", "other")
    assert in_one_line(error.value).startswith("other: ")


class SafetensorLike(Exception):
    """Libraries in Rust have errors of their own."""


@pytest.mark.parametrize(
    "error, said",
    [
        (SafetensorLike("I/O error: No space left on device (os error 28)"), "no space is left on its disk"),
        (SafetensorLike("Permission denied (os error 13)"), "no permission"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), "could not be written whole"),
        (RuntimeError("basic_ios::clear: iostream error"), "could not be written whole"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "could not be written whole"),
    ],
)
def test_what_the_system_says_to_libraries_is_one_line_too(capsys, error, said):
    with pytest.raises(type(error)), naming("out/weights"):
        raise error
    assert in_one_line(error).startswith(f"out/weights: {said}")


@pytest.mark.parametrize("error, told", [(OSError(errno.ENOSPC, "No space left on device"), False), (KeyError("a bug"), True)])
def test_a_thread_in_the_background_keeps_quiet_about_the_world_alone(capsys, monkeypatch, error, told):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    quiet_threads()

    def fail():
        raise error

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert ("Traceback" in capsys.readouterr().err) == told
