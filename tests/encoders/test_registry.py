import inspect

import pytest

from slmrec.encoders.arguments import EncoderArguments, TrainEncoderArguments
from slmrec.encoders.registry import ENCODERS, build_encoder, registered, with_defaults
from slmrec.errors import InputError


@pytest.mark.parametrize("model", [name for name, entry in ENCODERS.items() if entry.training])  # the others only count
def test_defaults_are_complete_and_reachable(model):
    entry = registered(model)
    constructor = inspect.signature(entry.encoder).parameters.keys() - {"num_items"}
    assert ("num_users" in constructor) == entry.knows_users
    constructor -= {"num_users"}
    assert entry.architecture.keys() == constructor
    assert entry.architecture.keys() <= EncoderArguments().architecture().keys()
    flags = TrainEncoderArguments(data="").settings().keys()
    assert flags - {"pretrain_epochs"} <= entry.training.keys() <= flags  # only S3-Rec is pretrained
    encoder = build_encoder(model, 7, 5, entry.architecture)
    assert encoder.item_matrix().shape == (8, entry.architecture["hidden_size"])
    assert encoder.max_length == entry.architecture["max_length"]


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
        with_defaults("popularity", registered("popularity").training, {"learning_rate": 0.1})


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
        EncoderArguments(**{flag: value})


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
