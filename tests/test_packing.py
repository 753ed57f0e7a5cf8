import numpy as np
import pytest
import torch

from slmrec.packing import fitting_width, pack_rows


def test_by_hand():
    """Rows of 2, 5, 0, 3 and 1 tokens in 6 slots: 5 and 1 fill the first packed row, 3 and 2 go into the second."""
    packing = pack_rows(np.array([2, 5, 0, 3, 1]), 6)
    assert packing.segment.tolist() == [[1, 1, 1, 1, 1, 4], [3, 3, 3, 0, 0, -1]]
    assert packing.slot.tolist() == [9, 10, 0, 1, 2, 3, 4, 6, 7, 8, 5]
    assert packing.last[[0, 1, 3, 4]].tolist() == [10, 4, 8, 5]
    tokens = torch.arange(1.0, 12.0)  # rows 1 2 | 3 4 5 6 7 | | 8 9 10 | 11
    assert packing.pack(tokens).tolist() == [[3, 4, 5, 6, 7, 11], [8, 9, 10, 1, 2, 0]]
    assert packing.take_last(packing.pack(tokens))[[0, 1, 3, 4]].tolist() == [2, 7, 10, 11]
    assert packing.causal_mask()[1].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],  # an empty slot may see itself; a softmax over nothing would be NaN
    ]


def random_lengths(seed, longest=12):
    random = np.random.default_rng(seed)
    return random.integers(0, longest + 1, random.integers(1, 30))


@pytest.mark.parametrize("seed", range(20))
def test_what_is_packed_comes_back(seed):
    lengths = random_lengths(seed)
    packing = pack_rows(lengths, 12)
    tokens = torch.randn(int(lengths.sum()), 3)
    packed = packing.pack(tokens)
    assert packed.shape == (*packing.segment.shape, 3) and packing.segment.shape[1] == 12
    assert torch.equal(packing.unpack(packed), tokens)
    assert len(set(packing.slot.tolist())) == len(packing.slot)
    assert not packed[packing.segment == -1].any()
    ends = np.cumsum(lengths)
    for row in np.flatnonzero(lengths):
        assert torch.equal(packing.take_last(packed)[row], tokens[ends[row] - 1])
        slots = packing.slot[ends[row] - lengths[row] : ends[row]]
        assert torch.equal(slots, torch.arange(lengths[row]) + slots[0])  # side by side, in order
        assert slots[0] // 12 == slots[-1] // 12  # in one packed row


@pytest.mark.parametrize("seed", range(5))
def test_mask_by_brute_force(seed):
    packing = pack_rows(random_lengths(seed), 12)
    mask = packing.causal_mask()
    assert mask.dtype == torch.bool
    for row, segment in enumerate(packing.segment.tolist()):
        for query in range(12):
            for key in range(12):
                assert mask[row, query, key] == (segment[query] == segment[key] and key <= query)


def test_a_row_of_the_full_width_fills_a_packed_row():
    packing = pack_rows(np.array([4, 4, 1]), 4)
    assert packing.segment.tolist() == [[0, 0, 0, 0], [1, 1, 1, 1], [2, -1, -1, -1]]


@pytest.mark.parametrize(
    "lengths, width",
    [
        ([12], 12),  # one history costs its own tokens
        ([12, 20], 32),
        ([37, 37, 37], 37),  # 111 slots; two rows of 74 would be 148
        ([30] * 4, 60),  # as many slots as four rows of 30, with half the copies of what they share
        ([15] * 7, 15),
        ([110, 3], 110),  # longer than the usual width
        ([7] * 100, 96),  # many rows fill any width
        ([0], 1),
    ],
)
def test_few_rows_get_a_width_that_they_fill(lengths, width):
    assert fitting_width(np.array(lengths), 96) == width
    assert pack_rows(np.array(lengths), width).segment.shape[1] == width


@pytest.mark.parametrize("seed", range(20))
def test_fitted_rows_never_need_more_slots(seed):
    lengths = random_lengths(seed)
    assert pack_rows(lengths, fitting_width(lengths, 24)).segment.numel() <= pack_rows(lengths, 24).segment.numel()


def test_a_row_that_is_too_long():
    with pytest.raises(ValueError, match="a row of 5 tokens does not fit into 4 slots"):
        pack_rows(np.array([1, 5]), 4)


@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0]])
def test_nothing_to_pack(lengths):
    packing = pack_rows(np.array(lengths, dtype=np.int64), 4)
    assert packing.segment.tolist() == [[-1, -1, -1, -1]] and packing.slot.shape == (0,) and packing.last.shape == (len(lengths),)
    assert packing.pack(torch.zeros(0, 2)).shape == (1, 4, 2)


def test_little_is_left_empty():
    """Rows as on Amazon data, 7 closing tokens and 1 to 30 items: more than 95% of the slots hold a token."""
    lengths = 7 + np.minimum(1 + np.random.default_rng(0).geometric(0.15, 256), 30)
    packing = pack_rows(lengths, 64)
    assert (packing.segment >= 0).float().mean() > 0.95


def test_lengths_may_be_a_tensor():
    first, second = pack_rows(torch.tensor([2, 3]), 4), pack_rows(np.array([2, 3]), 4)
    assert torch.equal(first.segment, second.segment) and torch.equal(first.slot, second.slot)


def test_gradients_reach_exactly_the_tokens():
    packing = pack_rows(np.array([2, 3]), 4)
    tokens = torch.randn(5, 2, requires_grad=True)
    packing.take_last(packing.pack(tokens)).sum().backward()
    assert tokens.grad.sum(dim=1).tolist() == [0, 2, 0, 0, 2]
