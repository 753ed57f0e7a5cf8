import hashlib
import json
import os

import pytest

from slmrec.artifacts import (
    Stage,
    file_input,
    first_difference,
    input_directory,
    read_json,
    read_manifest,
    require_same_item_map,
    stage_input,
    write_json,
)
from slmrec.errors import InputError


def run(directory, config=None, inputs=None, text="result", name="made", metrics=None, **options):
    stage = Stage(name, directory, config or {"size": 1}, inputs or {}, **options)
    if not stage.up_to_date:
        with stage:
            (stage.path / "result.txt").write_text(text)
            stage.metrics = metrics
    return stage


def test_a_finished_stage_has_its_name_and_a_manifest(tmp_path):
    run(tmp_path / "out", {"size": 3}, metrics={"MRR": 0.5}, item_map="abc", seed=7)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "manifest.json", "metrics.json", "result.txt", "run.json"}
    assert read_json(tmp_path / "out" / "config.json") == {"size": 3}
    assert read_json(tmp_path / "out" / "metrics.json") == {"MRR": 0.5}
    manifest = read_manifest(tmp_path / "out", "made")
    assert manifest["outputs"]["result.txt"] == {"bytes": 6, "sha256": hashlib.sha256(b"result").hexdigest()}
    assert set(manifest["outputs"]) == {"config.json", "metrics.json", "result.txt"}
    expected = {"stage": "made", "schema_version": 1, "config": {"size": 3}, "item_map": "abc", "seed": 7}
    assert {name: manifest[name] for name in expected} == expected
    assert (manifest["device"], manifest["resumed"]) == ("cpu", False)
    assert manifest["wall_seconds"] >= 0 and manifest["libraries"]["torch"] and set(manifest["git"]) == {"commit", "dirty"}


def test_nothing_has_the_name_while_the_stage_runs(tmp_path):
    with Stage("made", tmp_path / "out", {}, {}) as stage:
        assert stage.path == tmp_path / "out.partial" and stage.path.is_dir() and not (tmp_path / "out").exists()
        with pytest.raises(InputError, match="out: its stage has not finished yet"):
            read_manifest(tmp_path / "out")


def test_second_run_is_up_to_date(tmp_path, capsys):
    assert not run(tmp_path / "out").up_to_date
    assert run(tmp_path / "out", text="never written").up_to_date
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: up to date\n"
    assert (tmp_path / "out" / "result.txt").read_text() == "result"


def test_tuples_in_a_configuration_are_lists_to_it(tmp_path):
    run(tmp_path / "out", {"layers": (1, 2)})
    assert run(tmp_path / "out", {"layers": [1, 2]}).up_to_date


@pytest.mark.parametrize(
    "config, message",
    [
        ({"size": 2, "deep": {"a": [1], "b": None}}, "config.size = 1, this one has 2"),
        ({"size": 1, "deep": {"a": [2], "b": None}}, r"config.deep.a = \[1\], this one has \[2\]"),
        ({"size": 1, "deep": {"a": [1]}, "new": "x"}, "config.new = None, this one has 'x'"),
    ],
)
def test_the_differing_key_is_named(tmp_path, config, message):
    run(tmp_path / "out", {"size": 1, "deep": {"a": [1], "b": None}})
    with pytest.raises(InputError, match=f"out: holds a finished run with {message} .--overwrite_output_dir replaces it"):
        run(tmp_path / "out", config)


def test_another_stage_is_not_replaced(tmp_path):
    run(tmp_path / "out")
    with pytest.raises(InputError, match="stage = 'made', this one has 'other'"):
        run(tmp_path / "out", name="other")


