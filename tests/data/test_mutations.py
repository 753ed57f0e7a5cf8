"""Some seconds of the campaign of damaged inputs; `python -m tests.campaign.mutate_inputs` runs as much of it as one likes."""

import collections
import os
from pathlib import Path

import pytest

from tests.campaign.mutate_inputs import campaign

SHARED = os.environ.get("SLMREC_SHARED")


@pytest.mark.skipif(not SHARED, reason="SLMREC_SHARED names no folder with the shared cases")
def test_damaged_files_are_read_as_the_plain_reader_does_or_refused(tmp_path):
    counts, wrong = campaign(1, 300, Path(SHARED) / "cases", tmp_path)
    assert not wrong
    outcomes = collections.Counter()
    for (_, what), number in counts.items():
        outcomes[what] += number
    assert outcomes["read by both, equal"] > 80 and outcomes["refused, the plain reader refused it"] > 80
