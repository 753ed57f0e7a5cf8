"""Going on from a trained model on data that `python -m slmrec.data --update_from` has made: which rows are trained on, where the
vectors of new items come from, and the old weights in a model of the new size.

Known items have the numbers that they had, so their vectors stay in their places. A new item starts from its title, by the map
from titles to vectors that the known items give (`slmrec.text.cold_items`), or, without text vectors, from the mean of the known
items that stand next to it in training histories, which are those that were bought right before and after it.

Shapes: N items now, K of them known, U users, d the width of the vectors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch

from slmrec.artifacts import read_json, read_manifest, stage_directory, stage_input
from slmrec.catalogue import load_catalogue
from slmrec.data.dataset import SequenceDataset
from slmrec.encoders.arguments import TrainEncoderArguments
from slmrec.encoders.encoder import Encoder
from slmrec.encoders.registry import load_encoder
from slmrec.encoders.user_embedding import UserEncoder
from slmrec.errors import InputError
from slmrec.progress import say
from slmrec.ragged import row_ends
from slmrec.text.cold_items import fill_from_text
from slmrec.training.arguments import UpdateArguments

REPLAYED = 1  # marks the generator that draws the replayed users


def update_users(dataset: SequenceDataset, replay: float, seed: int) -> np.ndarray:
    """Users whose rows are trained on, int64, ascending: all whose training part has grown, and a share of the others.

    `replay` is that share, from 0 to 1; `seed` and the data set alone decide who is drawn.
    """
    if dataset.known is None:
        raise InputError("the data hold nothing new: make them by python -m slmrec.data --update_from OLD --input NEW")
    part = dataset.lengths - 2  # without the targets of validation and test, like the part that was trained on before
    grown = part > np.maximum(dataset.known - 2, 0)
    others = np.flatnonzero(~grown)
    drawn = np.random.default_rng([seed, REPLAYED]).permutation(others)[: round(replay * len(others))]
    return np.sort(np.concatenate([np.flatnonzero(grown), drawn]))


def update_rows(dataset: SequenceDataset, update: UpdateArguments, seed: int) -> np.ndarray | None:
    """The users of `update_users`, which a line says; None for all users, where nothing is updated."""
    if not update.update_from:
        return None
    assert update.replay is not None  # the arguments fill it in
    users = update_users(dataset, update.replay, seed)
    assert dataset.known is not None
    new = int((dataset.lengths[users] > dataset.known[users]).sum())
    say(f"trained on: {new} users with new actions, {len(users) - new} others again, of {dataset.num_users}")
    return users


def describe_update(update: UpdateArguments, stage: str, data: str) -> tuple[dict, dict]:
    """(configuration, inputs) that an update adds to those of a stage: nothing without one.

    Raises InputError when the model is of another stage, or its items are not the first ones of the data.
    """
    if not update.update_from:
        return {}, {}
    model = stage_directory(update.update_from)
    read_manifest(model, stage)
    theirs = load_catalogue(update.update_from).source_ids
    ours = pl.read_csv(Path(data) / "items.csv", schema_overrides={"source_id": pl.String})["source_id"].to_list()
    if ours[: len(theirs)] != theirs:
        raise InputError(f"{data}: its first items are not those of {update.update_from}; make it with --update_from its data")
    return {"replay": update.replay}, {"update_from": stage_input(model, stage)}


def from_neighbours(table: torch.Tensor, items: np.ndarray, lengths: np.ndarray, known: int) -> torch.Tensor:
    """A table whose items beyond the first `known` have the mean of the known items next to them in the rows.

    An item without such a neighbour gets the mean of all known items.

    Args:
        table: float32 [N + 1, d]; rows beyond `known` are not read.
        items, lengths: rows back to back, int64 [T] and [B].
    """
    inside = np.ones(len(items), dtype=bool)
    inside[row_ends(lengths[lengths > 0])] = False  # what follows a row's last item is another row
    first, second = items[:-1][inside[:-1]].astype(np.int64), items[1:][inside[:-1]].astype(np.int64)
    both = np.concatenate([first, second]), np.concatenate([second, first])
    pairs = (both[0] > known) & (both[1] <= known)
    new, old = (torch.from_numpy(items[pairs]) for items in both)
    sums = torch.zeros_like(table).index_add(0, new, table[old])
    number = torch.bincount(new, minlength=len(table)).unsqueeze(1)
    filled = table.clone()
    filled[known + 1 :] = torch.where(number > 0, sums / number.clamp(min=1), table[1 : known + 1].mean(0))[known + 1 :]
    return filled


def new_item_vectors(
    table: torch.Tensor, known: int, dataset: SequenceDataset, text_vectors: torch.Tensor | None
) -> torch.Tensor:
    """The table float32 [N + 1, d] with the rows beyond `known` from their texts [N + 1, d_text], else from their neighbours."""
    if len(table) == known + 1:
        return table
    if text_vectors is not None:
        untrained = torch.arange(len(table)) > known
        return fill_from_text(table, text_vectors, untrained)
    users = np.arange(dataset.num_users)
    parts = dataset.sequences_until(users, np.maximum(dataset.target_positions("train") + 1, dataset.offsets[:-1]))
    return from_neighbours(table, *parts, known)


def going_on(directory: str, model: str, given: dict, training: TrainEncoderArguments, trained: dict) -> tuple[dict, dict]:
    """The architecture of the encoder that is updated, and how it is trained: `trained`, without another pretraining.

    Raises InputError when a flag (`given` holds those of the architecture) says otherwise, or for a model that only counts.
    """
    read_manifest(directory, "encoder")
    config = read_json(Path(directory) / "config.json")
    settings = {"model": config["model"]} | config["architecture"]
    for name, value in ({"model": model} | given).items():
        if value is not None and settings.get(name) != value:
            raise InputError(f"--{name} {value}: {directory} has {settings.get(name)}, and an update keeps it")
    if not trained:
        raise InputError(f"--update_from {directory}: {model} is not trained by steps; make it anew of all data")
    if "pretrain_epochs" in trained and training.pretrain_epochs is None:
        trained = trained | {"pretrain_epochs": 0}
    return config["architecture"], trained


@torch.no_grad()
def start_from_encoder(
    model: Encoder, directory: str, dataset: SequenceDataset, text_vectors: torch.Tensor | None = None
) -> None:
    """Give a new encoder the weights of a trained one with fewer items and users, new items and users vectors to start from."""
    old = load_encoder(directory)
    state = model.state_dict()
    for name, tensor in old.state_dict().items():
        state[name][tuple(map(slice, tensor.shape))] = tensor
    model.load_state_dict(state)
    known = len(old.item_tables()[0].weight) - 1
    for table in model.item_tables():
        table.weight.copy_(new_item_vectors(table.weight.clone(), known, dataset, text_vectors))
    if isinstance(model, UserEncoder) and isinstance(old, UserEncoder):
        users = old.user_embedding.weight[old.trained_users]
        model.user_embedding.weight[len(old.user_embedding.weight) :] = users.mean(0)
