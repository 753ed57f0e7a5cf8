"""The items that a target is ranked against: a pure function of (seed, split, user) and of what the user touched.

Candidate j of a user is a 64-bit hash of (seed, split, user, j), so a list never depends on batch size, order, process count
or a library's random generator, and no list need be stored: drawing them again is as cheap as reading them.

Shapes: B users, C candidates each, L the longest sequence of a block, n hashes drawn per user.
"""

from __future__ import annotations

import hashlib
import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from slmrec.data.dataset import PAD

SPLIT_NUMBER = {"train": 0, "valid": 1, "test": 2}
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # increment and multipliers of SplitMix64 (Steele, Lea, Flood 2014)
BLOCK_ROWS = 64  # at most: hashes and sort keys of a block (about half a MiB each) stay in a core's cache
BLOCK_PLACES = 2**17  # and at most so many hashes: asking for nearly the whole of a large catalogue takes many for a row
MAX_THREADS = 8  # sorting and arithmetic run outside the interpreter lock


def draw_candidates(
    seed: int,
    split: str,
    users: np.ndarray,
    sequences: np.ndarray,
    lengths: np.ndarray,
    num_items: int,
    num_candidates: int = 999,
) -> np.ndarray:
    """The first `num_candidates` distinct items of each user's hash stream that the user never touched, in stream order.

    A user with at most that many untouched items gets all of them, ascending, and PAD in the places that remain.

    Args:
        seed: 0..2**64 - 1.
        split: "train", "valid" or "test".
        users: int64 [B], user numbers of the data set.
        sequences: int [T], the users' whole sequences (all splits) back to back; see `SequenceDataset.sequences_until`.
        lengths: int64 [B], actions per user, T in all.
        num_items: N < 2**32; items are 1..N, each as likely as any other up to a factor of 1 + N / 2**32.

    Returns int32 [B, num_candidates].
    """
    keys = _stream_keys(seed, split, users)
    ends = np.cumsum(lengths)
    candidates = np.empty((len(users), num_candidates), dtype=np.int32)

    size = _rows_of_a_block(int(lengths.max(initial=0)), num_items, num_candidates)

    def fill(start: int) -> None:
        block = slice(start, start + size)
        touched = _pad_rows(sequences[ends[start] - lengths[start] : ends[block][-1]], lengths[block])
        candidates[block] = _draw_block(keys[block], touched, num_items, num_candidates)

    with ThreadPoolExecutor(min(MAX_THREADS, _processors())) as pool:
        list(pool.map(fill, range(0, len(users), size)))
    return candidates


def _processors() -> int:
    """That this process may use; macOS cannot tell these from all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def row_digests(candidates: np.ndarray) -> np.ndarray:
    """sha256 of each row of candidates [B, C] as little-endian int32; uint8 [B, 32]."""
    digests = b"".join(hashlib.sha256(row.tobytes()).digest() for row in np.ascontiguousarray(candidates, dtype="<i4"))
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32)


def candidates_digest(rows: np.ndarray) -> str:
    """One sha256 for a whole evaluation, over `row_digests` uint8 [U, 32] in user order."""
    return hashlib.sha256(np.ascontiguousarray(rows, dtype=np.uint8).tobytes()).hexdigest()


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64, in place on uint64: every bit of the input moves every bit of the output."""
    shifted = x >> np.uint64(30)
    x ^= shifted
    x *= np.uint64(0xBF58476D1CE4E5B9)
    np.right_shift(x, np.uint64(27), out=shifted)
    x ^= shifted
    x *= np.uint64(0x94D049BB133111EB)
    np.right_shift(x, np.uint64(31), out=shifted)
    x ^= shifted
    return x


def _stream_keys(seed: int, split: str, users: np.ndarray) -> np.ndarray:
    """Where each user's stream starts, uint64 [B]."""
    key = np.full(1, seed, dtype=np.uint64)
    for part in (np.array([SPLIT_NUMBER[split]]), np.asarray(users)):
        key = _mix(key + GOLDEN) + part.astype(np.uint64)
    return _mix(key + GOLDEN)


def _stream_items(keys: np.ndarray, num_draws: int, num_items: int) -> np.ndarray:
    """The first n items of the streams, uint64 [B, n], each in 1..num_items, repeats included."""
    steps = np.arange(1, num_draws + 1, dtype=np.uint64) * GOLDEN
    draws = _mix(keys[:, None] + steps)
    draws >>= np.uint64(32)
    draws *= np.uint64(num_items)
    draws >>= np.uint64(32)
    draws += np.uint64(1)
    return draws


