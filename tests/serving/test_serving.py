"""The server: answers equal the library's, bad requests get a reason, limits hold, requests are batched."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import slmrec
import train_sr_trad
from slmrec.errors import InputError

pytest.importorskip("fastapi", reason="pip install -e '.[serve]'")
from fastapi.testclient import TestClient

from slmrec.serving import app as serving
from slmrec.serving.batcher import Batcher

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def directory(tmp_path_factory, tiny_data):
    output = tmp_path_factory.mktemp("served") / "sasrec"
    flags = ["--max_length", "6", "--num_epochs", "1", "--batch_size", "16", "--device", "cpu"]
    train_sr_trad.main(["--data", str(tiny_data), "--output_dir", str(output), *flags])
    return output


@pytest.fixture(scope="module")
def model(directory):
    return slmrec.load(directory, "cpu")


@pytest.fixture
def client(model):
    with TestClient(serving.create_app(model, "sasrec"), raise_server_exceptions=False) as client:
        yield client


def test_answers_are_the_librarys(client, model):
    answer = client.post("/recommend", json={"history": ["i1", "gone", "i2"], "k": 3, "exclude": ["i9"]})
    expected = model.recommend(["i1", "i2"], k=3, exclude=["i9"])
    assert answer.status_code == 200
    assert [one["item"] for one in answer.json()["items"]] == [one.item for one in expected]
    assert answer.json()["unknown"] == ["gone"] and not answer.json()["by_popularity"]
    assert client.post("/recommend", json={"history": []}).json()["by_popularity"]


@pytest.mark.parametrize(
    "body, reason",
    [
        ({}, "history: Field required"),
        ({"history": ["i1"], "k": 0}, "k: "),
        ({"history": ["i1"], "k": 101}, "k: "),
        ({"history": ["i1"], "k": "3"}, "k: "),
        ({"history": "i1"}, "history: "),
        ({"history": [1]}, "history.0: "),
        ({"history": ["i1"] * 1001}, "history: "),
        ({"history": ["x" * 201]}, "history.0: "),
        ({"history": ["i1"], "what": 1}, "what: "),
        ({"history": ["i1", "gone"], "unknown": "refuse"}, "the history: the model does not know 'gone'"),
    ],
)
def test_bad_requests_get_400_and_a_reason(client, body, reason):
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 400 and answer.json()["error"].startswith(reason)


def test_what_is_no_json_too_large_or_nowhere(client):
    assert client.post("/recommend", content=b"{").status_code == 400
    large = client.post("/recommend", content=b"x" * (serving.MAX_BODY + 1))
    assert large.status_code == 413 and "larger than" in large.json()["error"]
    for sent, kind, reason in (
        (b'{"history": [', "application/json", "the body is not JSON, at character 13: "),
        (b"[" * 100_000, "application/json", "There was an error parsing the body"),
        (b'{"history": []}', "text/plain", "the body must be a JSON object, sent with content-type: application/json"),
        (b"", "application/json", "the body must be a JSON object"),
    ):
        answer = client.post("/recommend", content=sent, headers={"content-type": kind})
        assert answer.status_code == 400 and answer.json()["error"].startswith(reason)
    assert client.get("/items", params={"query": "a" * 201}).json()["error"].startswith("query: String should have at most")
    unannounced = client.post("/recommend", content=(b"x" * 100_000 for _ in range(10)))
    assert unannounced.status_code == 413
    assert client.get("/nothing").json() == {"error": "Not Found"}
    assert client.get("/items", params={"limit": 99}).status_code == 400


def test_a_fault_of_ours_shows_no_stack_trace(model, monkeypatch, caplog):
    def broken(queries):
        raise RuntimeError("secret")

    monkeypatch.setattr(model, "recommend_many", broken)
    with TestClient(serving.create_app(model, "sasrec"), raise_server_exceptions=False) as client:
        answer = client.post("/recommend", json={"history": ["i1"]})
        assert answer.status_code == 500 and answer.json() == {"error": "internal error"}
        assert client.get("/health").status_code == 200
    assert "secret" in caplog.text


def test_health_metrics_items_and_the_example_of_the_interface(client, model):
    assert client.get("/health").json() == {"status": "ok", "model": "sasrec", "items": 40, "reads": 6}
    schema = client.get("/openapi.json").json()
    examples = schema["paths"]["/recommend"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    answer = client.post("/recommend", json=examples["two items"]["value"])
    assert answer.status_code == 200 and answer.json()["unknown"] == [] and len(answer.json()["items"]) == 5
    found = client.get("/items", params={"query": "number 12"}).json()
    assert found == [{"item": "i12", "title": "item number 12"}]
    metrics = client.get("/metrics").text
    assert 'slmrec_requests_total{path="/recommend",status="200"} 1.0' in metrics and "slmrec_batch_size_count 1.0" in metrics


def test_requests_that_arrive_together_are_answered_together(model):
    sizes = []

    async def ask():
        batcher = Batcher(serving.answers_of(model), 0.05, 4, sizes.append)
        batcher.start()
        queries = [serving.ModelQuery([f"i{n}"], k=2) for n in (1, 2, 3, 4, 5)] + [serving.ModelQuery(["gone"], unknown="refuse")]
        answers = await asyncio.gather(*map(batcher.ask, queries))
        await batcher.stop()
        return answers

    answers = asyncio.run(ask())
    assert sizes == [4, 2]
    for n, answer in zip((1, 2, 3, 4, 5), answers):
        assert [one.item for one in answer] == [one.item for one in model.recommend([f"i{n}"], k=2)]
    assert isinstance(answers[5], InputError)


# -- the real process, and the page in a real browser --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(directory):
    """A running serve.py; afterwards it must end cleanly on SIGTERM."""
    command = [sys.executable, str(ROOT / "serve.py"), "--model", str(directory), "--port", "0", "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment) as process:
        for line in process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        yield found.group()
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(20) in (0, -signal.SIGTERM) and "Traceback" not in rest, rest


def test_the_process_answers(address):
    with urllib.request.urlopen(f"{address}/health", timeout=10) as answer:
        assert b'"status":"ok"' in answer.read()


def test_the_page_in_a_browser(address, model, tmp_path):
    chromium = shutil.which("chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not chromium:
        pytest.skip("no chromium on this machine")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page()
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        page.get_by_text("the most popular items").wait_for()
        page.fill("#search", "number 12")
        page.click("#found button")
        page.wait_for_function("document.querySelectorAll('#history .id').length === 1")
        page.wait_for_function("!document.querySelector('#note').textContent")
        shown = page.locator("#recommended .id").all_text_contents()
        page.screenshot(path=tmp_path / "page.png")
        browser.close()
    assert shown == [one.item for one in model.recommend(["i12"], k=10)] and not problems
