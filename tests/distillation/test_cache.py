"""The cache of teacher states: the right state for every row, filled once, resumed after a kill, refused when it is not ours."""

import errno
import json
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch

import distill
from slmrec.artifacts import read_json, write_json
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import SequenceDataset, load_dataset
from slmrec.distillation import cache
from slmrec.distillation.cache import CacheKey, cached_teacher
from slmrec.distillation.teacher import FrozenTeacher, TeacherSignals
from slmrec.errors import InputError, in_one_line
from tests.kills import watching

KEY = CacheKey(teacher="aaa", data="ddd", layers=[1, 2], targets="last", max_length=30, hidden_size=32, dtype="float32")

PROJECTION = torch.tensor([[1.0, 2.0]])  # d0 = 1, d1 = 2


class KnownTeacher:
    """States that say whose they are: 100 * user + 10 * block + position within the history."""

    def __init__(self, targets, dies_after=None):
        self.targets, self.dies_after, self.users_seen = targets, dies_after, []
        self.model = namedtuple("Model", "item_embeddings")(torch.zeros(1))

    def signals(self, batch):
        if self.dies_after is not None and len(self.users_seen) >= self.dies_after:
            raise KeyboardInterrupt
        self.users_seen += batch["users"].tolist()
        counts = batch["lengths"] if self.targets == "all" else torch.ones_like(batch["lengths"])
        owner = batch["users"].repeat_interleave(counts) * 100.0
        place = torch.cat([torch.arange(int(count)) for count in counts])
        return TeacherSignals([(owner + 10 * block + place).unsqueeze(1).expand(-1, 2) for block in (1, 2)])


def four_users(targets):
    """Users with 5, 3, 4 and 6 actions: the second has no history in its training part; histories of 2, -, 1 and 3 items."""
    dataset = SequenceDataset(np.arange(1, 19, dtype=np.int32), np.array([0, 5, 8, 12, 18]), num_items=18)
    return SplitRows(dataset, "train", 30, targets)


def test_known_states_of_last_targets(tmp_path):
    rows = four_users("last")
    teacher = cached_teacher(
        tmp_path / "cache", replace(KEY, hidden_size=2), rows, PROJECTION, lambda: KnownTeacher("last"), batch_size=2
    )
    first, second = teacher.signals(rows.collate([2, 0])).blocks  # users 3 and 0
    assert first.tolist() == [[310.0, 310.0], [10.0, 10.0]]
    assert teacher.signals(rows.collate([2, 0])).users.tolist() == [[960.0], [60.0]]  # 320 * (1 + 2), 20 * (1 + 2)
    assert second.tolist() == [[320.0, 320.0], [20.0, 20.0]]


def test_known_states_of_all_targets(tmp_path):
    rows = four_users("all")
    key = replace(KEY, hidden_size=2, targets="all")
    teacher = cached_teacher(tmp_path / "cache", key, rows, PROJECTION, lambda: KnownTeacher("all"), batch_size=2)
    first, second = teacher.signals(rows.collate([2, 1, 0])).blocks  # users 3, 2 and 0
    assert first[:, 0].tolist() == [310.0, 311.0, 312.0, 210.0, 10.0, 11.0]
    assert second[:, 1].tolist() == [320.0, 321.0, 322.0, 220.0, 20.0, 21.0]


