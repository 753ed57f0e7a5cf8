"""The table of smaller models: what is measured, and that it can be rendered."""

import json
import shutil

import pytest

from reproduce.analysis import quantise
from reproduce.summarise import Runs, summarise
from reproduce.summary import check_summary
from reproduce.tables import tables
from slmrec.artifacts import read_json


def test_measured_summarised_and_shown(tiny_teacher, tiny_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(quantise, "held_memory", lambda *_: 1.5)  # a process each takes seconds to start
    monkeypatch.setattr(quantise, "ONES", 2)
    opened = quantise.opened

    def refuses(directory, kind):
        if kind == "pruned":
            raise NotImplementedError("not on this machine\nmore")
        return opened(directory, kind)

    monkeypatch.setattr(quantise, "opened", refuses)
    shutil.copytree(tiny_data, tmp_path / "mine" / "data")
    shutil.copytree(tiny_teacher, tmp_path / "mine" / "e4srec_8")
    model = tmp_path / "mine" / "e4srec_8"
    flags = ["--model", str(model), "--data", str(tmp_path / "mine" / "data"), "--repeats", "1", "--device", "cpu"]
    quantise.main([*flags, "--kinds", "bf16", "pruned", "neurons"])
    found = read_json(model / "quantise-test" / "metrics.json")
    assert list(found["kinds"]) == ["fp32", "bf16", "neurons"] and found["refused"] == {"pruned": "not on this machine"}
    assert found["kinds"]["bf16"]["bytes_on_disk"] < found["kinds"]["fp32"]["bytes_on_disk"]
    assert found["kinds"]["fp32"]["speed_over_fp32"] == {"1": 1.0, "512": 1.0} and found["kinds"]["fp32"]["test"] is None
    assert found["kinds"]["neurons"]["test"]["users"] == 48
    assert "refused: not on this machine" in capsys.readouterr().out
    summary = json.loads(json.dumps(summarise(Runs.below(tmp_path / "mine"))["quantise"]))
    check_summary(summary, "here")
    (table,) = tables(summary)
    assert [row[2] for row in table.rows] == ["fp32", "bf16", "neurons", "pruned"]
    assert table.rows[3][3] == "refused: not on this machine" and all(len(row) == len(table.header) for row in table.rows)


def test_one_model_and_one_kind_that_there_is():
    with pytest.raises(Exception, match="--kinds int3"):
        quantise.QuantiseArguments(model="x", kinds=["int3"])
