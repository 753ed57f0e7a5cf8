"""Hugging Face checkpoints that other programs wrote: what is wrong with their files is one line that names the flag."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import CONFIG_MAPPING

from slmrec.errors import InputError
from slmrec.files import file_sha256, read_json, starts_with

LFS_POINTER = b"version https://git-lfs"
JSON_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
TOKENIZER_FILES = (  # of every kind of tokenizer that transformers knows
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "*vocab*", "merges.txt", "bpe.codes", "*.model", "*.spm"),
    *("*.tiktoken", "tekken.json", "chat_template*", "additional_chat_templates/*"),
)
OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")  # which nobody reads where safetensors are there
LONGEST_REASON = 150  # characters: some libraries repeat the file


def require_readable(checkpoint: str, flag: str) -> None:
    """Look at the files of a checkpoint directory before transformers does; a hub name passes.

    Raises InputError when its configuration is missing, a file that is read is a git-LFS pointer, a JSON file is none, or its
    model is of a kind that only code beside it knows.
    """
    directory = Path(checkpoint)
    if not directory.is_dir():
        return
    if not (directory / "config.json").is_file():
        raise InputError(f"{flag} {directory}: the directory has no config.json")
    unread = OTHER_WEIGHTS if any(directory.glob("*.safetensors")) else ()
    for path in sorted(directory.iterdir()):
        if path.is_file() and path.suffix not in unread and starts_with(path, LFS_POINTER):
            raise InputError(f"{flag} {directory}: {path.name} is a git-LFS pointer, not the file: run git lfs pull there")
    paths = (*(directory / name for name in JSON_FILES), *directory.glob("*.index.json"))
    config = {path.name: read_json(path) for path in paths if path.is_file()}["config.json"]
    if "auto_map" in config and str(config.get("model_type")) not in CONFIG_MAPPING:
        kind = str(config.get("model_type"))[:LONGEST_REASON]
        raise InputError(
            f"{flag} {directory}: only its own code knows its kind ({kind}), and no code of a checkpoint is ever run"
        )


def tokenizer_files(checkpoint: str | Path) -> set[Path]:
    """Every file of a checkpoint directory that decides which tokens a text becomes."""
    return {path for pattern in TOKENIZER_FILES for path in Path(checkpoint).glob(pattern) if path.is_file()}


def named_digests(files: set[Path], checkpoint: str | Path) -> list[tuple[str, str]]:
    """(name, sha256) of files below a checkpoint directory, in the order of their names."""
    return sorted((path.relative_to(checkpoint).as_posix(), file_sha256(path)) for path in files)


@contextmanager
def opening(checkpoint: str | Path, flag: str, trouble: str) -> Iterator[None]:
    """Around a call of transformers that opens a checkpoint: an error is an InputError, "<flag> <checkpoint>: <trouble> (why)".

    Files hold anything, transformers checks little of it and tokenizers knows no other error than Exception, so all kinds are
    taken here. Lack of memory is not the file's fault and passes.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason if len(reason) <= LONGEST_REASON else f"{reason[: LONGEST_REASON - 1]}…"
        raise InputError(f"{flag} {checkpoint}: {trouble} ({reason})") from None
