"""Some seconds of the campaign of damaged inputs; `python -m tests.campaign.mutate_inputs` runs as much of it as one likes."""

import collections
import os
import random
from pathlib import Path

import pytest

from tests.campaign.mutate_inputs import SEEDS, try_files

SHARED = os.environ.get("SLMREC_SHARED")


@pytest.mark.skipif(not SHARED, reason="SLMREC_SHARED names no folder with the shared cases")
@pytest.mark.parametrize("kind", SEEDS)
def test_damaged_files_are_read_as_the_plain_reader_does_or_refused(tmp_path, kind):
    tried = list(try_files(kind, 60, random.Random(kind), Path(SHARED) / "cases", tmp_path))
    assert not [(what, detail) for what, _, detail in tried if what.startswith("WRONG")]
    outcomes = collections.Counter(what for what, _, _ in tried)
    both = ("read", "refused") if kind == "meta" else ("read by both, equal", "refused, the plain reader refused it")
    assert min(outcomes[what] for what in both) > 10
