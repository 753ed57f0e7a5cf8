"""A process that dies at its n-th file event, without a process: from that event on nothing reaches the disk any more.

`sys.addaudithook` hears of every file that Python opens for writing, renames, removes, makes or changes. At one of them `Killed`
is raised, and at each one after it, so that no clean-up gets through; with `cut`, the file that was opened last is left half.
"""

import contextlib
import gc
import os
import sys

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "os.link", "os.symlink"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Killed(BaseException):
    """Stands for SIGKILL."""


class Watch:
    """Counts file events below `root`, and kills at number `at` (from 1; None only counts)."""

    def __init__(self, root, at=None, cut=False):
        self.root, self.at, self.cut = os.path.realpath(root), at, cut
        self.events, self.last, self.dead = [], None, False

    def hear(self, event, arguments):
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, (str, bytes, os.PathLike)) or not flags & WRITING:
                return
            arguments = (path,)
        elif event not in CHANGES:
            return
        path = os.path.abspath(
            os.path.join(directory_of(arguments[-1] if len(arguments) > 1 else None), os.fsdecode(arguments[0]))
        )
        if not os.path.realpath(path).startswith(self.root):
            return
        if not self.dead:
            self.events.append((event, os.path.relpath(path, self.root)))
            if len(self.events) == self.at:
                self.die()
            if event == "open":
                self.last = path
        if self.dead:
            raise Killed(self.events[-1])

    def die(self):
        self.dead = True
        if self.cut and self.last and os.path.isfile(self.last):
            size = os.path.getsize(self.last)
            os.truncate(self.last, size // 2)


def directory_of(descriptor):
    """Where a path that is relative to an open directory starts (shutil.rmtree removes that way)."""
    known = isinstance(descriptor, int) and descriptor > 2 and os.path.exists(f"/proc/self/fd/{descriptor}")
    return os.readlink(f"/proc/self/fd/{descriptor}") if known else os.curdir


WATCHES = []


def _hook(event, arguments):
    for watch in WATCHES:
        if event == "os.truncate" and watch.dead:
            continue
        watch.hear(event, arguments)


sys.addaudithook(_hook)  # for good: Python has no way to take it off again


@contextlib.contextmanager
def watching(root, at=None, cut=False):
    """Watch the body; a kill in it ends here, with every lock let go, as the system does for a dead process."""
    watch = Watch(root, at, cut)
    WATCHES.append(watch)
    gc.freeze()  # so that the collection below only looks at what the body made
    try:
        yield watch
    except Killed:
        pass
    finally:
        WATCHES.remove(watch)
        gc.collect()
        gc.unfreeze()