def test_overwriting_replaces_another_run_only_when_the_new_one_is_whole(tmp_path):
    run(tmp_path / "out")
    with pytest.raises(RuntimeError), Stage("made", tmp_path / "out", {"size": 2}, {}, overwrite=True):
        raise RuntimeError("broken")
    assert read_manifest(tmp_path / "out")["config"] == {"size": 1}
    run(tmp_path / "out", {"size": 2}, text="new", overwrite=True)
    assert read_manifest(tmp_path / "out")["config"] == {"size": 2} and (tmp_path / "out" / "result.txt").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_that_no_stage_wrote_is_never_replaced(tmp_path, overwrite):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="out: not a stage directory"):
        run(tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


def test_an_empty_directory_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    run(tmp_path / "out")
    assert read_manifest(tmp_path / "out")["stage"] == "made"


@pytest.mark.parametrize("resumable", [False, True])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_an_exception_leaves_nothing_but_checkpoints(tmp_path, resumable, checkpoint):
    with pytest.raises(RuntimeError), Stage("made", tmp_path / "out", {}, {}, resumable=resumable) as stage:
        if checkpoint:
            (stage.path / "checkpoint-1").mkdir()
        raise RuntimeError("broken")
    assert [path.name for path in tmp_path.iterdir()] == (["out.partial"] if resumable and checkpoint else [])


def killed(directory, config, **options):
    """Leave a stage as a kill does: entered and never left, with a file and a checkpoint in it."""
    stage = Stage("made", directory, config, {}, **options).__enter__()
    (stage.path / "half.txt").write_text("half")
    (stage.path / "checkpoint-1").mkdir()


def test_a_killed_run_is_resumed_from_its_checkpoints_alone(tmp_path):
    killed(tmp_path / "out", {"size": 1}, resumable=True)
    with Stage("made", tmp_path / "out", {"size": 1}, {}, resumable=True) as stage:
        assert stage.resumed and (stage.path / "checkpoint-1").is_dir()
        (stage.path / "whole.txt").write_text("whole")
    manifest = read_manifest(tmp_path / "out")
    assert manifest["resumed"] and set(manifest["outputs"]) == {"config.json", "whole.txt"}
    assert not (tmp_path / "out" / "half.txt").exists()


def test_a_killed_run_that_cannot_be_resumed_starts_afresh(tmp_path):
    killed(tmp_path / "out", {"size": 1})
    with Stage("made", tmp_path / "out", {"size": 1}, {}) as stage:
        assert not stage.resumed and not (stage.path / "half.txt").exists()


def test_a_killed_run_of_another_configuration(tmp_path):
    killed(tmp_path / "out", {"size": 1}, resumable=True)
    other = Stage("made", tmp_path / "out", {"size": 2}, {}, resumable=True)
    with pytest.raises(InputError, match="out.partial: holds an unfinished run with config.size = 1, this one has 2"), other:
        raise AssertionError("never entered")
    assert (tmp_path / "out.partial" / "half.txt").exists()
    with Stage("made", tmp_path / "out", {"size": 2}, {}, resumable=True, overwrite=True) as stage:
        assert not stage.resumed and not (stage.path / "half.txt").exists()


def test_checkpoints_and_logs_may_be_deleted_and_outputs_may_not(tmp_path):
    with Stage("made", tmp_path / "out", {}, {}) as stage:
        for name in ("checkpoint-5", "runs", "backbone"):
            (stage.path / name).mkdir()
            (stage.path / name / "file").write_text(name)
    manifest = read_manifest(tmp_path / "out")
    assert set(manifest["outputs"]) == {"config.json", "backbone/file"}
    (tmp_path / "out" / "checkpoint-5" / "file").unlink()
    assert read_manifest(tmp_path / "out") == manifest
    (tmp_path / "out" / "backbone" / "file").write_text("short")
    with pytest.raises(InputError, match="backbone/file: missing or not the 8 bytes that manifest.json records"):
        read_manifest(tmp_path / "out")
    (tmp_path / "out" / "backbone" / "file").unlink()
    with pytest.raises(InputError, match="backbone/file: missing"):
        read_manifest(tmp_path / "out")


def test_a_configuration_file_of_the_stage_itself_is_kept(tmp_path):
    with Stage("made", tmp_path / "out", {"size": 1}, {}) as stage:
        write_json(stage.path / "config.json", {"model_type": "llama"})
    assert read_json(tmp_path / "out" / "config.json") == {"model_type": "llama"}
    assert read_manifest(tmp_path / "out")["config"] == {"size": 1}


# -- inputs -------------------------------------------------------------------------------------------------------------------


def test_inputs_are_compared_by_content_and_not_by_place(tmp_path):
    for name, text in (("a", "same"), ("b", "same"), ("c", "other")):
        run(tmp_path / name, text=text)
    run(tmp_path / "out", inputs={"source": stage_input(tmp_path / "a", "made")})
    assert run(tmp_path / "out", inputs={"source": stage_input(tmp_path / "b")}).up_to_date
    with pytest.raises(InputError, match="holds a finished run with inputs.source = "):
        run(tmp_path / "out", inputs={"source": stage_input(tmp_path / "c")})


def test_a_file_as_input(tmp_path):
    (tmp_path / "file").write_text("content")
    expected = {"file": "file", "digest": hashlib.sha256(b"content").hexdigest(), "path": str(tmp_path / "file")}
    assert file_input(tmp_path / "file") == expected
    run(tmp_path / "out", inputs={"source": file_input(tmp_path / "file")})
    assert "path" not in read_manifest(tmp_path / "out")["inputs"]["source"]
    with pytest.raises(InputError, match="nowhere: no such file"):
        file_input(tmp_path / "nowhere")


def test_input_paths_are_relative_to_the_stage_so_that_the_whole_may_move(tmp_path, monkeypatch):
    (tmp_path / "tree").mkdir()
    monkeypatch.chdir(tmp_path / "tree")
    run("data")
    run("models/deep", inputs={"data": stage_input("data")})
    assert read_manifest("models/deep")["inputs"]["data"]["directory"] == os.path.join("..", "..", "data")
    monkeypatch.chdir(tmp_path)
    os.rename("tree", "moved")
    assert input_directory("moved/models/deep", "data").samefile("moved/data")


def test_a_stage_does_not_replace_its_own_input(tmp_path):
    run(tmp_path / "out" / "inner")
    with pytest.raises(InputError, match="would replace its own input"):
        run(tmp_path / "out", inputs={"source": stage_input(tmp_path / "out" / "inner")})


def test_directories_that_are_no_stage(tmp_path):
    run(tmp_path / "out")
    with pytest.raises(InputError, match="nowhere: no such directory"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a stage directory .it has no manifest.json"):
        read_manifest(tmp_path)
    with pytest.raises(InputError, match="holds a 'made' stage where 'data' or 'encoder' is needed"):
        read_manifest(tmp_path / "out", ("data", "encoder"))


def test_item_maps_must_agree(tmp_path):
    for name, item_map in (("a", "x"), ("b", "x"), ("c", "y")):
        run(tmp_path / name, item_map=item_map)
    require_same_item_map(tmp_path / "a", tmp_path / "b")
    with pytest.raises(InputError, match=r"a and .*c do not number the same items \(item-map digests x and y\)"):
        require_same_item_map(tmp_path / "a", tmp_path / "c")


def test_first_difference():
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 1}}) is None
    assert first_difference({"a": {"b": 1}, "c": 1}, {"a": {"b": 2}, "c": 2}) == ("a.b", 1, 2)
    assert first_difference({"a": 1}, {"a": {"b": 1}}) == ("a", 1, {"b": 1})
    assert first_difference({}, {"a": 0}) == ("a", None, 0)


def test_json_is_written_whole_and_read_with_a_clear_error(tmp_path):
    write_json(tmp_path / "file.json", {"name": "é"})
    assert json.loads((tmp_path / "file.json").read_text(encoding="utf-8")) == {"name": "é"} == read_json(tmp_path / "file.json")
    with pytest.raises(TypeError):
        write_json(tmp_path / "file.json", {"name": object()})
    assert read_json(tmp_path / "file.json") == {"name": "é"} and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "file.json").write_text('{"name": ')
    with pytest.raises(InputError, match="file.json: not valid JSON"):
        read_json(tmp_path / "file.json")
