import hashlib

import numpy as np
import pytest

from slmrec.data import candidates as module
from slmrec.data.candidates import candidates_digest, draw_candidates, row_digests
from slmrec.data.dataset import PAD

PINNED = [[46592, 57264, 26007, 65386, 28035], [5207, 77369, 89613, 34155, 92756], [49645, 59313, 8401, 22954, 1565]]
PINNED_DIGEST = "38dfe1cfad546116983844153f35d3d12062e3379c0d7d4954dfc220598cf24d"


def splitmix_items(seed: int, split_number: int, user: int, num_items: int, count: int) -> list[int]:
    """The documented stream in plain Python integers, one value at a time."""
    full = 2**64 - 1
    golden = 0x9E3779B97F4A7C15

    def mix(x):
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & full
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & full
        return x ^ (x >> 31)

    key = (mix(seed + golden & full) + split_number) & full
    key = (mix(key + golden & full) + user) & full
    key = mix(key + golden & full)
    return [((mix(key + j * golden & full) >> 32) * num_items >> 32) + 1 for j in range(1, count + 1)]


def first_untouched(stream: list[int], touched: set[int], count: int) -> list[int]:
    return [item for item in dict.fromkeys(stream) if item not in touched][:count]


def make_sequences(num_users: int, num_items: int, seed: int, longest: int = 20) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, longest, num_users)
    return generator.integers(1, num_items + 1, lengths.sum()).astype(np.int32), lengths


def draw_rows(sequences, lengths, rows, num_items, num_candidates, seed=0, split="test"):
    ends = np.cumsum(lengths)
    flat = np.concatenate([sequences[ends[row] - lengths[row] : ends[row]] for row in rows])
    return draw_candidates(seed, split, np.asarray(rows), flat, lengths[rows], num_items, num_candidates)


def test_literal_values_never_change():
    drawn = draw_candidates(0, "test", np.array([0, 1, 2**31]), np.array([1, 2, 3]), np.array([1, 1, 1]), 100_000, 5)
    assert drawn.dtype == np.int32
    assert drawn.tolist() == PINNED
    assert candidates_digest(row_digests(drawn)) == PINNED_DIGEST


def test_equals_the_stream_in_plain_integers():
    sequences, lengths = make_sequences(40, 1500, seed=1)
    drawn = draw_candidates(7, "valid", np.arange(40) * 1000, sequences, lengths, 1500)
    start = 0
    for row, length in enumerate(lengths):
        touched = set(sequences[start : start + length].tolist())
        start += length
        assert drawn[row].tolist() == first_untouched(splitmix_items(7, 1, row * 1000, 1500, 4000), touched, 999)


def test_touched_and_repeated_items_are_passed_over():
    stream = splitmix_items(3, 2, 5, 12, 60)
    expected = first_untouched(stream, {4, 9}, 6)
    drawn = draw_candidates(3, "test", np.array([5]), np.array([9, 4, 9, 9]), np.array([4]), 12, 6)
    assert len(set(stream[:8])) < 8  # the case is worth testing: the stream repeats itself early
    assert drawn.tolist() == [expected]


@pytest.mark.parametrize("num_items", [1005, 1030, 5000, 3_000_000])
def test_distinct_untouched_and_in_range(num_items):
    sequences, lengths = make_sequences(100, num_items, seed=2, longest=30 if num_items > 1030 else 6)
    drawn = draw_candidates(0, "test", np.arange(100), sequences, lengths, num_items)
    assert drawn.min() >= 1 and drawn.max() <= num_items
    start = 0
    for row, length in zip(drawn, lengths, strict=True):
        assert len(np.unique(row)) == 999
        assert not np.isin(row, sequences[start : start + length]).any()
        start += length


def test_any_subset_and_order_of_users_draws_the_same(monkeypatch):
    sequences, lengths = make_sequences(150, 2000, seed=3)
    whole = draw_rows(sequences, lengths, np.arange(150), 2000, 99)
    shuffled = np.random.default_rng(0).permutation(150)
    assert np.array_equal(draw_rows(sequences, lengths, shuffled, 2000, 99), whole[shuffled])
    assert np.array_equal(draw_rows(sequences, lengths, [17], 2000, 99), whole[[17]])
    monkeypatch.setattr(module, "BLOCK_ROWS", 7)
    monkeypatch.setattr(module, "MAX_THREADS", 1)
    assert np.array_equal(draw_rows(sequences, lengths, np.arange(150), 2000, 99), whole)


