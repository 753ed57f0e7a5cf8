"""Opening any model of this repository from the directory that its stage wrote."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from slmrec.artifacts import input_directory, read_manifest, stage_directory
from slmrec.checkpoints import require_whole
from slmrec.errors import InputError
from slmrec.recommender import Recommender
from slmrec.runtime import quiet_libraries

MODEL_STAGES = ("encoder", "finetune", "distill", "openp5")


def load_recommender(directory: str | Path, device: torch.device | str = "cpu") -> Recommender:
    """The model of an encoder, finetune, distill or openp5 stage (or of a `checkpoint-N` inside one), on `device`, in eval mode.

    Raises InputError when the directory is not such a stage.
    """
    stage = read_manifest(stage_directory(directory), MODEL_STAGES)["stage"]
    if not Path(directory).is_dir():
        raise InputError(f"{directory}: no such directory")
    if directory != stage_directory(directory):
        require_whole(Path(directory))
    if stage == "encoder":  # imported here: evaluating an encoder has no need of the LLM libraries
        from slmrec.encoders.registry import load_encoder

        model: Recommender = load_encoder(directory)
    elif stage == "openp5":
        from slmrec.openp5.directory import load_openp5

        with quiet_libraries_within():
            model = load_openp5(directory)
    else:
        from slmrec.llm.model_directory import load_ellmrec

        with quiet_libraries_within():
            model = load_ellmrec(directory)
    return model.to(device).eval()


@contextmanager
def quiet_libraries_within() -> Iterator[None]:
    """Transformers shows a bar for each folder of weights that it opens, which in a notebook stays there, and tells its users,
    not ours, what it left as it is and will rename. Afterwards it is as loud as before: a program may use it for more than this.
    """
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    with warnings.catch_warnings():
        quiet_libraries()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if shown:
                logging.enable_progress_bar()


def data_directory(directory: str | Path) -> Path:
    """The data directory that a model was trained on, as its manifest records it. Raises InputError when it is gone."""
    stage = stage_directory(directory)
    if "data" not in read_manifest(stage, MODEL_STAGES)["inputs"]:
        raise InputError(f"{stage}: its manifest records no data directory; name it with --data")
    data = input_directory(stage, "data")
    if data.is_dir() and read_manifest(data, "data")["digest"] != read_manifest(stage)["inputs"]["data"]["digest"]:
        raise InputError(f"{stage} was trained on {data}, which holds other data by now; name the data directory with --data")
    if not data.is_dir():
        raise InputError(f"{stage} was trained on {data}, which is no longer there; name the data directory with --data")
    return data