@pytest.mark.parametrize("targets", ["last", "all"])
def test_states_are_those_of_the_frozen_teacher(tmp_path, tiny_data, make_recommender, targets):
    rows = SplitRows(load_dataset(tiny_data), "train", 5, targets)
    frozen = FrozenTeacher(make_recommender(closing=7 if targets == "last" else 0, targets=targets), (1, 2))
    cached = cached_teacher(
        tmp_path / "cache", replace(KEY, targets=targets), rows, frozen.model.user_projection.weight, lambda: frozen, 7
    )
    shuffled = np.random.default_rng(1).permutation(len(rows))
    for chosen in (shuffled[:1], shuffled[:20], shuffled):
        batch = rows.collate(chosen)
        for ours, theirs in zip(cached.signals(batch).blocks, frozen.signals(batch).blocks, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        torch.testing.assert_close(cached.signals(batch).users, frozen.signals(batch).users, atol=1e-5, rtol=0)


def test_bfloat16_states_keep_their_bits(tmp_path, tiny_data, make_recommender):
    rows = SplitRows(load_dataset(tiny_data), "train", 30)
    model = make_recommender()
    model.backbone.bfloat16()  # the layers around it stay in float32, as load_ellmrec leaves them
    frozen = FrozenTeacher(model, (1, 2))
    projection = model.user_projection.weight
    cached = cached_teacher(tmp_path / "cache", replace(KEY, dtype="bfloat16"), rows, projection, lambda: frozen, len(rows))
    batch = rows.collate(np.arange(len(rows)))  # one batch in the same order: the same arithmetic
    for ours, theirs in zip(cached.signals(batch).blocks, frozen.signals(batch).blocks, strict=True):
        assert ours.dtype == torch.bfloat16
        assert torch.equal(ours, theirs.bfloat16())


def test_a_killed_filling_goes_on_and_a_whole_cache_asks_no_teacher(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "RECORD_SECONDS", -1.0)
    rows, key, directory = four_users("last"), replace(KEY, hidden_size=2), tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        cached_teacher(directory, key, rows, PROJECTION, lambda: KnownTeacher("last", dies_after=2), batch_size=1)
    assert read_json(directory / "cache.json")["rows_written"] == 2
    second = KnownTeacher("last")
    cached_teacher(directory, key, rows, PROJECTION, lambda: second, batch_size=1)
    assert second.users_seen == [3]  # users 0 and 2 were written before, user 1 has no row
    third = cached_teacher(directory, key, rows, PROJECTION, lambda: pytest.fail("a whole cache needs no teacher"), batch_size=1)
    assert third.signals(rows.collate([0, 1, 2])).blocks[0][:, 0].tolist() == [10.0, 210.0, 310.0]


def damage_states(directory, how):
    path = directory / "states.npy"
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
        return
    if how == "zeroed":
        content = bytes(len(content))
    elif how == "one byte":
        content[-1] ^= 1
    elif how == "other shape":
        np.save(path, np.zeros((7, 2, 2), np.float32))
        return
    elif how == "a pickle":
        np.save(path, np.array([{"a": 1}], dtype=object))
        return
    path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "header alone": content[:128]}.get(how, content))


DAMAGES = ["missing", "empty", "half", "header alone", "zeroed", "one byte", "other shape", "a pickle"]


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("whole", [True, False])
def test_damaged_states_are_computed_again(tmp_path, monkeypatch, capsys, how, whole):
    monkeypatch.setattr(cache, "RECORD_SECONDS", -1.0)
    rows, key, directory = four_users("last"), replace(KEY, hidden_size=2), tmp_path / "cache"
    if whole:
        cached_teacher(directory, key, rows, PROJECTION, lambda: KnownTeacher("last"), batch_size=1)
    else:
        with pytest.raises(KeyboardInterrupt):
            cached_teacher(directory, key, rows, PROJECTION, lambda: KnownTeacher("last", dies_after=2), batch_size=1)
    damage_states(directory, how)
    teacher = KnownTeacher("last")
    again = cached_teacher(directory, key, rows, PROJECTION, lambda: teacher, batch_size=2)
    untouched = not whole and how == "one byte"  # it lies in the row that was still to come
    assert teacher.users_seen == ([3] if untouched else [0, 2, 3])
    assert ("its states are damaged and computed again" in capsys.readouterr().out) != untouched
    assert again.signals(rows.collate([0, 1, 2])).blocks[0][:, 0].tolist() == [10.0, 210.0, 310.0]


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", '{"key": 3}', "\0\0\0\0", '{"key": {}}', '{"rows_written": 3}'])
def test_a_damaged_record_is_one_line_that_says_what_to_do(tmp_path, record):
    rows, key = four_users("last"), replace(KEY, hidden_size=2)
    cached_teacher(tmp_path / "cache", key, rows, PROJECTION, lambda: KnownTeacher("last"), batch_size=4)
    (tmp_path / "cache" / "cache.json").write_text(record)
    with pytest.raises(InputError, match=r"cache\.json: not .*; delete .*cache, and its states are computed again"):
        cached_teacher(tmp_path / "cache", key, rows, PROJECTION, lambda: KnownTeacher("last"), batch_size=4)


@pytest.mark.parametrize("changes", [{"rows_written": 0}, {"rows_written": -1}, {"rows_written": 99}, {"sha256": None}])
def test_a_record_that_cannot_be_is_not_believed(tmp_path, changes):
    rows, key, teacher = four_users("last"), replace(KEY, hidden_size=2), KnownTeacher("last")
    cached_teacher(tmp_path / "cache", key, rows, PROJECTION, lambda: KnownTeacher("last"), batch_size=4)
    write_json(tmp_path / "cache" / "cache.json", read_json(tmp_path / "cache" / "cache.json") | changes)
    cached_teacher(tmp_path / "cache", key, rows, PROJECTION, lambda: teacher, batch_size=4)
    assert teacher.users_seen == [0, 2, 3]


