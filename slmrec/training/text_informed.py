"""What text adds before and after the training of an encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from slmrec.artifacts import require_same_item_map, stage_input
from slmrec.data.batches import SplitRows
from slmrec.embeddings import load_text_vectors
from slmrec.encoders.encoder import Encoder
from slmrec.errors import InputError
from slmrec.progress import say
from slmrec.ragged import indices
from slmrec.text.arguments import TextUseArguments
from slmrec.text.cold_items import fill_from_text, untrained_items
from slmrec.text.item_table import put_text_into, write_out_text
from slmrec.text.titles import share_with_title
from slmrec.text.vectors import control_vectors
from slmrec.training.encoder_loop import is_trained


@dataclass
class ItemText:
    """Text vectors, float32 [N + 1, d_text], already replaced where a control stands in their place, and how they are used."""

    vectors: torch.Tensor
    arguments: TextUseArguments


def decide_text(arguments: TextUseArguments, data: str) -> TextUseArguments:
    """The arguments with `--text_use auto` decided by the data, which a line says."""
    if arguments.text_use != "auto":
        return arguments
    share = share_with_title(data)
    decided = arguments.decided(share)
    how = "the item table starts from them (--text_use off: the paper's way)" if decided.used else "titles are not used"
    say(f"{data}: {share:.0%} of the items have a title: {how}")
    return decided


def open_text(arguments: TextUseArguments, data: str, seed: int) -> ItemText | None:
    """None where no text is used. Raises InputError when the vectors are of other items than `data`."""
    if not arguments.used:
        return None
    assert arguments.text is not None and arguments.text_control is not None  # the arguments fill it in where text is used
    require_same_item_map(data, arguments.text)
    vectors = load_text_vectors(arguments.text)
    assert vectors is not None  # as there is a directory
    return ItemText(control_vectors(vectors, arguments.text_control, seed), arguments)


def describe_text(arguments: TextUseArguments) -> tuple[dict, dict]:
    """(configuration, inputs) that text adds to those of a stage: nothing where none is used."""
    if not arguments.used:
        return {}, {}
    assert arguments.text is not None
    return {"text": arguments.settings()}, {"text": stage_input(arguments.text, "text")}


def prepare_model(model: Encoder, text: ItemText | None) -> None:
    """Put the text into an untrained model. Raises InputError for one that cannot do without and has none."""
    if text is None and model.needs_text:
        raise InputError(f"--model {type(model).__name__.lower()}: needs --text")
    if text is not None:
        put_text_into(model.item_tables(), text.vectors, text.arguments)


def finish_model(model: Encoder, text: ItemText | None, rows: SplitRows) -> int:
    """Make a trained model an ordinary one, its untrained items' vectors from their texts; returns how many there are."""
    if text is None:
        return 0
    tables = model.item_tables()
    write_out_text(tables)
    if not text.arguments.text_cold or not is_trained(model):
        return 0
    untrained = untrained_items(training_items(rows), rows.dataset.num_items)
    with torch.no_grad():
        for table in tables:
            table.weight.copy_(fill_from_text(table.weight.cpu(), text.vectors, untrained))
    return int(untrained.sum())


def training_items(rows: SplitRows) -> np.ndarray:
    """The items of all training rows, those of histories and targets, int64 [M]; some occur several times."""
    users, lengths = rows.users, rows.lengths + 1  # the last target stands behind the history
    return rows.dataset.items[indices(rows.ends(users) + 1 - lengths, lengths)].astype(np.int64)
