"""Latency and throughput over HTTP, against small servers of known delay, and of a server that does not start."""

import asyncio
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import train_sr_trad
from reproduce.efficiency import serving
from slmrec.catalogue import load_catalogue
from slmrec.data.dataset import load_dataset
from slmrec.errors import InputError

DELAY = {"fast": 0.002, "slow": 0.02}


@contextmanager
def slow_server(delay):
    """Answers after `delay` seconds and notes what was asked, and how many at the same time."""
    asked, busy, most, lock = [], [0], [0], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.answer()

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                asked.append((self.path, body))
                busy[0] += 1
                most[0] = max(most[0], busy[0])
            time.sleep(delay)
            with lock:
                busy[0] -= 1
            self.answer()

        def answer(self):
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", asked, most
        running.shutdown()
        thread.join()


def test_every_history_is_asked_once_by_at_most_so_many_clients():
    histories = [[f"i{number}"] for number in range(12)]
    with slow_server(0.01) as (address, asked, most):
        waits, seconds = asyncio.run(serving.ask(address, histories, 3))
    assert sorted(body["history"] for _, body in asked) == sorted(histories) and {path for path, _ in asked} == {"/recommend"}
    assert {body["k"] for _, body in asked} == {10} and 1 < most[0] <= 3
    assert len(waits) == 12 and min(waits) >= 0.01 and max(waits) <= seconds


def test_the_slower_model_has_the_longer_waits(tiny_data, tmp_path, monkeypatch):
    model = tmp_path / "fast"
    train_sr_trad.main(["--model", "popularity", "--data", str(tiny_data), "--output_dir", str(model)])
    places = {str(model): "fast", str(tmp_path / "slow"): "slow"}
    asked = {}

    @contextmanager
    def served(directory):
        with slow_server(DELAY[places[directory]]) as (address, requests, _):
            asked[places[directory]] = requests
            yield address

    monkeypatch.setattr(serving, "server", served)
    loads = serving.measure(serving.ServingArguments(list(places), clients=[1, 2], requests=6, turns=2))
    found = {(one["model"], one["clients"]): one for one in loads}
    assert found.keys() == {("fast", 1), ("fast", 2), ("slow", 1), ("slow", 2)}
    slow, fast = found["slow", 1], found["fast", 1]
    assert 20 <= slow["p50_ms"] <= slow["p99_ms"] and slow["requests_per_second"] <= 50
    assert fast["throughput_over_first"] == 1.0 and slow["throughput_over_first"] < 1
    dataset, ids = load_dataset(tiny_data), load_catalogue(model).source_ids
    known = [[ids[item - 1] for item in dataset.sequence(user)] for user in range(dataset.num_users)]
    assert len(asked["slow"]) == len(asked["fast"]) > 24 and all(body["history"] in known for _, body in asked["slow"])


def test_a_server_that_does_not_start_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"serve.py ended: error: .*gone"), serving.server(str(tmp_path / "gone")):
        pass
