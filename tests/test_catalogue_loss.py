import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from slmrec import catalogue_loss
from slmrec.catalogue_loss import catalogue_cross_entropy, catalogue_divergence


def plain_definition(vectors, item_matrix, targets):
    """-log of exp(score of the target) over the sum of exp(score) of items 1..N, one prediction after the other."""
    losses = []
    for vector, target in zip(vectors, targets.tolist(), strict=True):
        scores = torch.stack([vector @ item for item in item_matrix[1:]])
        losses.append(scores.exp().sum().log() - scores[target - 1])
    return torch.stack(losses).mean()


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


def test_value_by_hand():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    items = torch.tensor([[9.0, 9.0], [math.log(2), 0.0], [0.0, 0.0]])  # PAD would dominate if it took part
    loss = catalogue_cross_entropy(vectors, items, torch.tensor([1, 2]))
    # first row: scores log 2 and 0, softmax 2/3 and 1/3; second row: scores 0 and 0
    assert loss.item() == pytest.approx((-math.log(2 / 3) - math.log(1 / 2)) / 2, abs=1e-6)


@pytest.mark.parametrize("rows", [1, 5, 600])  # one chunk, and a ragged last chunk
def test_equals_the_definition(rows):
    generator = torch.Generator().manual_seed(rows)
    vectors = torch.randn(rows, 6, generator=generator, requires_grad=True)
    items = torch.randn(12, 6, generator=generator, requires_grad=True)
    targets = torch.randint(1, 12, (rows,), generator=generator)
    expected, loss = plain_definition(vectors, items, targets), catalogue_cross_entropy(vectors, items, targets)
    torch.testing.assert_close(loss, expected)
    ours, theirs = gradients(3 * loss, vectors, items), gradients(3 * expected, vectors, items)
    torch.testing.assert_close(ours, theirs)
    assert ours[1][0].abs().max() == 0  # PAD


@pytest.mark.parametrize("block", [1, 4, 11, 12])
def test_a_catalogue_in_blocks_gives_the_same(monkeypatch, block):
    """The greatest logit may stand in any block, and the target too; logits of 80 overflow where it is forgotten."""
    monkeypatch.setattr(catalogue_loss, "BLOCK_ITEMS", block)
    generator = torch.Generator().manual_seed(block)
    vectors = torch.randn(40, 6, generator=generator).mul_(8).requires_grad_()
    items = torch.randn(13, 6, generator=generator).mul_(3).requires_grad_()
    targets = torch.arange(40) % 12 + 1
    expected = torch.nn.functional.cross_entropy(vectors @ items[1:].T, targets - 1)
    loss = catalogue_cross_entropy(vectors, items, targets)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    theirs = gradients(expected, vectors, items)
    torch.testing.assert_close(gradients(loss, vectors, items), theirs)
    frozen = catalogue_cross_entropy(vectors, items.detach(), targets)
    torch.testing.assert_close(gradients(frozen, vectors), theirs[:1])


@pytest.mark.parametrize("block", [5, 12])
@pytest.mark.parametrize("shifted", [True, False])
def test_logits_in_the_safe_range_are_not_shifted_and_give_the_same(monkeypatch, block, shifted):
    """The longest vector against the longest item decides; here it is their very product, one side of the limit or the other."""
    monkeypatch.setattr(catalogue_loss, "BLOCK_ITEMS", block)
    generator = torch.Generator().manual_seed(0)
    vectors, items = torch.randn(30, 6, generator=generator), torch.randn(13, 6, generator=generator)
    vectors *= (1.001 if shifted else 0.999) * 50 / vectors.norm(dim=1).max()
    items /= items[1:].norm(dim=1).max()
    vectors[3] = items[8] / items[8].norm() * vectors.norm(dim=1).max()
    items[8] /= items[8].norm()  # a logit at the limit
    vectors.requires_grad_(), items.requires_grad_()
    assert catalogue_loss._all_safe(vectors.detach(), items.detach()[1:]) is not shifted
    targets = torch.arange(30) % 12 + 1
    expected = torch.nn.functional.cross_entropy((vectors @ items[1:].T).double(), targets - 1)
    loss = catalogue_cross_entropy(vectors, items, targets)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(gradients(loss, vectors, items), gradients(expected, vectors, items))


