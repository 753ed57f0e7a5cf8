"""The block that the self-attentive recommenders share, at its start; its equations are tested with each model."""

import torch

from slmrec.encoders.transformer import Block, initialise
from slmrec.packing import pack_rows


def test_a_new_block_passes_on_the_mean_of_what_a_slot_sees():
    torch.manual_seed(0)
    block = Block(8, 2, 0.0).eval()
    block.apply(initialise)
    with torch.no_grad():
        block.query_key_value.weight[:16] = 0.0  # alike weights for all that is seen; small random ones come close
        states, packing = torch.randn(5, 8), pack_rows([2, 3], 4)
        attended = block.attend(states, packing, packing.causal_mask().unsqueeze(1))
    rows = [states[:2], states[2:]]
    expected = torch.cat([torch.stack([row[: t + 1].mean(0) for t in range(len(row))]) for row in rows])
    torch.testing.assert_close(attended, expected)
