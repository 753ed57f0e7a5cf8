from reproduce.efficiency.memory_table import GIB, SHAPES, rows_of_table


def test_llama_7b_by_hand():
    """32000 x 4096 token embeddings and 202,383,360 weights a layer (Table 5), two bytes each; sharing saves the student's."""
    llama = next(shape for shape in SHAPES if shape.name == "7B")
    assert llama.layer_weights() == 4 * 4096**2 + 3 * 4096 * 11_008 + 2 * 4096 == 202_383_360
    assert llama.frozen(4, "bf16") == 2 * (32_000 * 4096 + 4 * 202_383_360)
    assert llama.frozen(4, "4 bits") == 2 * 32_000 * 4096 + 4 * 202_383_360 * (0.5 + 4 / 64)
    shared, not_shared = (float(cell) for cell in next(row for row in rows_of_table() if row[:3] == ["7B", "bf16", "32"])[5:7])
    assert abs(not_shared - shared - llama.frozen(4, "bf16") / GIB) < 0.06
