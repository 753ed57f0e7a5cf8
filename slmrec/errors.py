"""What can go wrong from outside, as one line for the user; what is wrong with the program stays a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import threading
from collections.abc import Iterator

LONGEST = 400  # characters of a message: two lines of a wide terminal


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that says what and where."""


# What the system says of a file, and what to do about it.
SYSTEM = {
    errno.ENOSPC: "no space is left on its disk; make room and start again",
    errno.EDQUOT: "your disk quota is used up; make room and start again",
    errno.EFBIG: "the file would be larger than this system allows (ulimit -f)",
    errno.EACCES: "no permission; check who owns it, or choose another place",
    errno.EPERM: "no permission; check who owns it, or choose another place",
    errno.EROFS: "its file system is read-only; choose another place",
    errno.ENOENT: "no such file or directory",
    errno.EEXIST: "is in the way, where a directory is needed; move it, or choose another place",
    errno.ENOTDIR: "a part of this path is a file, not a directory",
    errno.EISDIR: "a directory, not a file",
    errno.ENOTEMPTY: "was filled by somebody else meanwhile; start again",
    errno.ENAMETOOLONG: "the name is too long for its file system",
    errno.ELOOP: "symbolic links lead in a circle",
    errno.EBUSY: "in use by the system, as a mount point is; choose a directory below it",
    errno.EXDEV: "lies on two file systems; choose a directory below it",
    errno.EMFILE: "too many files are open (ulimit -n)",
    errno.EIO: "the disk reports an error",
    errno.ENOMEM: "not enough memory",
    errno.ENOSYS: "its file system cannot lock files; choose another place",
    errno.ENOLCK: "its file system cannot lock files; choose another place",
}
TORCH_CANNOT_WRITE = ("PytorchStreamWriter", "inline_container.cc", "iostream error")  # all that its writer says
NO_MEMORY = "not enough memory; smaller batches, a shorter --max_length or fewer --num_candidates need less"


def in_one_line(error: BaseException) -> str | None:
    """What to tell the user of an error that the world caused: files, disks, memory, bad input. None for a bug."""
    if isinstance(error, InputError):
        return _presentable(str(error))
    if isinstance(error, OSError):
        return _presentable(of_the_system(error))
    if _of_a_library(error):
        return _presentable(f"{getattr(error, 'place', 'a file')}: {_of_a_library(error)}")
    if isinstance(error, MemoryError) or _torch_lacks_memory(error):
        return NO_MEMORY
    return None


@contextlib.contextmanager
def naming(path: object) -> Iterator[None]:
    """Tells errors of the body that name no file which one they are about."""
    try:
        yield
    except Exception as error:
        place(error, path)
        raise


def of_the_system(error: OSError) -> str:
    """The file that an OSError is about and what is wrong with it."""
    reason = SYSTEM.get(error.errno or 0) or error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
    name = error.filename2 or error.filename
    return reason if name is None else f"{name.decode(errors='replace') if isinstance(name, bytes) else name}: {reason}"


def _of_a_library(error: BaseException) -> str | None:
    """What the system said to a library that has errors of its own: those in Rust quote its number, torch's writer hides it."""
    quoted = re.search(r"\(os error (\d+)\)", str(error))
    if quoted:
        return SYSTEM.get(int(quoted[1]), os.strerror(int(quoted[1])))
    if isinstance(error, RuntimeError) and any(words in str(error) for words in TORCH_CANNOT_WRITE):
        return "could not be written whole, most likely because its disk is full; make room and start again"
    return None


def place(error: BaseException, path: object) -> None:
    """Tell an error that names no file, as that of a full disk does, which one it is about."""
    if isinstance(error, OSError):
        error.filename = error.filename or str(path)
    else:
        error.place = getattr(error, "place", str(path))  # type: ignore[attr-defined]


def _torch_lacks_memory(error: BaseException) -> bool:
    """torch has a class for GPUs and none for the CPU; it is not imported here because not every command needs it."""
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def _presentable(message: str) -> str:
    """One line, no longer than it need be, without control characters (names and ids come from outside)."""
    line = " ".join("".join(character if character.isprintable() else " " for character in message).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def tell(error: BaseException) -> int | None:
    """Print the one line for an error that the world caused and return the exit status; None, and nothing printed, for a bug."""
    if isinstance(error, BrokenPipeError):  # nobody reads on, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        return 141
    if isinstance(error, KeyboardInterrupt):
        print("interrupted; the same command goes on from the last checkpoint, where its stage has any", file=sys.stderr)
        return 130
    line = in_one_line(error)
    if line is None:
        return None
    print(f"error: {line}", file=sys.stderr)
    return 2


def quiet_threads() -> None:
    """A thread in the background that meets a full disk, as TensorBoard's does, ends without a word: the main one tells it."""

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is None or in_one_line(arguments.exc_value) is None:
            threading.__excepthook__(arguments)

    threading.excepthook = hook
