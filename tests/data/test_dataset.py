"""The in-memory data set and its leave-one-out views."""

import hashlib
import json

import numpy as np
import polars as pl
import pytest

from slmrec.artifacts import manifest_digest, read_arrays
from slmrec.data import prepare
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import SequenceDataset, load_dataset
from slmrec.errors import InputError

DATASET = SequenceDataset(np.arange(1, 10, dtype=np.int32), np.array([0, 3, 5, 9]), 9)


def test_sequences_until_of_chosen_users():
    items, lengths = DATASET.sequences_until(np.array([2, 0]), np.array([9, 3]))
    assert items.tolist() == [6, 7, 8, 9, 1, 2, 3]
    assert lengths.tolist() == [4, 3]
    items, lengths = DATASET.sequences_until(np.array([2, 1]), np.array([7, 3]))
    assert items.tolist() == [6, 7]
    assert lengths.tolist() == [2, 0]


def test_targets_stand_at_the_end_of_each_sequence():
    assert DATASET.items[DATASET.target_positions("test")].tolist() == [3, 5, 9]
    assert DATASET.items[DATASET.target_positions("valid")].tolist() == [2, 4, 8]


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"nonsense", b"\x93NUMPY\x01\x00", "cut", "flipped", "a pickled object", "one array"]
)
def test_damaged_npz_files_are_one_line(tmp_path, content):
    path = tmp_path / "x.npz"
    np.savez(path, items=np.arange(99))
    whole = path.read_bytes()
    if content == "a pickled object":
        np.savez(path, items=np.array([{}], dtype=object))
    elif content == "one array":
        np.save(tmp_path / "x.npy", np.arange(3))
        (tmp_path / "x.npy").rename(path)
    else:
        damaged = {"cut": whole[:200], "flipped": whole[:200] + bytes([whole[200] ^ 255]) + whole[201:]}
        path.write_bytes(damaged.get(content, content))
    with pytest.raises(InputError, match="x.npz: not an intact .npz file"):
        read_arrays(path, "items")


def test_arrays_that_are_missing_or_do_not_fit(tmp_path):
    prepare(pl.DataFrame({"user": ["u"] * 3, "item": ["a", "b", "c"], "time": [1, 2, 3]}), tmp_path / "data", k_core=1)
    path, manifest = tmp_path / "data/sequences.npz", tmp_path / "data/manifest.json"
    arrays = read_arrays(path)
    content = json.loads(manifest.read_text())
    content["outputs"] = {}  # as if the stage had written what follows
    for change, message in (
        ({"items": arrays["items"] + 1}, "do not fit together"),
        ({"offsets": np.array([0, 2])}, "do not fit together"),
        ({"timestamps": arrays["timestamps"][:1]}, "do not fit together"),
        ({"offsets": None}, "has no array 'offsets'"),
    ):
        np.savez(path, **{name: array for name, array in (arrays | change).items() if array is not None})
        content["outputs"]["sequences.npz"] = {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        content["digest"] = manifest_digest(content)
        manifest.write_text(json.dumps(content))
        with pytest.raises(InputError, match=message):
            load_dataset(tmp_path / "data")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_mapped_arrays_are_those_in_the_file(tmp_path, save):
    arrays = {
        "items": np.arange(5, dtype=np.int32),
        "table": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "none": np.zeros(0, dtype=np.int64),
        "number": np.array(7),
    }
    save(tmp_path / "arrays.npz", **arrays)
    mapped = read_arrays(tmp_path / "arrays.npz", "items", mapped=True)
    assert mapped.keys() == arrays.keys()
    for name, expected in arrays.items():
        assert mapped[name].dtype == expected.dtype and np.array_equal(mapped[name], expected)
    assert isinstance(mapped["items"].base, np.memmap) == (save is np.savez)
    whole = (tmp_path / "arrays.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not an intact .npz file"):
        read_arrays(tmp_path / "half.npz", mapped=True)


@pytest.mark.parametrize("targets", ["last", "all"])
def test_a_data_set_stays_in_its_file_and_a_row_is_its_user(tmp_path, targets):
    """So training starts at once, and the processes of a run share the pages: nothing is held for each action."""
    users = [user for user in "abcd" for _ in range(5)]
    reviews = pl.DataFrame({"user": users, "item": [str(n % 7) for n in range(20)], "time": list(range(20))})
    prepare(reviews, tmp_path / "data", k_core=1)
    dataset = load_dataset(tmp_path / "data")
    assert all(isinstance(array.base, np.memmap) for array in (dataset.items, dataset.offsets, dataset.timestamps))
    rows = SplitRows(dataset, "train", 50, targets)
    assert {name: len(value) for name, value in vars(rows).items() if isinstance(value, np.ndarray)} == {"users": 4}
