import os
import pickle
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import extract_emb
from slmrec.artifacts import Stage, read_manifest, write_json
from slmrec.embeddings import load_item_embeddings, save_item_embeddings
from slmrec.encoders.registry import build_encoder, save_encoder
from slmrec.errors import InputError
from slmrec.released_pickle import place_rows, read_released_pickle, write_released_pickle
from slmrec.runtime import run_main

ARCHITECTURE = {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "dropout": 0.0, "max_length": 5}


@pytest.fixture
def encoder(tmp_path):
    """The directory of an encoder stage with 6 items, and its model."""
    torch.manual_seed(0)
    model = build_encoder("sasrec", 6, 4, ARCHITECTURE)
    config = {"model": "sasrec", "num_items": 6, "num_users": 4, "architecture": ARCHITECTURE}
    with Stage("encoder", tmp_path / "encoder", config, {}, item_map="six items") as stage:
        save_encoder(model, stage.path)
    return tmp_path / "encoder", model


@pytest.fixture
def data(tmp_path):
    """The directory of a data stage with 6 items."""
    with Stage("data", tmp_path / "data", {}, {}, item_map="six items") as stage:
        np.savez(stage.path / "sequences.npz", items=np.arange(1, 7, dtype=np.int32), offsets=np.array([0, 3, 6]))
        write_json(stage.path / "stats.json", {"items": 6, "users": 2})
    return tmp_path / "data"


def run(tmp_path, *flags):
    extract_emb.main([*map(str, flags), "--output_dir", str(tmp_path / "embeddings")])
    return tmp_path / "embeddings"


def test_extracts_the_table_of_the_encoder(tmp_path, encoder):
    directory, model = encoder
    output = run(tmp_path, "--encoder", directory)
    table = load_item_embeddings(output)
    assert table.dtype == torch.float32 and torch.equal(table, model.item_matrix())
    assert table[0].abs().max() == 0
    assert read_manifest(output, "embeddings")["item_map"] == "six items"
    assert sorted(path.name for path in output.iterdir()) == [
        "config.json",
        "item_embeddings.safetensors",
        "manifest.json",
        "run.json",
    ]


def test_again_is_up_to_date_and_another_setting_is_refused(tmp_path, encoder, capsys):
    output = run(tmp_path, "--encoder", encoder[0])
    run(tmp_path, "--encoder", encoder[0])
    assert capsys.readouterr().out.endswith(f"{output}: up to date\n")
    with pytest.raises(InputError, match="config.pickle = False, this one has True"):
        run(tmp_path, "--encoder", encoder[0], "--pickle")


def test_the_pickle_goes_out_and_comes_back(tmp_path, encoder, data):
    output = run(tmp_path, "--encoder", encoder[0], "--pickle")
    with open(output / "sasrec_item.pkl", "rb") as stream:
        assert pickle.load(stream).keys() == {"item_embedding"}  # what the released code reads
    imported = tmp_path / "imported"
    extract_emb.main(["--from_pickle", str(output / "sasrec_item.pkl"), "--data", str(data), "--output_dir", str(imported)])
    assert torch.equal(load_item_embeddings(imported), load_item_embeddings(output))
    assert read_manifest(imported)["item_map"] == "six items"


@pytest.mark.parametrize("first_item_row", [0, 1])
def test_rows_are_placed_by_the_stated_rule(tmp_path, data, first_item_row):
    released = torch.arange(1.0, 1 + 2 * (6 + first_item_row)).view(-1, 2)
    write_released_pickle(released, tmp_path / "released.pkl")
    output = run(tmp_path, "--from_pickle", tmp_path / "released.pkl", "--data", data, "--first_item_row", first_item_row)
    table = load_item_embeddings(output)
    assert torch.equal(table[0], torch.zeros(2)) and torch.equal(table[1:], released[first_item_row:])


def test_another_number_of_rows_names_both_counts():
    with pytest.raises(InputError, match="has 6 rows, the data set has 6 items: with --first_item_row 1 it must have 7"):
        place_rows(torch.ones(6, 2), 6, 1)
    with pytest.raises(InputError, match="has 9 rows, the data set has 6 items: with --first_item_row 0 it must have 6"):
        place_rows(torch.ones(9, 2), 6, 0)


TABLE = torch.randn(5, 3)


