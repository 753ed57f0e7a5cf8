"""Text inside the item tables of every recommender that has some."""

import pytest
import torch

from slmrec.encoders.registry import TRAINED
from slmrec.errors import InputError
from slmrec.text.arguments import TextUseArguments
from slmrec.text.item_table import put_text_into, write_out_text
from slmrec.text.table_start import start_table

NUM_ITEMS, TEXT_WIDTH = 40, 5


@pytest.fixture(scope="module")
def vectors():
    table = torch.randn(NUM_ITEMS + 1, TEXT_WIDTH, generator=torch.Generator().manual_seed(0))
    table[0] = 0
    return table


def use(**flags):
    return TextUseArguments(text="somewhere", **flags)


def one_step(model):
    """A step of plain gradient descent on the sum of the squared scores of all items."""
    for table in model.item_tables():
        table.weight.square().sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad


@pytest.mark.parametrize("name", TRAINED)
def test_every_table_starts_from_the_texts(name, make_encoder, vectors):
    model, before = make_encoder(name), make_encoder(name)
    put_text_into(model.item_tables(), vectors, use(text_exponent=1.0, text_std=0.1))
    for table, plain in zip(model.item_tables(), before.item_tables(), strict=True):
        expected = start_table(vectors[1:], plain.weight[1:].detach(), 1.0, 0.1)
        torch.testing.assert_close(table.weight[1:].detach(), expected)
        assert torch.equal(table.weight[1:, TEXT_WIDTH:], plain.weight[1:, TEXT_WIDTH:]) and not table.weight[0].any()
    rest = {name for name, value in model.state_dict().items() if not torch.equal(value, before.state_dict()[name])}
    assert len(rest) == len(model.item_tables())


@pytest.mark.parametrize("name", ["sasrec", "hgn", "maerec"])
@pytest.mark.parametrize("way", ["sum", "adapter", "alphafuse"])
def test_a_lasting_part_is_trained_and_then_written_out(name, way, make_encoder, vectors):
    model = make_encoder(name)
    put_text_into(model.item_tables(), vectors, use(text_use=way))
    start = [table.weight.detach().clone() for table in model.item_tables()]
    one_step(model)
    trained = [table.weight.detach().clone() for table in model.item_tables()]
    assert not any(torch.equal(before, after) for before, after in zip(start, trained)) and not any(t[0].any() for t in trained)
    if way == "alphafuse":  # half of eight columns belongs to the texts
        assert all(torch.equal(before[:, :4], after[:, :4]) for before, after in zip(start, trained))
    write_out_text(model.item_tables())
    assert model.state_dict().keys() == make_encoder(name).state_dict().keys()
    for table, values in zip(model.item_tables(), trained):
        torch.testing.assert_close(table.weight.detach(), values)


def test_the_sum_starts_as_the_table_was(make_encoder, vectors):
    model = make_encoder("sasrec")
    put_text_into(model.item_tables(), vectors, use(text_use="sum"))
    assert torch.equal(model.item_matrix(), make_encoder("sasrec").item_matrix())


def test_the_adapter_starts_at_the_deviation_that_was_asked_for(make_encoder, vectors):
    model = make_encoder("sasrec")
    put_text_into(model.item_tables(), vectors, use(text_use="adapter", text_std=0.3))
    assert model.item_matrix()[1:].std().item() == pytest.approx(0.3, rel=1e-3)


def test_a_model_that_counts_has_no_table(make_encoder):
    with pytest.raises(InputError, match="popularity only counts"):
        make_encoder("popularity").item_tables()


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"text": None, "text_use": "start"}, "--text_use start: needs --text"),
        ({"text": None, "text_std": 0.1}, "--text_std is not for --text_use off"),
        ({"text_use": "sum", "text_exponent": 1.0}, "--text_exponent is not for --text_use sum"),
        ({"text_use": "mix"}, "choose one of"),
        ({"text_control": "noise"}, "choose one of"),
        ({"text_std": 0.0}, "--text_std 0.0: must be above 0"),
        ({"text_dimensions": 0}, "at least 1"),
    ],
)
def test_flags_that_make_no_sense(flags, message):
    with pytest.raises(InputError, match=message):
        TextUseArguments(**{"text": "somewhere"} | flags)
