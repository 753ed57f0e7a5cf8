"""Runs stages in several processes, forked after the libraries are loaded once: python forked_stages.py PROCESSES RUNS

RUNS is a JSON list of runs, one after the other: "jobs" lists [script, flags], "kill" is null or [process, number of training
steps after which it is ended by SIGKILL], "environment" is added to that of its processes, "directory" is where it writes. Prints
a JSON list: of each run the first "status" that is not 0, once all its processes have ended, what they said ("stdout", "stderr"),
and the names then in its directory and one level below ("left").
"""

import atexit
import importlib
import json
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

import torch

from slmrec.runtime import run_main
from slmrec.training.trainer import RecommenderTrainer

SCRIPTS = ("finetune", "distill", "train_openp5", "train_sr_trad", "evaluate")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def killed_after(steps):
    original, done = RecommenderTrainer.training_step, []

    def counted(self, *arguments, **options):
        done.append(1)
        if len(done) > steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *arguments, **options)

    RecommenderTrainer.training_step = counted


def work(rank, jobs, kill, environment, directory):
    if kill and kill[0] == rank:
        killed_after(kill[1])

    def main(_):
        for script, flags in jobs:
            importlib.import_module(script).main(flags)

    os.environ |= environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    run_main(main)


def start(rank, run, said):
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        atexit._clear()  # what the parent takes away at its end
        work(rank, **run)
        status = 0
    except SystemExit as error:
        status = error.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ended(number, run):
    """The first status that is not 0, and what was said, of a run in `number` processes."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(number)}
    with tempfile.TemporaryDirectory() as directory:
        running = {start(rank, run, Path(directory)): rank for rank in range(number)}
        first_status = 0
        while running:
            child, status = os.wait()
            del running[child]
            if status and not first_status:
                first_status = os.waitstatus_to_exitcode(status)
                for other in running:  # as torchrun does
                    os.kill(other, signal.SIGTERM)
        said = {name: (Path(directory) / name).read_text(encoding="utf-8") for name in ("stdout", "stderr")}
    place = Path(run["directory"])
    left = [str(path.relative_to(place)) for pattern in ("*", "*/*") for path in place.glob(pattern)]
    return {"status": abs(first_status), "left": left} | said


def main():
    number, runs = (json.loads(text) for text in sys.argv[1:])
    torch.set_num_threads(1)
    for script in SCRIPTS:
        importlib.import_module(script)
    print(json.dumps([ended(number, run) for run in runs]))


if __name__ == "__main__":
    main()
