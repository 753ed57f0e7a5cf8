import pytest

from slmrec.distillation.alignment import block_ends
from slmrec.errors import InputError


@pytest.mark.parametrize(
    "num_layers, num_blocks, ends",
    [(8, 4, (2, 4, 6, 8)), (4, 4, (1, 2, 3, 4)), (8, 2, (4, 8)), (32, 4, (8, 16, 24, 32)), (6, 1, (6,)), (1, 1, (1,))],
)
def test_last_layer_of_each_block(num_layers, num_blocks, ends):
    assert block_ends(num_layers, num_blocks, "teacher") == ends


@pytest.mark.parametrize("num_layers, num_blocks", [(8, 3), (4, 8), (4, 0), (4, -2)])
def test_blocks_that_do_not_divide_the_layers(num_layers, num_blocks):
    with pytest.raises(InputError, match=f"--num_blocks {num_blocks} does not divide the student's {num_layers} layers"):
        block_ends(num_layers, num_blocks, "student")