@pytest.mark.parametrize(
    "content",
    [TABLE, torch.nn.Parameter(TABLE), TABLE.double(), torch.cat([TABLE, TABLE])[5:]],
    ids=["tensor", "parameter", "double", "view"],
)
@pytest.mark.parametrize("protocol", [2, 4, "torch.save"])
def test_reads_what_pickle_and_torch_write(tmp_path, content, protocol):
    path = tmp_path / "released.pkl"
    if protocol == "torch.save":
        torch.save({"item_embedding": content}, path)
    else:
        path.write_bytes(pickle.dumps({"item_embedding": content}, protocol))
    table = read_released_pickle(path)
    assert table.dtype == torch.float32 and not table.requires_grad
    torch.testing.assert_close(table, TABLE)


class Malicious:
    """Unpickled without restriction it would make a directory."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def hidden_in_storage(target):
    """The code sits in the bytes that a storage is restored from."""

    class Storage:
        def __reduce__(self):
            return torch.storage._load_from_bytes, (pickle.dumps(Malicious(target), 2),)

    return Storage()


@pytest.mark.parametrize("make", [Malicious, hidden_in_storage], ids=["outside", "inside a storage"])
@pytest.mark.parametrize("write", [pickle.dumps, None], ids=["pickle", "torch.save"])
def test_a_malicious_pickle_is_refused_in_one_line(tmp_path, data, capsys, monkeypatch, make, write):
    target, path, output = tmp_path / "made by the pickle", tmp_path / "released.pkl", tmp_path / "embeddings"
    content = {"item_embedding": make(str(target))}
    path.write_bytes(write(content)) if write else torch.save(content, path)
    flags = ["--from_pickle", str(path), "--data", str(data), "--output_dir", str(output)]
    monkeypatch.setattr(sys, "argv", ["extract_emb.py", *flags])
    with pytest.raises(SystemExit) as stopped:
        run_main(extract_emb.main)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith(f"error: {path}: refused, not a pickle of tensors (") and error.count("\n") == 1
    assert not target.exists() and not output.exists() and not output.with_name("embeddings.partial").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "refused, not a pickle of tensors"),
        (b"no pickle at all", "refused, not a pickle of tensors"),
        (pickle.dumps({"item_embedding": TABLE})[:-40], "refused, not a pickle of tensors"),
        (pickle.dumps([1, 2]), "not a dict with a tensor under 'item_embedding'"),
        (pickle.dumps({"item_embedding": [1.0]}), "not a dict with a tensor under 'item_embedding'"),
        (pickle.dumps({"item_embedding": torch.ones(3)}), r"torch.float32 \[3\], not a matrix"),
        (pickle.dumps({"item_embedding": torch.ones(3, 2, dtype=torch.int64)}), "torch.int64"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "file.pkl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_released_pickle(tmp_path / "file.pkl")


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "give either --encoder or --from_pickle"),
        (["--encoder", "a", "--from_pickle", "b"], "give either --encoder or --from_pickle"),
        (["--from_pickle", "b"], "--from_pickle and --data go together"),
        (["--encoder", "a", "--first_item_row", "0"], "--first_item_row 0"),
        (["--from_pickle", "nowhere.pkl", "--data", "d"], "nowhere.pkl: no such file"),
    ],
)
def test_flags_that_do_not_fit(tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path, *flags)


def test_values_that_are_not_finite_are_refused(tmp_path):
    table = torch.ones(4, 2)
    table[2, 1] = float("nan")
    with pytest.raises(InputError, match="the embedding of item 2 is not finite"):
        save_item_embeddings(table, tmp_path)


def test_a_damaged_file_is_refused(tmp_path, encoder, reseal):
    output = run(tmp_path, "--encoder", encoder[0])
    path = output / "item_embeddings.safetensors"
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(InputError, match=r"item_embeddings\.safetensors: damaged or changed"):
        load_item_embeddings(output)
    reseal(output)
    with pytest.raises(InputError, match="no readable tensor in it; it is damaged"):
        load_item_embeddings(output)


def test_the_same_table_gives_the_same_pickle(tmp_path):
    """In this process, where tensors lie elsewhere each time, and in the layout that pickle itself would write."""
    kept = [torch.randn(50, 3) for _ in range(3)]
    for name in ("first", "second"):
        write_released_pickle(kept[0].clone(), tmp_path / name)
        kept.append(torch.randn(1000))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    with open(tmp_path / "first", "rb") as stream:
        table = pickle.load(stream)["item_embedding"]
    assert torch.equal(table, kept[0]) and type(table) is torch.Tensor and table.is_contiguous()
    write_released_pickle(torch.arange(12.0).view(6, 2)[::2].t(), tmp_path / "view")
    assert torch.equal(read_released_pickle(tmp_path / "view"), torch.tensor([[0.0, 4, 8], [1, 5, 9]]))


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def rebuilt(values, offset, size, stride):
    storage = torch.storage.TypedStorage(wrap_storage=torch.zeros(values).untyped_storage(), dtype=torch.float32, _internal=True)
    return {"item_embedding": Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})}


LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how a storage in a pickle begins
HOSTILE = {
    "larger than its storage": pickle.dumps(rebuilt(4, 0, (1000, 100), (100, 1))),
    "beyond its storage": pickle.dumps(rebuilt(4, 3, (2, 1), (1, 1))),
    "before its storage": pickle.dumps(rebuilt(4, -1, (2, 1), (1, 1))),
    "negative sizes": pickle.dumps(rebuilt(4, 0, (-2, 1), (1, 1))),
    "no storage": pickle.dumps({"item_embedding": Call(torch._utils._rebuild_tensor_v2, 3, 0, (1,), (1,), False, {})}),
    "four exabytes": b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x",
    "a byte array of four exabytes": b"\x80\x05\x96" + (2**62).to_bytes(8, "little") + b"x",
    "nested without end": b"\x80\x02" + b"(" * 10**6 + b"]" * 10**6 + b".",
    "a memo that is not there": b"\x80\x02h\x07.",
    "half a storage": pickle.dumps({"item_embedding": Call(torch.storage._load_from_bytes, LEGACY_MAGIC)}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_one_line(tmp_path, name):
    (tmp_path / "file.pkl").write_bytes(HOSTILE[name])
    with pytest.raises(InputError, match="file.pkl: (refused, not a pickle of tensors|not a dict)") as refused:
        read_released_pickle(tmp_path / "file.pkl")
    message = str(refused.value)
    assert len(message) < 300 and "\n" not in message and "weights_only" not in message


def test_torch_s_advice_to_read_without_restriction_reaches_nobody(tmp_path):
    torch.save({"item_embedding": Malicious(str(tmp_path / "made"))}, tmp_path / "file.pkl")
    with pytest.raises(InputError, match=r"refused, not a pickle of tensors \(it asks for something that is no tensor\)"):
        read_released_pickle(tmp_path / "file.pkl")


@pytest.mark.parametrize("broadcast", [torch.ones(1, 2).expand(5, 2), torch.ones(0, 4)])
def test_a_tensor_that_fits_its_storage_in_an_unusual_way_is_read(tmp_path, broadcast):
    (tmp_path / "file.pkl").write_bytes(pickle.dumps({"item_embedding": broadcast}))
    assert torch.equal(read_released_pickle(tmp_path / "file.pkl"), broadcast)


@pytest.mark.parametrize(
    "table, message",
    [
        (torch.full((4, 2), float("nan")), "the embedding of item 0 is not finite .4 such items"),
        (torch.tensor([[0.0, 0], [1, float("inf")]]), "the embedding of item 1 is not finite .1 such items"),
        (
            torch.ones(4, 2, dtype=torch.float64),
            r"'item_embedding' is float64 \[4, 2\] where float32 \[items . 1, width\] is needed",
        ),
        (torch.ones(4, 2, dtype=torch.int64), r"is int64 \[4, 2\] where float32"),
        (torch.ones(8), r"is float32 \[8\] where float32 \[items"),
        (torch.ones(4, 2, 1), r"is float32 \[4, 2, 1\]"),
        (torch.ones(4, 0), r"is float32 \[4, 0\]"),
        (torch.ones(1, 4), r"is float32 \[1, 4\]"),
    ],
)
def test_embeddings_of_another_kind_are_named_as_such(tmp_path, table, message):
    with Stage("embeddings", tmp_path / "embeddings", {}, {}) as stage:
        save_file({"item_embedding": table}, stage.path / "item_embeddings.safetensors")
    with pytest.raises(InputError, match=f"item_embeddings.safetensors: .*{message}"):
        load_item_embeddings(tmp_path / "embeddings")
