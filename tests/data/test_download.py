"""datasets/download.sh against a local server that, unlike most, cannot resume."""

import functools
import gzip
import hashlib
import http.server
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

DATASETS = Path(__file__).parents[2] / "datasets"
SUMS = "SHA256SUMS"
REVIEWS, META = "CDs_and_Vinyl_5.json.gz", "meta_CDs_and_Vinyl.json.gz"

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder; answers "bytes=N-" where the server allows it, and notes what was asked."""

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.requests.append((Path(self.path).name, asked))
        if not asked or not self.server.resumable:
            return super().do_GET()
        content = Path(self.translate_path(self.path)).read_bytes()
        first = int(asked.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        self.wfile.write(content[first:])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    for path in (folder / "categoryFilesSmall" / REVIEWS, folder / "metaFiles2" / META):
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress(path.name.encode() * 1000, compresslevel=0))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(RangeHandler, directory=str(folder)))
    server.folder, server.requests, server.resumable = folder, [], True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def download(server, tmp_path):
    """Run a copy of the script, so that it writes below the test's folder; returns (process, raw folder)."""
    (tmp_path / "datasets").mkdir()
    for name in ("download.sh", "names.sh"):
        shutil.copy(DATASETS / name, tmp_path / "datasets")

    def run(*arguments, url=f"http://127.0.0.1:{server.server_port}"):
        environment = {"SLMREC_DATA_URL": url, "PATH": "/usr/bin:/bin:/usr/local/bin"}
        command = ["bash", str(tmp_path / "datasets/download.sh"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return run, tmp_path / "datasets/raw"


def original(server, name):
    return next(server.folder.rglob(name)).read_bytes()


def test_both_files_arrive_and_a_second_start_asks_for_nothing(server, download):
    run, raw = download
    done = run("music")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in raw.iterdir()) == [REVIEWS, SUMS, META]
    assert (raw / REVIEWS).read_bytes() == original(server, REVIEWS)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (raw / REVIEWS, raw / META)}
    assert (raw / SUMS).read_text() == "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    server.requests.clear()
    assert run("music").returncode == 0 and server.requests == []


@pytest.mark.parametrize("resumable", [True, False])
def test_a_cut_download_ends_whole(server, download, resumable):
    run, raw = download
    server.resumable = resumable
    raw.mkdir()
    (raw / f"{REVIEWS}.partial").write_bytes(original(server, REVIEWS)[:700])
    done = run("music")
    assert done.returncode == 0, done.stderr
    assert (raw / REVIEWS).read_bytes() == original(server, REVIEWS)
    assert (REVIEWS, "bytes=700-") in server.requests
    assert ((REVIEWS, None) in server.requests) is not resumable


def test_a_whole_partial_file_only_gets_its_name(server, download):
    run, raw = download
    raw.mkdir()
    (raw / f"{REVIEWS}.partial").write_bytes(original(server, REVIEWS))
    assert run("music").returncode == 0
    assert not any(name == REVIEWS for name, _ in server.requests)
    assert (raw / REVIEWS).read_bytes() == original(server, REVIEWS)


def test_a_damaged_file_never_gets_its_name(server, download):
    run, raw = download
    path = next(server.folder.rglob(REVIEWS))
    path.write_bytes(path.read_bytes()[:-9])
    done = run("music")
    assert done.returncode == 1 and "not an intact gzip file" in done.stderr
    assert list(raw.iterdir()) == []


def test_missing_file_and_unknown_name(server, download):
    run, raw = download
    next(server.folder.rglob(META)).unlink()
    done = run("music")
    assert done.returncode == 1 and "the server does not give this file" in done.stderr
    assert sorted(path.name for path in raw.iterdir()) == [REVIEWS, SUMS]
    for name in ("books", "", "../music", "music/.."):
        done = run(name)
        assert done.returncode == 2 and "cloth|movie|music|sport" in done.stderr


def test_another_file_than_the_one_downloaded_before_is_refused(server, download):
    run, raw = download
    assert run("music").returncode == 0
    (raw / REVIEWS).unlink()
    assert run("music").returncode == 0  # the same again
    (raw / REVIEWS).unlink()
    next(server.folder.rglob(REVIEWS)).write_bytes(gzip.compress(b"other reviews"))
    done = run("music")
    assert done.returncode == 1 and f"not the file that raw/SHA256SUMS records for {REVIEWS}" in done.stderr
    assert not (raw / REVIEWS).exists()


def test_only_https_leaves_this_machine(download):
    run, _ = download
    for url in ("http://example.org/data", "ftp://127.0.0.1/data", "http://127.0.0.1.example.org", "file:///etc"):
        done = run("music", url=url)
        assert done.returncode == 1 and "only https:// is taken" in done.stderr
