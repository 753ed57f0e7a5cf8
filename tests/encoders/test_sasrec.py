import torch


def test_equals_a_loop_over_users_heads_and_positions(make_encoder, stirred, make_batch, rows_of, loop_blocks):
    model, batch = stirred(make_encoder("sasrec")), make_batch([1, 6, 3, 6, 2])
    with torch.no_grad():
        expected = [loop_blocks(model, model.item_embedding.weight[row], causal=True)[-1] for row in rows_of(batch)]
        torch.testing.assert_close(model.encode_positions(batch), torch.cat(expected), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.encode(batch), torch.stack([rows[-1] for rows in expected]), atol=1e-5, rtol=1e-5)
