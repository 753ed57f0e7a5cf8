"""The encoders by name: what can be set of them, building one, and keeping one on disk.

A new encoder is a class in a file of its own, with its settings in it, and its name here.
"""

from __future__ import annotations

from dataclasses import field, fields, make_dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

from safetensors.torch import save_file

from slmrec.artifacts import read_json, read_manifest
from slmrec.encoders.arguments import ENCODERS_OWN, EncoderArguments, TrainEncoderArguments
from slmrec.encoders.bert4rec import BERT4Rec
from slmrec.encoders.caser import Caser
from slmrec.encoders.counting import Markov, Popularity
from slmrec.encoders.duorec import DuoRec
from slmrec.encoders.encoder import Encoder, OwnFlag
from slmrec.encoders.gru4rec import GRU4Rec
from slmrec.encoders.hgn import HGN
from slmrec.encoders.lightsans import LightSANs
from slmrec.encoders.maerec import MAERec
from slmrec.encoders.nearest import Nearest
from slmrec.encoders.s3rec import S3Rec
from slmrec.encoders.sasrec import SASRec
from slmrec.errors import InputError
from slmrec.tensors import read_tensors

ENCODERS: dict[str, type[Encoder]] = {
    "sasrec": SASRec,
    "gru4rec": GRU4Rec,
    "bert4rec": BERT4Rec,
    "caser": Caser,
    "duorec": DuoRec,
    "maerec": MAERec,
    "hgn": HGN,
    "lightsans": LightSANs,
    "s3rec": S3Rec,
    "popularity": Popularity,
    "markov": Markov,
    "nearest": Nearest,
}
TRAINED = tuple(name for name, encoder in ENCODERS.items() if encoder.training_defaults)  # the others only count
WEIGHTS = "model.safetensors"


def registered(model: str) -> type[Encoder]:
    """Raises InputError that lists the names there are."""
    if model not in ENCODERS:
        raise InputError(f"--model {model}: choose one of {', '.join(ENCODERS)}")
    return ENCODERS[model]


def build_encoder(model: str, num_items: int, num_users: int, architecture: dict) -> Encoder:
    """A freshly initialised encoder; `architecture` holds constructor arguments, those that it lacks take their defaults."""
    encoder = registered(model)
    users = {"num_users": num_users} if encoder.knows_users else {}
    return encoder(num_items=num_items, **users, **architecture)


# -- what can be set ------------------------------------------------------------------------------------------------------------


def architecture_arguments() -> type[EncoderArguments]:
    """EncoderArguments with the flags that single encoders bring along, each with the encoders' defaults in its help."""
    shared = {entry.name: entry for entry in fields(EncoderArguments) if entry.name != "model"}
    own: dict[str, dict[str, tuple[type, OwnFlag]]] = {}  # flag -> encoder -> its type and description
    for name, encoder in ENCODERS.items():
        for flag, (kind, description) in encoder.own_flags().items():
            own.setdefault(flag, {})[name] = kind, description
    defaults = {name: encoder.architecture_defaults() for name, encoder in ENCODERS.items()}
    names = field(default="sasrec", metadata={"help": "the encoder"})
    columns: list[tuple] = [("model", Literal[tuple(ENCODERS)], names)]
    columns += [(name, entry.type, _with_defaults(entry.metadata["help"], name, defaults)) for name, entry in shared.items()]
    for name, described in own.items():
        (kind,) = {kind for kind, _ in described.values()}  # one flag has one type
        helps = {flag.help for _, flag in described.values()}
        each = "; ".join(f"{encoder}: {flag.help}" for encoder, (_, flag) in described.items())
        columns.append((name, kind | None, _with_defaults(helps.pop() if len(helps) == 1 else each, name, defaults)))

    def check(self) -> None:
        EncoderArguments.__post_init__(self)
        for name, described in own.items():
            for _, flag in described.values():
                flag.check(name, getattr(self, name))

    made = make_dataclass("EncoderArguments", columns, bases=(EncoderArguments,), namespace={"__post_init__": check})
    made.__doc__ = "Which encoder, and its settings; not every encoder has them all."
    return made


def training_arguments() -> type[TrainEncoderArguments]:
    """TrainEncoderArguments with the encoders' defaults in the help."""
    defaults = {name: encoder.training_defaults for name, encoder in ENCODERS.items()}
    own = {name for settings in defaults.values() for name in settings}
    entries = [entry for entry in fields(TrainEncoderArguments) if entry.name in own]
    hints = get_type_hints(TrainEncoderArguments)
    columns = [(entry.name, hints[entry.name], _with_defaults(entry.metadata["help"], entry.name, defaults)) for entry in entries]
    made = make_dataclass("TrainEncoderArguments", columns, bases=(TrainEncoderArguments,))
    made.__doc__ = TrainEncoderArguments.__doc__
    return made


def _with_defaults(text: str, name: str, defaults: dict[str, dict]) -> Any:
    """A flag that is None unless given, its help completed by the defaults: encoder -> setting -> value."""
    values = {encoder: settings[name] for encoder, settings in defaults.items() if name in settings}
    having = {value: [encoder for encoder in values if values[encoder] == value] for value in values.values()}
    usual = max(having, key=lambda value: len(having[value]))
    if len(values) < len(TRAINED):  # not all have it
        shown = ", ".join(f"{_short(value)} ({', '.join(encoders)})" for value, encoders in having.items())
    else:
        others = [f"{', '.join(encoders)}: {_short(value)}" for value, encoders in having.items() if value != usual]
        shown = _short(usual) + (f" ({'; '.join(others)})" if others else "")
    return field(default=None, metadata={"help": f"{text.removesuffix(ENCODERS_OWN)}; default: {shown}"})


def _short(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def with_defaults(model: str, defaults: dict, given: dict) -> dict:
    """The defaults of an encoder with the flags that were given (not None) in their place.

    Raises InputError when a flag is given that the encoder does not have.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    unknown = sorted(chosen.keys() - defaults.keys())
    if unknown:
        raise InputError(f"--{unknown[0]}: {model} has no such setting (it has {', '.join(defaults) or 'none'})")
    return defaults | chosen


# -- on disk --------------------------------------------------------------------------------------------------------------------


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
        model.load_state_dict(read_tensors(directory / WEIGHTS))
    except RuntimeError as error:
        raise InputError(f"{directory / WEIGHTS}: not the weights of {config['model']} ({str(error).splitlines()[0]})") from None
    return model.eval()
