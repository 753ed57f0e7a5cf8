import pytest
import torch

from slmrec.encoders.gru4rec import GRU4Rec, time_major


def loop_forward(model, items):
    """One user's history, one item and one layer at a time, as the head of gru4rec.py describes it."""
    inputs = [normalised(model.item_embedding.weight[item], model.input_norm) for item in items.tolist()]
    for layer in range(model.gru.num_layers):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        w, u, b, b_state = (getattr(model.gru, f"{name}_l{layer}").chunk(3) for name in names)  # reset, update, candidate
        state, outputs = torch.zeros_like(inputs[0]), []
        for x in inputs:
            reset = torch.sigmoid(w[0] @ x + b[0] + u[0] @ state + b_state[0])
            keep = torch.sigmoid(w[1] @ x + b[1] + u[1] @ state + b_state[1])
            candidate = torch.tanh(w[2] @ x + b[2] + reset * (u[2] @ state + b_state[2]))
            state = (1 - keep) * candidate + keep * state
            outputs.append(state)
        inputs = outputs
    outputs = [model.output_layer.weight @ state + model.output_layer.bias for state in inputs]
    return torch.stack([normalised(output, model.output_norm) for output in outputs])


def normalised(vector, norm):
    """Layer normalisation (Ba et al. 2016) with the learned scale and shift of `norm`."""
    centred = vector - vector.mean()
    return centred / (centred.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias


def test_equals_a_loop_over_users_layers_and_items(make_encoder, stirred, make_batch, rows_of):
    model, batch = stirred(make_encoder("gru4rec")), make_batch([1, 6, 3, 6, 2])
    with torch.no_grad():
        expected = [loop_forward(model, row) for row in rows_of(batch)]
        torch.testing.assert_close(model.encode_positions(batch), torch.cat(expected), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.encode(batch), torch.stack([rows[-1] for rows in expected]), atol=1e-5, rtol=1e-5)


def test_time_major_by_hand():
    """Rows a, b0 b1 b2, c0 c1 at 0, 1 2 3, 4 5: first b0 c0 a, then b1 c1, then b2."""
    order, running = time_major(torch.tensor([1, 3, 2]))
    assert order.tolist() == [1, 4, 0, 2, 5, 3]
    assert running.tolist() == [3, 2, 1]


def test_a_single_item_is_one_step_from_nothing():
    """With h_0 = 0 nothing but the biases of the state's side remains."""
    torch.manual_seed(0)
    one = GRU4Rec(num_items=3, hidden_size=4, num_layers=1, dropout=0.0, max_length=5).eval()
    gates = one.gru.weight_ih_l0 @ one.input_norm(one.item_embedding.weight[2]) + one.gru.bias_ih_l0
    (reset, keep, candidate), state_bias = gates.chunk(3), one.gru.bias_hh_l0.chunk(3)
    state = (1 - (keep + state_bias[1]).sigmoid()) * torch.tanh(candidate + (reset + state_bias[0]).sigmoid() * state_bias[2])
    vector = one.encode({"history": torch.tensor([2]), "lengths": torch.tensor([1])})
    torch.testing.assert_close(vector[0], one.output_norm(one.output_layer(state)))


def test_states_start_as_running_means_of_what_was_read(make_encoder):
    model = make_encoder("gru4rec").eval()
    with torch.no_grad():
        for name, weight in model.gru.named_parameters():
            if name.startswith(("weight_hh", "bias")):
                weight.zero_()
            else:
                weight[:16].zero_()  # the gates: both half open
        first, second = model.input_norm(model.item_embedding.weight[torch.tensor([3, 5])])
        lower = [first.tanh() / 2, first.tanh() / 4 + second.tanh() / 2]
        upper = lower[0].tanh() / 4 + lower[1].tanh() / 2
        vector = model.encode({"history": torch.tensor([3, 5]), "lengths": torch.tensor([2])})[0]
    torch.testing.assert_close(vector, normalised(upper, model.output_norm))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_one_layer_has_no_dropout_between_layers(num_layers, recwarn):
    model = GRU4Rec(num_items=3, hidden_size=4, num_layers=num_layers, dropout=0.5, max_length=5)
    assert model.gru.dropout == (0.5 if num_layers == 2 else 0.0)
    assert not recwarn.list
