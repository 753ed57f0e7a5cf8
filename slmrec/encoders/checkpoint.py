"""A trained conventional recommender on disk: model.safetensors beside the configuration of its stage."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from slmrec.artifacts import read_json, read_manifest
from slmrec.encoders.encoder import Encoder
from slmrec.encoders.registry import build_encoder
from slmrec.errors import InputError

WEIGHTS = "model.safetensors"


def save_encoder(model: Encoder, directory: str | Path) -> None:
    """Write the weights; the stage's config.json holds `model`, `num_items`, `num_users` and `architecture`."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, Path(directory) / WEIGHTS)


def load_encoder(directory: str | Path) -> Encoder:
    """The model of a finished encoder stage, on the CPU, in eval mode.

    Raises InputError when the directory is none, or its weights do not belong to its configuration.
    """
    directory = Path(directory)
    read_manifest(directory, "encoder")
    config = read_json(directory / "config.json")
    model = build_encoder(config["model"], config["num_items"], config["num_users"], config["architecture"])
    try:
        model.load_state_dict(load_file(directory / WEIGHTS))
    except (RuntimeError, SafetensorError) as error:
        raise InputError(f"{directory / WEIGHTS}: not the weights of {config['model']} ({str(error).splitlines()[0]})") from None
    return model.eval()
