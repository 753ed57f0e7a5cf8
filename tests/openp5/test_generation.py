"""What the ways of ranking cost a user: tokens counted by hand, and beams that are as many as items find all of the top ten."""

import numpy as np
import pytest
import torch

from reproduce.analysis.generation import compare
from slmrec.data.batches import SplitRows


def test_tokens_and_overlap_by_hand(small_data, make_openp5):
    model = make_openp5(small_data)
    rows, users = SplitRows(small_data, "test", 10), np.array([2, 7])
    with torch.no_grad():
        found = compare(model, rows, users, 1, torch.device("cpu"))
    prompts = [len(prompt) for prompt in model.prompts(rows.collate(users))]
    exact, ten, all_items = found["ways"].values()
    assert list(found["ways"]) == ["exact scores", "10 beams", "25 beams"]
    assert exact["tokens_per_user"] == max(prompts) + len(model.trie.inner) - 1  # the root is the prompt's end
    steps = max(map(len, model.index.responses))  # of which the first needs the prompt, once for each beam
    assert ten["tokens_per_user"] == pytest.approx(10 * (np.mean(prompts) + steps), abs=10)
    assert all_items["users"] == 1 and all_items["tokens_per_user"] > exact["tokens_per_user"]
    assert 0 < found["overlap_at_10"] <= 1
    hours = all_items["seconds_per_user"] * len(rows) / 3600
    assert all_items["hours_for_all_users_extrapolated"] == pytest.approx(hours)