def _rows_of_a_block(longest: int, num_items: int, num_candidates: int) -> int:
    """How many users are drawn for at once, the longest of whose sequences has `longest` items: bounded in memory."""
    places = longest + _likely_draws(num_items, max(num_items - longest, num_candidates + 1), num_candidates)
    if num_items - longest <= num_candidates:
        places = max(places, num_items + 1)  # see _take_all_untouched
    return min(BLOCK_ROWS, max(1, BLOCK_PLACES // places))


def _pad_rows(items: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Items [T] back to back as rows [B, L], PAD at the end."""
    rows = np.full((len(lengths), lengths.max()), PAD, dtype=np.int64)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = items
    return rows


def _draw_block(keys: np.ndarray, touched: np.ndarray, num_items: int, num_candidates: int) -> np.ndarray:
    """Candidates [B, C] of users with stream keys [B] and touched items [B, L]."""
    candidates = np.full((len(keys), num_candidates), PAD, dtype=np.int32)
    rows = np.arange(len(keys))
    if num_items - touched.shape[1] <= num_candidates:
        rows = rows[~_take_all_untouched(candidates, touched, num_items)]
    num_draws = _likely_draws(num_items, max(num_items - touched.shape[1], num_candidates + 1), num_candidates)
    while len(rows):  # the stream is the same at every length, so drawing more of it never changes what came first
        found, complete = _first_untouched(keys[rows], touched[rows], num_items, num_candidates, num_draws)
        candidates[rows[complete]] = found
        rows, num_draws = rows[~complete], 2 * num_draws
    return candidates


def _take_all_untouched(candidates: np.ndarray, touched: np.ndarray, num_items: int) -> np.ndarray:
    """Fill the rows of candidates [B, C] whose untouched items all fit, in place; bool [B] says which those are."""
    free = np.ones((len(touched), num_items + 1), dtype=bool)
    free[:, PAD] = False
    np.put_along_axis(free, touched, False, axis=1)
    fits = free.sum(axis=1) <= candidates.shape[1]
    free &= fits[:, None]
    row, item = np.nonzero(free)
    candidates[row, free.cumsum(axis=1)[row, item] - 1] = item
    return fits


def _likely_draws(num_items: int, num_untouched: int, num_candidates: int) -> int:
    """How many draws nearly always hold `num_candidates` distinct ones of `num_untouched` items (fewer than they are)."""
    if num_items == 1:
        return 1
    # n draws meet untouched * (1 - (1 - 1 / N) ** n) of them on average; four standard deviations of the misses on top
    expected = math.log1p(-num_candidates / num_untouched) / math.log1p(-1 / num_items)
    return math.ceil(expected + 4 * math.sqrt(max(expected - num_candidates, 0)) + 4)


def _first_untouched(
    keys: np.ndarray, touched: np.ndarray, num_items: int, num_candidates: int, num_draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first C distinct untouched items among n draws: [B', C] for the B' users who have so many, and bool [B], which.

    One sort of (item, position) pairs packed into integers puts equal items side by side, earliest draw first. What the user
    touched takes part at position 0, so that a touched item and a repeated one are the same case: not the first of its run.
    """
    draws = _stream_items(keys, num_draws, num_items)  # [B, n]
    bits = num_draws.bit_length()
    dtype = np.uint32 if (num_items + 1) << bits <= 2**32 else np.uint64
    width = touched.shape[1]
    packed = np.empty((len(keys), width + num_draws), dtype=dtype)
    packed[:, :width] = touched << bits
    np.left_shift(draws, np.uint64(bits), out=packed[:, width:], casting="unsafe")
    packed[:, width:] |= np.arange(1, num_draws + 1, dtype=dtype)
    packed.sort(axis=1)
    row, column = np.nonzero((packed[:, 1:] ^ packed[:, :-1]) < 1 << bits)
    fresh = np.ones((len(keys), num_draws + 1), dtype=bool)
    fresh[row, packed[row, column + 1] & ((1 << bits) - 1)] = False
    fresh = fresh[:, 1:]  # [B, n]
    order = fresh.cumsum(axis=1, dtype=np.int32)
    complete = order[:, -1] >= num_candidates
    chosen = fresh & (order <= num_candidates) & complete[:, None]
    return draws[chosen].reshape(-1, num_candidates), complete
