"""The cost of an epoch: FLOPs against counts by hand, and the command line."""

import json

import pytest
import torch

from reproduce.efficiency import encoder_costs
from reproduce.efficiency.encoder_costs import CostArguments, Side, product_flops
from slmrec.data.dataset import load_dataset
from slmrec.errors import InputError
from slmrec.packing import pack_rows


@pytest.fixture(scope="module")
def data(write_data, tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("costs") / "data")


def test_flops_of_hgn_by_hand(data):
    """HGN's products: the loss, two gates over items and two over users, and three in the packed rows."""
    side = Side("hgn", load_dataset(data), CostArguments("data", steps=1), torch.device("cpu"))
    (batch,) = side.batches
    items, users, d, length = len(batch["history"]), len(batch["users"]), 128, 30
    rows = len(pack_rows(batch["lengths"], length).segment)
    loss = 3 * 2 * items * d * side.model.output_embedding.weight[1:].shape[0]
    gates = 3 * 2 * (items * d * d + items * d + users * d * d + users * d * length)
    packed = 2 * rows * length * length * d * (1 + 1 + 2 + 1)  # forward of both, backward of both inputs and of the items
    assert side.flops_per_step() == loss + gates + packed


def test_sparse_products_count_the_entries_that_exist():
    sparse = torch.eye(5).to_sparse_csr()
    assert product_flops(sparse, torch.ones(5, 3)) == 2 * 5 * 3
    assert product_flops(torch.ones(4, 5), torch.ones(5, 3)) == 2 * 4 * 5 * 3


def test_command_line(data, tmp_path, capsys):
    target = tmp_path / "new" / "costs.json"
    encoder_costs.main(
        ["--data", str(data), "--models", "sasrec", "s3rec", "--steps", "2", "--device", "cpu", "--json", str(target)]
    )
    found = json.loads(target.read_text())
    assert list(found["models"]) == ["sasrec", "s3rec", "s3rec (pretraining)"]
    for cost in found["models"].values():
        assert cost["ratio"] == pytest.approx(cost["epoch_seconds"] / cost["floor_seconds"])
    assert found["environment"]["command"].startswith("python -m reproduce.efficiency.encoder_costs --data")
    assert "s3rec (pretraining)" in capsys.readouterr().out


def test_a_step_in_bf16_has_as_many_flops(data):
    dataset, device = load_dataset(data), torch.device("cpu")
    sides = [Side("sasrec", dataset, CostArguments("data", steps=1, precision=name), device) for name in ("fp32", "bf16")]
    assert sides[0].flops_per_step() == sides[1].flops_per_step() > 0


def test_bad_arguments():
    with pytest.raises(InputError, match="--precision fp16"):
        CostArguments("data", precision="fp16")
    with pytest.raises(InputError, match="--steps 0"):
        CostArguments("data", steps=0)
    with pytest.raises(InputError, match="popularity: it only counts"):
        CostArguments("data", models=["popularity"])