def test_first_guess_of_the_number_of_draws_does_not_matter(monkeypatch):
    sequences, lengths = make_sequences(50, 1100, seed=4)
    whole = draw_rows(sequences, lengths, np.arange(50), 1100, 999)
    monkeypatch.setattr(module, "_likely_draws", lambda *_: 1000)  # too few for every row: 1100 items repeat often
    assert np.array_equal(draw_rows(sequences, lengths, np.arange(50), 1100, 999), whole)


def test_order_and_repeats_of_the_sequence_do_not_matter():
    one = draw_candidates(0, "test", np.array([8]), np.array([5, 6, 7]), np.array([3]), 50, 20)
    other = draw_candidates(0, "test", np.array([8]), np.array([7, 5, 7, 6, 6]), np.array([5]), 50, 20)
    assert np.array_equal(one, other)


def test_seed_split_and_user_each_change_the_draw():
    def draw(seed, split, user):
        return draw_candidates(seed, split, np.array([user]), np.array([1]), np.array([1]), 10_000, 50).tolist()

    draws = [draw(0, "test", 0), draw(1, "test", 0), draw(0, "valid", 0), draw(0, "test", 1)]
    assert all(first != second for i, first in enumerate(draws) for second in draws[:i])


def test_small_catalogue_gives_all_untouched_items_and_pad():
    sequences, lengths = np.array([2, 4, 2, 1, 2, 3, 4, 5, 6]), np.array([3, 6])
    drawn = draw_candidates(0, "test", np.array([0, 1]), sequences, lengths, 6, 5)
    assert drawn.tolist() == [[1, 3, 5, 6, PAD], [PAD] * 5]


def test_rows_with_exactly_enough_and_one_more_than_enough():
    # 1001 items: the first user touched two (999 remain: all of them), the second one (one of 1000 is left out)
    drawn = draw_candidates(0, "test", np.array([0, 1]), np.array([10, 20, 30]), np.array([2, 1]), 1001)
    assert drawn[0].tolist() == [item for item in range(1, 1002) if item not in (10, 20)]
    assert len(set(drawn[1].tolist()) - {30, PAD}) == 999


def test_roughly_uniform_over_items_and_over_places():
    num_items, users = 400, 4000
    drawn = draw_candidates(0, "test", np.arange(users), np.full(users, 1), np.full(users, 1), num_items, 50)
    for sample in (drawn, drawn[:, :1]):
        counts = np.bincount(sample.ravel(), minlength=num_items + 1)[2:]
        expected = sample.size / (num_items - 1)
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert 0.75 * 398 < statistic < 1.25 * 398  # 398 degrees of freedom, standard deviation 28: within 3.5 of them


def test_digest_is_over_rows_in_user_order():
    drawn = np.array([[1, 2], [3, 4]], dtype=np.int32)
    rows = [hashlib.sha256(bytes([1, 0, 0, 0, 2, 0, 0, 0])).digest(), hashlib.sha256(bytes([3, 0, 0, 0, 4, 0, 0, 0])).digest()]
    assert row_digests(drawn).tobytes() == b"".join(rows)
    assert candidates_digest(row_digests(drawn)) == hashlib.sha256(b"".join(rows)).hexdigest()


@pytest.mark.parametrize("num_candidates", [5, 190, 196, 199])
def test_the_size_of_blocks_has_no_influence(monkeypatch, num_candidates):
    """From a few of 200 items to all that a user with four touched ones leaves."""
    users, lengths = np.arange(150), np.full(150, 4)
    sequences = np.random.default_rng(0).integers(1, 201, lengths.sum())
    whole = draw_candidates(0, "test", users, sequences, lengths, 200, num_candidates)
    monkeypatch.setattr(module, "BLOCK_PLACES", 1)
    assert np.array_equal(draw_candidates(0, "test", users, sequences, lengths, 200, num_candidates), whole)


def test_a_block_holds_few_places_however_large_the_catalogue():
    for num_items, num_candidates in ((10**7, 999), (10**7, 10**7 - 100), (10**5, 99_900), (10**5, 10**5), (12_000, 999)):
        rows = module._rows_of_a_block(50, num_items, num_candidates)
        assert rows == 1 or rows * min(num_items, num_candidates) <= module.BLOCK_PLACES
    assert module._rows_of_a_block(50, 12_000, 999) == module.BLOCK_ROWS


def test_a_system_that_cannot_tell_its_processors(monkeypatch):
    """macOS has no os.sched_getaffinity."""
    expected = draw_candidates(0, "test", np.arange(3), np.arange(1, 4), np.ones(3, int), 50, 9)
    monkeypatch.delattr(module.os, "sched_getaffinity", raising=False)
    assert np.array_equal(draw_candidates(0, "test", np.arange(3), np.arange(1, 4), np.ones(3, int), 50, 9), expected)
