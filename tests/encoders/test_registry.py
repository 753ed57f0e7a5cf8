import inspect
from dataclasses import fields

import pytest

from slmrec.encoders.arguments import EncoderArguments, TrainEncoderArguments
from slmrec.encoders.registry import (
    ENCODERS,
    TRAINED,
    architecture_arguments,
    build_encoder,
    registered,
    training_arguments,
    with_defaults,
)
from slmrec.errors import InputError


@pytest.mark.parametrize("model", TRAINED)  # the others only count
def test_defaults_are_complete_and_reachable(model):
    entry = registered(model)
    constructor = inspect.signature(entry).parameters.keys() - {"num_items"}
    assert ("num_users" in constructor) == entry.knows_users
    constructor -= {"num_users"}
    defaults = entry.architecture_defaults()
    assert defaults.keys() == constructor
    assert not any(value is inspect.Parameter.empty for value in defaults.values())
    assert defaults.keys() <= architecture_arguments()().architecture().keys()
    flags = TrainEncoderArguments(data="").settings().keys()
    assert flags - {"pretrain_epochs"} <= entry.training_defaults.keys() <= flags  # only S3-Rec is pretrained
    encoder = build_encoder(model, 7, 5, {})
    assert encoder.item_matrix().shape == (8, defaults["hidden_size"])
    assert encoder.max_length == defaults["max_length"]


@pytest.mark.parametrize("model", ENCODERS)
def test_a_setting_is_a_shared_size_or_a_flag_of_its_own(model):
    shared = {entry.name for entry in fields(EncoderArguments)}
    own = registered(model).own_flags().keys()
    assert registered(model).architecture_defaults().keys() - shared == own and not own & shared


def help_of(arguments, name):
    return next(entry.metadata["help"] for entry in fields(arguments) if entry.name == name)


def test_help_shows_the_defaults_of_all_encoders():
    assert help_of(architecture_arguments(), "hidden_size") == "width of the item embedding; default: 128 (nearest: 384)"
    assert help_of(architecture_arguments(), "dropout").endswith("; default: 0.5 (bert4rec: 0.2)")
    heads = "; default: 2 (sasrec, bert4rec, duorec, maerec, lightsans, s3rec)"
    assert help_of(architecture_arguments(), "num_heads").endswith(heads)
    assert help_of(architecture_arguments(), "num_interests").endswith("; default: 5 (lightsans)")
    contrast = help_of(architecture_arguments(), "contrast_weight")
    assert contrast == (
        "duorec: weight of the contrast; maerec: weight of learning to mask, L_mask; default: 0.1 (duorec), 1 (maerec)"
    )
    assert help_of(training_arguments(), "learning_rate").endswith("; default: 0.001 (bert4rec: 0.0005)")
    assert help_of(training_arguments(), "pretrain_epochs").endswith("; default: 2 (s3rec)")


def test_given_flags_replace_defaults():
    assert with_defaults("sasrec", {"dropout": 0.5, "num_heads": 2}, {"dropout": 0.0, "num_heads": None}) == {
        "dropout": 0.0,
        "num_heads": 2,
    }


def test_a_flag_that_the_model_lacks_is_refused():
    with pytest.raises(InputError, match="--num_heads: sasrec has no such setting"):
        with_defaults("sasrec", {"dropout": 0.5}, {"num_heads": 2})


def test_a_model_without_settings_says_so():
    with pytest.raises(InputError, match=r"--learning_rate: popularity has no such setting \(it has none\)"):
        with_defaults("popularity", registered("popularity").training_defaults, {"learning_rate": 0.1})


def test_an_unknown_model_lists_the_known_ones():
    with pytest.raises(InputError, match="--model sasrek: choose one of sasrec"):
        registered("sasrek")


@pytest.mark.parametrize(
    "flag, value",
    [
        ("hidden_size", 0),
        ("num_layers", 0),
        ("num_heads", 0),
        ("max_length", 0),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("mask_probability", 1.0),
        ("num_interests", 0),
        ("contrast_temperature", 0.0),
        ("contrast_weight", -0.1),
        ("segment_weight", -0.1),
        ("reconstruction_weight", -0.1),
        ("associated_attribute_weight", -0.1),
        ("masked_attribute_weight", -0.1),
    ],
)
def test_impossible_sizes_are_refused(flag, value):
    with pytest.raises(InputError, match=f"--{flag} "):
        architecture_arguments()(**{flag: value})


@pytest.mark.parametrize(
    "flag, value",
    [
        ("targets", "first"),
        ("learning_rate", 0.0),
        ("batch_size", 0),
        ("num_epochs", 0),
        ("patience", 0),
        ("weight_decay", -1.0),
        ("loss", "hinge"),
        ("num_negatives", 0),
        ("pretrain_epochs", -1),
        ("seed", -1),
    ],
)
def test_impossible_training_is_refused(flag, value):
    with pytest.raises(InputError, match=f"--{flag} "):
        TrainEncoderArguments(data="", **{flag: value})
