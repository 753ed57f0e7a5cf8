import pytest
import torch

from slmrec.encoders.caser import latest_items


@pytest.fixture
def model(make_encoder, stirred):
    return stirred(make_encoder("caser", max_length=4))


def loop_window(model, items, user):
    """The vector after the last of `items`, filter by filter, as the head of caser.py describes it."""
    length, width = model.max_length, model.item_embedding.weight.shape[1]
    image = torch.zeros(length, width)  # E, zeros in front
    for place, item in enumerate(reversed(items.tolist()[-length:])):
        image[length - 1 - place] = model.item_embedding.weight[item]
    horizontal = []
    for height in range(1, length + 1):
        conv = model.horizontal[height - 1]
        for weight, bias in zip(conv.weight, conv.bias, strict=True):  # F^T [d, h] and b
            values = [torch.relu((image[i : i + height] * weight.T).sum() + bias) for i in range(length - height + 1)]
            horizontal.append(max(values))
    vertical = torch.stack([image.T @ weights for weights in model.vertical.weight], dim=1).flatten()  # [d * n_v]
    features = torch.cat([torch.stack(horizontal), vertical])
    layer = model.short_term[0]
    z = torch.relu(layer.weight @ features + layer.bias)
    joined = torch.cat([z, model.user_embedding.weight[user]])
    return model.output_layer.weight @ joined + model.output_layer.bias


def test_equals_a_loop_over_windows_and_filters(model, make_batch, rows_of):
    batch = make_batch([1, 4, 3, 6, 2]) | {"users": torch.tensor([3, 0, 11, 2, 19])}
    with torch.no_grad():
        expected = [
            torch.stack([loop_window(model, items[: end + 1], user) for end in range(len(items))])
            for user, items in zip(batch["users"], rows_of(batch), strict=True)
        ]
        torch.testing.assert_close(model.encode_positions(batch), torch.cat(expected), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.encode(batch), torch.stack([rows[-1] for rows in expected]), atol=1e-5, rtol=1e-5)


def test_latest_items_by_hand():
    """Rows 7 and 4 5 6: nothing of one row stands in a window of the other."""
    windows = latest_items(torch.tensor([7, 4, 5, 6]), torch.tensor([1, 3]), 2)
    assert windows.tolist() == [[0, 7], [0, 4], [4, 5], [5, 6]]


def test_only_the_latest_items_are_read(model, make_batch):
    """A window of four: what came before it has no influence, what is in it has."""
    batch = make_batch([6])
    before = model.encode(batch)
    for changed in range(6):
        history = batch["history"].clone()
        history[changed] = history[changed] % 40 + 1
        assert torch.equal(model.encode(batch | {"history": history}), before) == (changed < 2)


def test_a_new_model_passes_on_the_sum_of_its_items_and_the_user(make_encoder):
    """With the other features switched off: ReLU of four times the sum of the items, plus the user."""
    model = make_encoder("caser", max_length=4).eval()
    # after 3 horizontal filters of 4 heights; 2 vertical ones
    first_filter = model.short_term[0].weight.detach().clone()[:, 3 * 4 :: 2]
    with torch.no_grad():
        model.short_term[0].weight.zero_()[:, 3 * 4 :: 2] = torch.eye(8)
        for bias in (model.short_term[0].bias, model.output_layer.bias):
            bias.zero_()
        vector = model.encode({"history": torch.tensor([5, 9]), "lengths": torch.tensor([2]), "users": torch.tensor([3])})
        items = model.item_embedding.weight[[5, 9]].sum(0)
        torch.testing.assert_close(vector[0], torch.relu(4 * items) + model.user_embedding.weight[3])
    assert torch.equal(first_filter, torch.eye(8))
