"""Runs stages in several processes, forked after the libraries are loaded once: python forked_stages.py PROCESSES JSON [KILL]

The JSON lists [script, flags]; KILL is [process, number of training steps after which it is ended by SIGKILL]. Exits with the
first status that is not 0, once all processes have ended.
"""

import importlib
import json
import os
import signal
import socket
import sys

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


def work(rank, jobs, kill):
    if kill and kill[0] == rank:
        killed_after(kill[1])

    def main(_):
        for script, flags in jobs:
            importlib.import_module(script).main(flags)

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    run_main(main)


def start(rank, jobs, kill):
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work(rank, jobs, kill)
        status = 0
    except SystemExit as error:
        status = error.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main():
    number, jobs, *kill = (json.loads(text) for text in sys.argv[1:])
    torch.set_num_threads(1)
    for script in SCRIPTS:
        importlib.import_module(script)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(number)}
    running = {start(rank, jobs, kill[0] if kill else None): rank for rank in range(number)}
    first_status = 0
    while running:
        child, status = os.wait()
        del running[child]
        if status and not first_status:
            first_status = os.waitstatus_to_exitcode(status)
            for other in running:  # as torchrun does
                os.kill(other, signal.SIGTERM)
    sys.exit(abs(first_status))


if __name__ == "__main__":
    main()
