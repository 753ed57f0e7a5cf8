"""The conventional recommenders by name, each with the values that it is trained with by default and where they come from."""

from __future__ import annotations

from dataclasses import dataclass

from slmrec.artifacts import InputError
from slmrec.encoders.encoder import Encoder
from slmrec.encoders.sasrec import SASRec


@dataclass(frozen=True)
class Registered:
    """One model.

    Attributes:
        encoder: its class, built as encoder(num_items=N, **architecture), and with num_users=U where it knows users.
        architecture: default of every other constructor argument; each is a flag of train_sr_trad.py.
        training: defaults of the training flags.
    """

    encoder: type[Encoder]
    architecture: dict[str, int | float]
    training: dict[str, int | float | str]
    knows_users: bool = False


ENCODERS = {
    "sasrec": Registered(
        SASRec,
        architecture={
            "hidden_size": 128,  # paper, Section 5.1
            "num_layers": 2,  # paper, Section 5.1
            "num_heads": 2,  # our choice, as is usual in re-implementations; not tuned
            "dropout": 0.5,  # Kang and McAuley, Section 4.2, for their sparse Amazon data sets
            "max_length": 30,  # released code, which feeds the LLM 30 items
        },
        training={
            "targets": "all",  # Kang and McAuley, Section 3.5 (their Eq. 7 sums over positions)
            "learning_rate": 1e-3,  # Kang and McAuley, Section 4.2; released code (2025)
            "batch_size": 256,  # paper, Table 5
            "num_epochs": 100,  # a bound that early stopping is not meant to reach: 15 epochs on Beauty, the best after 10
            "patience": 5,  # our choice
            "weight_decay": 0.0,  # none in Kang and McAuley
            "loss": "ce",  # paper, Section 2 (Klenitskiy and Vasilev 2023); Kang and McAuley: bce with one negative
            "num_negatives": 1,  # counts for the other losses only
        },
    ),
}


def registered(model: str) -> Registered:
    """Raises InputError that lists the names there are."""
    if model not in ENCODERS:
        raise InputError(f"--model {model}: choose one of {', '.join(ENCODERS)}")
    return ENCODERS[model]


def with_defaults(model: str, defaults: dict, given: dict) -> dict:
    """The defaults of a model with the flags that were given (not None) in their place.

    Raises InputError when a flag is given that the model does not have.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    unknown = sorted(chosen.keys() - defaults.keys())
    if unknown:
        raise InputError(f"--{unknown[0]}: {model} has no such setting (it has {', '.join(defaults)})")
    return defaults | chosen


def build_encoder(model: str, num_items: int, num_users: int, architecture: dict) -> Encoder:
    """A freshly initialised model; `architecture` holds every constructor argument but the numbers of items and users."""
    entry = registered(model)
    users = {"num_users": num_users} if entry.knows_users else {}
    return entry.encoder(num_items=num_items, **users, **architecture)