def test_frozen_items_and_no_gradient():
    vectors, items, targets = torch.randn(7, 4, requires_grad=True), torch.randn(9, 4), torch.arange(1, 8)
    expected = plain_definition(vectors, items, targets)
    loss = catalogue_cross_entropy(vectors, items, targets)
    torch.testing.assert_close(gradients(loss, vectors), gradients(expected, vectors))
    with torch.no_grad():
        torch.testing.assert_close(catalogue_cross_entropy(vectors, items, targets), expected)


def test_products_in_bf16_are_near_the_definition():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(600, 16, generator=generator, requires_grad=True)
    items = torch.randn(50, 16, generator=generator, requires_grad=True)
    targets = torch.randint(1, 50, (600,), generator=generator)
    exact, near = (catalogue_cross_entropy(vectors, items, targets, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert near.dtype == torch.float32 and 0 < (near - exact).abs() < 0.005 * exact
    for ours, theirs in zip(gradients(near, vectors, items), gradients(exact, vectors, items), strict=True):
        assert ours.dtype == torch.float32
        assert 0 < (ours - theirs).norm() < 0.01 * theirs.norm()


def test_half_precision_is_computed_in_float32():
    vectors, items = torch.randn(5, 8).bfloat16(), torch.randn(20, 8).bfloat16()
    targets = torch.tensor([1, 5, 19, 2, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = catalogue_cross_entropy(vectors, items, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain_definition(vectors.float(), items.float(), targets))


PEAK = """
import resource, sys, torch
from slmrec import catalogue_loss
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
vectors, items = torch.randn(300, 16, requires_grad=True), torch.randn(int(sys.argv[1]), 16)
torch.randn(64, 128) @ torch.randn(128, 64)
before = peak()
catalogue_loss.catalogue_cross_entropy(vectors, items, torch.ones(300, dtype=torch.int64)).backward()
print(peak() - before)
"""


@pytest.mark.parametrize("num_items, most", [(376_859, 1.0), (2_000_000, 0.6)])
def test_memory_of_large_catalogues(num_items, most):
    """One full matrix of logits would be 0.42 GiB at the size of Cloth, and the plain definition holds three of them; 2.2 GiB at
    two million items, of whose logits a chunk over a block takes a quarter of a GiB."""
    root = Path(catalogue_loss.__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", PEAK, str(num_items)], capture_output=True, text=True, check=True, cwd=root)
    assert float(result.stdout) < most  # GiB


def test_divergence_by_hand():
    """Teacher softmax (2/3, 1/3) at temperature 1, student (1/2, 1/2); a second, agreeing pair halves the mean."""
    items = torch.tensor([[9.0, 9.0], [math.log(2), 0.0], [0.0, 0.0]])
    teacher, student = torch.tensor([[1.0, 0.0], [3.0, 1.0]]), torch.tensor([[0.0, 5.0], [3.0, 7.0]])
    divergence = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    assert catalogue_divergence(teacher, student, items, 1.0).item() == pytest.approx(divergence / 2)
    # at temperature 2 vectors of twice the length give the same distributions, and the factor is 4
    assert catalogue_divergence(2 * teacher, 2 * student, items, 2.0).item() == pytest.approx(4 * divergence / 2)


def test_divergence_in_chunks_equals_one_piece(monkeypatch):
    random = torch.Generator().manual_seed(0)
    teacher, items = torch.randn(7, 3, generator=random), torch.randn(6, 3, generator=random)
    student = torch.randn(7, 3, generator=random, requires_grad=True)
    p, q = ((vectors @ items[1:].T / 1.5).softmax(1) for vectors in (teacher, student))
    expected = 1.5**2 * (p * (p / q).log()).sum(1).mean()
    (slope,) = gradients(expected, student)
    for rows, block in ((2, 6), (7, 6), (3, 2), (7, 4)):
        monkeypatch.setattr(catalogue_loss, "_chunk_rows", lambda _, rows=rows: rows)
        monkeypatch.setattr(catalogue_loss, "BLOCK_ITEMS", block)
        divergence = catalogue_divergence(teacher, student, items, 1.5)
        torch.testing.assert_close(divergence, expected)
        torch.testing.assert_close(gradients(divergence, student)[0], slope)
