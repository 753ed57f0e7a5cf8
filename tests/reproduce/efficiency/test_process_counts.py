"""Which runs the comparison of process counts is made of, and how it goes on."""

import pytest

from reproduce.efficiency import process_counts
from reproduce.efficiency.process_counts import ProcessArguments, compare_all, measured_before, turns
from slmrec.artifacts import write_json


def test_each_stage_is_tried_with_every_launcher_and_killed():
    everywhere = [
        ("torchrun", 2, None),
        ("torchrun", 4, None),
        ("accelerate", 2, None),
        ("accelerate", 4, None),
        ("launch", 2, None),
    ]
    assert turns(ProcessArguments(), "finetune") == [*everywhere, ("torchrun", 2, 0)]
    assert turns(ProcessArguments(), "distill, LoRA") == [*everywhere, ("fsdp", 2, None), ("torchrun", 2, 0)]
    assert turns(ProcessArguments(), "evaluate") == everywhere


@pytest.mark.parametrize("change, goes_on", [({}, True), ({"dirty": True}, False), ({"commit": "b"}, False)])
def test_what_the_file_holds_of_this_commit_is_not_run_again(tmp_path, monkeypatch, change, goes_on):
    here = {"commit": "a", "dirty": False}
    arguments = ProcessArguments(stages=["evaluate"], json=str(tmp_path / "counts.json"))
    assert measured_before(arguments.json) == []
    records = [dict(zip(("launcher", "processes", "kill"), turn), stage="evaluate") for turn in turns(arguments, "evaluate")]
    write_json(arguments.json, {"measured": records, "environment": {"git": here}})
    monkeypatch.setattr(process_counts, "git_state", lambda: here | change)
    assert measured_before(arguments.json) == (records if goes_on else [])
    assert not list(compare_all(arguments, tmp_path / "runs", records)) and not (tmp_path / "runs").exists()
