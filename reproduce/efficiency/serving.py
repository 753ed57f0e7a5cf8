"""Latency and throughput of trained models behind HTTP, on loopback, with bounded load.

    python -m reproduce.efficiency.serving --models runs/demo/e4srec_8 runs/demo/slmrec_4_8 runs/demo/sasrec \
        --json results/efficiency/serving.json     (pip install -e '.[serve]' httpx)

Every model is served by its own `serve.py`; the servers take turns, so that a busy machine slows all of them alike. At each load
a fixed number of clients ask one after another, each for ten items after a history of the data.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from reproduce.efficiency.environment import environment
from slmrec.artifacts import stage_input, write_json
from slmrec.catalogue import load_catalogue
from slmrec.checks import at_least
from slmrec.command_line import parse_arguments
from slmrec.data.dataset import load_dataset
from slmrec.errors import InputError
from slmrec.open_model import MODEL_STAGES, data_directory
from slmrec.runtime import run_main

ROOT = Path(__file__).resolve().parents[2]
START = 120  # seconds that a server may take to answer


@dataclass
class ServingArguments:
    """Which models, and the load."""

    models: list[str] = field(metadata={"help": "directories of trained models on the same data"})
    clients: list[int] = field(default_factory=lambda: [1, 16], metadata={"help": "that ask at the same time"})
    requests: int = field(default=200, metadata={"help": "of each turn, all clients together"})
    turns: int = field(default=3, metadata={"help": "of every model at every load"})
    json: str | None = field(default=None, metadata={"help": "file of the result"})

    def __post_init__(self):
        at_least("requests", self.requests, 1)
        at_least("turns", self.turns, 1)


@contextmanager
def server(model: str) -> Iterator[str]:
    """A running `serve.py`; gives its address."""
    words = [sys.executable, str(ROOT / "serve.py"), "--model", model, "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"http://[\d.]+:\d+", line):
                break
        else:
            raise InputError(f"{model}: serve.py ended: {''.join(said[-3:]).strip()}")
        yield found.group()
    finally:
        process.terminate()
        process.wait(timeout=START)


async def ask(address: str, histories: list[list[str]], clients: int) -> tuple[list[float], float]:
    """Seconds of each request, and of all of them; `clients` share the histories."""
    import httpx

    waits: list[float] = []
    left = iter(histories)

    async def client(http: httpx.AsyncClient) -> None:
        for history in left:
            started = time.perf_counter()
            answer = await http.post(f"{address}/recommend", json={"history": history, "k": 10})
            waits.append(time.perf_counter() - started)
            answer.raise_for_status()

    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=clients)) as http:
        started = time.perf_counter()
        await asyncio.gather(*(client(http) for _ in range(clients)))
        return waits, time.perf_counter() - started


def wait_until_ready(address: str) -> None:
    import httpx

    for _ in range(START):
        try:
            if httpx.get(f"{address}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(1)
    raise InputError(f"{address}: does not answer")


def measure(args: ServingArguments) -> list[dict]:
    """An entry for each model and load; ratios are to the first model, turn by turn."""
    dataset, ids = load_dataset(data_directory(args.models[0])), load_catalogue(args.models[0]).source_ids
    users = np.random.default_rng(0).integers(0, dataset.num_users, args.requests)
    histories = [[ids[item - 1] for item in dataset.sequence(user)] for user in users]
    with ExitStack() as running:
        addresses = {model: running.enter_context(server(model)) for model in args.models}
        for address in addresses.values():
            wait_until_ready(address)
            asyncio.run(ask(address, histories[:20], 4))  # libraries load what they need at the first request
        taken: dict[tuple[str, int], list] = {}
        for turn in range(args.turns):
            for clients in args.clients:
                for model in args.models if turn % 2 == 0 else args.models[::-1]:
                    taken.setdefault((model, clients), []).append(asyncio.run(ask(addresses[model], histories, clients)))
    return [
        {
            "model": Path(model).name,
            "clients": clients,
            "p50_ms": round(1000 * float(np.quantile([wait for waits, _ in turns for wait in waits], 0.5)), 2),
            "p99_ms": round(1000 * float(np.quantile([wait for waits, _ in turns for wait in waits], 0.99)), 2),
            "requests_per_second": round(statistics.median(args.requests / seconds for _, seconds in turns), 1),
            "throughput_over_first": statistics.median(
                first / seconds for (_, first), (_, seconds) in zip(taken[args.models[0], clients], turns, strict=True)
            ),
        }
        for (model, clients), turns in taken.items()
    ]


def main(argv: list[str] | None = None) -> None:
    (args,) = parse_arguments(ServingArguments, argv, description=__doc__)
    result = {"loads": measure(args), "requests": args.requests, "turns": args.turns}
    result["models"] = {Path(model).name: stage_input(model, MODEL_STAGES)["digest"] for model in args.models}
    result["environment"] = environment("reproduce.efficiency.serving", argv, torch.device("cpu"))
    for one in result["loads"]:
        waits = f"p50 {one['p50_ms']:.1f} ms, p99 {one['p99_ms']:.1f} ms"
        print(f"{one['model']:<20}{one['clients']:>3} clients: {waits}, {one['requests_per_second']:.0f} requests/s")
    if args.json:
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(args.json), result)


if __name__ == "__main__":
    run_main(main)