@pytest.mark.parametrize("cut", [False, True])
def test_no_kill_at_any_file_event_spoils_a_cache(tmp_path, monkeypatch, cut):
    monkeypatch.setattr(cache, "RECORD_SECONDS", -1.0)
    rows, key = four_users("last"), replace(KEY, hidden_size=2)
    number, deaths = 0, 0
    while deaths == number:
        number += 1
        place = tmp_path / str(number)
        place.mkdir()
        with watching(place, at=number, cut=cut) as watch:
            cached_teacher(place / "cache", key, rows, PROJECTION, lambda: KnownTeacher("last"), batch_size=1)
        deaths += watch.dead
        whole = cached_teacher(place / "cache", key, rows, PROJECTION, lambda: KnownTeacher("last"), batch_size=1)
        assert whole.signals(rows.collate([0, 1, 2])).blocks[0][:, 0].tolist() == [10.0, 210.0, 310.0], watch.events[-1]
        assert sorted(path.name for path in place.iterdir()) == ["cache"]
    assert deaths > 10


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.os, "posix_fallocate", full)
    with pytest.raises(OSError) as error:
        cached_teacher(tmp_path / "cache", KEY, four_users("last"), PROJECTION, lambda: KnownTeacher("last"), batch_size=4)
    assert (
        in_one_line(error.value)
        == f"{tmp_path / 'cache' / 'states.npy'}: no space is left on its disk; make room and start again"
    )


CHANGES = [{"teacher": "bbb"}, {"data": "eee"}, {"layers": [2]}, {"max_length": 20}, {"dtype": "bfloat16"}]


@pytest.mark.parametrize("change", CHANGES)
def test_a_cache_of_something_else_is_refused_naming_both(tmp_path, change):
    rows, key = four_users("last"), replace(KEY, hidden_size=2)
    cached_teacher(tmp_path, key, rows, PROJECTION, lambda: KnownTeacher("last"), batch_size=4)
    before = (tmp_path / "states.npy").read_bytes()
    with pytest.raises(InputError) as refusal:
        cached_teacher(tmp_path, replace(key, **change), rows, PROJECTION, lambda: KnownTeacher("last"), batch_size=4)
    ((name, value),) = change.items()
    assert f"{name} {getattr(key, name)}, this run has {value}" in str(refusal.value)
    assert (tmp_path / "states.npy").read_bytes() == before


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(InputError, match="neither a cache of teacher states .* nor an empty directory"):
        cached_teacher(tmp_path, KEY, four_users("last"), PROJECTION, lambda: KnownTeacher("last"), batch_size=4)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["lock", "states.npy"])
def test_files_of_our_names_in_a_directory_of_somebody_else_stay(tmp_path, name):
    (tmp_path / name).write_text("do not touch")
    with pytest.raises(InputError, match="neither a cache of teacher states .it has no cache.json. nor an empty directory"):
        cached_teacher(tmp_path, KEY, four_users("last"), PROJECTION, lambda: KnownTeacher("last"), batch_size=4)
    assert (tmp_path / name).read_text() == "do not touch"


def test_states_that_do_not_fit_are_refused_before_the_teacher_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(2**20))
    key = replace(KEY, hidden_size=2**20)  # 3 rows x 2 blocks x 2^20 x 4 bytes = 24 MiB, 1 MiB free
    with pytest.raises(InputError, match=r"0\.02 GiB for teacher states of 3 positions x 2 blocks .* 0\.00 GiB are free"):
        cached_teacher(tmp_path, key, four_users("last"), PROJECTION, lambda: pytest.fail("must not be loaded"), batch_size=4)
    assert not (tmp_path / "states.npy").exists()


def test_the_size_is_announced(tmp_path, capsys):
    cached_teacher(
        tmp_path, replace(KEY, hidden_size=2), four_users("last"), PROJECTION, lambda: KnownTeacher("last"), batch_size=4
    )
    assert "0.00 GiB for teacher states of 3 positions x 2 blocks x 2 float32" in capsys.readouterr().out


def losses(directory):
    history = json.loads((directory / "metrics.json").read_text())["history"]
    return [entry["train"] for entry in history]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_distilling_from_the_cache_gives_the_same_losses(tmp_path, tiny_teacher, tiny_flags, monkeypatch, precision):
    flags = {"teacher": tiny_teacher, "num_blocks": 2, "precision": precision}
    cached = flags | {"teacher_cache": tmp_path / "cache"}
    distill.main(tiny_flags(output_dir=tmp_path / "plain", **flags))
    distill.main(tiny_flags(output_dir=tmp_path / "cached", **cached))
    for ours, theirs in zip(losses(tmp_path / "cached"), losses(tmp_path / "plain"), strict=True):
        assert set(ours) == {"loss", "loss_ce", "loss_cos", "loss_norm", "loss_ms"}
        assert ours == pytest.approx(theirs, rel=1e-4 if precision == "fp32" else 2e-2)
    monkeypatch.setattr(distill, "load_ellmrec", lambda *_, **__: pytest.fail("the cache is whole"))
    distill.main(tiny_flags(output_dir=tmp_path / "other", lambda_norm=0.01, **cached))  # a sweep reuses it
    assert losses(tmp_path / "other")[-1] != losses(tmp_path / "cached")[-1]
