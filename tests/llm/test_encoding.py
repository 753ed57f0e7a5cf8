"""Reference encoding against forward passes laid out by hand, and exact encoding against the reference."""

import itertools

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModel, GPT2Config, GPT2Model, LlamaConfig, MistralConfig, MistralModel, Qwen2Config

from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import load_dataset
from slmrec.errors import InputError
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.llm.backbone import plain_backbone
from slmrec.llm.ellmrec import ENCODINGS, EllmRecommender, next_item_objective
from slmrec.llm.encoding import PromptedRows, exact_states, reference_states
from slmrec.llm.prompt import Prompt

MIXED = [5, 1, 30, 7, 0, 13, 2, 29, 6, 0, 30, 3]


def rows_of(model, batch, read="last"):
    decoder = plain_backbone(model.backbone)
    embed = decoder.get_input_embeddings()
    items = model.item_projection(model.item_embeddings[batch["history"]])
    return PromptedRows(items, batch["lengths"].numpy(), embed(model.before), embed(model.after), model.max_length, read)


def layer_outputs(decoder, **inputs):
    """Output of every decoder layer of one forward pass, caught by hooks; the last one after the final norm."""
    caught = []
    hooks = [layer.register_forward_hook(lambda module, args, output: caught.append(output)) for layer in decoder.layers]
    final = decoder(**inputs, use_cache=False).last_hidden_state
    for hook in hooks:
        hook.remove()
    return [*caught[:-1], final]


def one_row_by_hand(model, history):
    """The 99 tokens of one row, laid out token by token: vectors [1, 99, d], mask [1, 99], position ids 0..98."""
    embed = plain_backbone(model.backbone).get_input_embeddings()
    vectors, mask = [], []
    for token in model.prompt.before:
        vectors.append(embed(torch.tensor(token)))
        mask.append(1)
    for slot in range(30):
        first = 30 - len(history)
        if slot < first:
            vectors.append(torch.full((32,), 7.0))  # whatever padding holds must not matter
            mask.append(0)
        else:
            item = history[slot - first]
            vectors.append(model.item_projection(model.item_embeddings[item]))
            mask.append(1)
    for token in model.prompt.after:
        vectors.append(embed(torch.tensor(token)))
        mask.append(1)
    return torch.stack(vectors).unsqueeze(0), torch.tensor([mask]), torch.arange(len(mask)).unsqueeze(0)


@pytest.mark.parametrize("length", [0, 1, 4, 30])
@torch.no_grad()
def test_reference_is_a_plain_forward_pass_over_99_tokens(make_recommender, make_batch, length):
    model = make_recommender(num_layers=3)
    batch = make_batch([6, length, 2])
    history = batch["history"][6 : 6 + length].tolist()
    vectors, mask, positions = one_row_by_hand(model, history)
    assert positions.shape == (1, 99) and positions[0, -1] == 98
    expected = layer_outputs(model.backbone, inputs_embeds=vectors, attention_mask=mask, position_ids=positions)
    states = reference_states(model.backbone, rows_of(model, batch), {1, 2, 3})
    for layer in (1, 2, 3):
        torch.testing.assert_close(states[layer][1], expected[layer - 1][0, -1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@torch.no_grad()
def test_padding_is_nothing_but_a_gap_in_the_positions(make_recommender, make_batch, encoding):
    """Row of 4 items without its padding: 62 prompt tokens at 0..61, items at 88..91, closing tokens at 92..98."""
    model = make_recommender(num_layers=2)
    batch = make_batch([4])
    vectors, mask, _ = one_row_by_hand(model, batch["history"].tolist())
    real = vectors[:, mask[0].bool()]
    positions = torch.tensor([[*range(62), 88, 89, 90, 91, *range(92, 99)]])
    mask = torch.ones_like(positions)  # without one, transformers takes the gap for the start of another document
    expected = layer_outputs(model.backbone, inputs_embeds=real, position_ids=positions, attention_mask=mask)[-1][0, -1]
    states = ENCODINGS[encoding](model.backbone, rows_of(model, batch), {2})
    torch.testing.assert_close(states[2][0], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_reading_all_items_gives_each_item_in_order(make_recommender, make_batch):
    model = make_recommender(closing=0, targets="all")
    batch = make_batch([3, 1], "all")
    states = reference_states(model.backbone, rows_of(model, batch, "all"), {2})[2]
    assert states.shape == (4, 32)
    for start, length in [(0, 3), (3, 1)]:
        vectors, mask, positions = one_row_by_hand(model, batch["history"][start : start + length].tolist())
        expected = layer_outputs(model.backbone, inputs_embeds=vectors, attention_mask=mask, position_ids=positions)[-1][0]
        torch.testing.assert_close(states[start : start + length], expected[92 - length :], atol=1e-5, rtol=0)


def states_and_gradients(model, batch, encoding):
    """All states, user vectors and the gradients of every trained tensor for a random weighting of both."""
    model.zero_grad()
    model.encoding = encoding
    layers = tuple(range(1, model.num_layers + 1))
    encoded = model(batch, layers=layers)
    results = {f"layer {layer}": encoded.states[layer] for layer in layers} | {"users": encoded.users}
    results |= {f"block {layer}": users for layer, users in encoded.block_users.items()}
    weights = torch.Generator().manual_seed(1)
    total = sum((torch.randn(result.shape, generator=weights) * result).mean() for result in results.values())
    (total + catalogue_cross_entropy(encoded.users, encoded.items, batch["targets"])).backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name: result.detach() for name, result in results.items()}, gradients


def assert_same_states_and_gradients(model, batch):
    expected, expected_gradients = states_and_gradients(model, batch, "reference")
    actual, gradients = states_and_gradients(model, batch, "exact")
    assert expected.keys() == actual.keys()
    for name in expected:
        torch.testing.assert_close(
            actual[name], expected[name], atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert expected_gradients.keys() == gradients.keys()
    for name, expected_gradient in expected_gradients.items():
        norm = expected_gradient.norm()
        assert norm > 0, name
        assert (gradients[name] - expected_gradient).norm() <= 1e-4 * norm, name


READINGS = {"last, closing tokens": ("last", 7), "last, no closing tokens": ("last", 0), "all": ("all", 0)}
COMBINATIONS = list(itertools.product((1, 2, 3), (False, True), READINGS, (4, 2), ("llama", "qwen2")))


@pytest.mark.parametrize("num_layers, lora, reading, kv_heads, kind", COMBINATIONS)
def test_exact_equals_reference(make_recommender, make_batch, num_layers, lora, reading, kv_heads, kind):
    targets, closing = READINGS[reading]
    model = make_recommender(
        num_layers, kind, kv_heads, lora=lora, closing=closing, targets=targets, supervised_layers=tuple(range(1, num_layers))
    )
    lengths = MIXED if closing else [length for length in MIXED if length]
    for batch_lengths in (lengths, [4], [30]):
        assert_same_states_and_gradients(model, make_batch(batch_lengths, targets))


def test_exact_equals_reference_when_no_row_has_an_item(make_recommender, make_batch):
    model = make_recommender()
    with torch.no_grad():
        for lengths in ([0], [0, 0, 0]):
            rows = rows_of(model, make_batch(lengths))
            torch.testing.assert_close(exact_states(model.backbone, rows, {1, 2}), reference_states(model.backbone, rows, {1, 2}))


def longrope(original_length):
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    return {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": original_length, **factors}


SHAPES = {
    "mistral": (MistralConfig, {"sliding_window": None, "head_dim": 16}),
    "mistral, window of 16": (MistralConfig, {"sliding_window": 16}),
    "mistral, window of 1": (MistralConfig, {"sliding_window": 1}),
    "mistral, window of 16 in all layers": (MistralConfig, {"sliding_window": 16, "layer_types": ["full_attention"] * 3}),
    "llama, a window that it ignores": (LlamaConfig, {"sliding_window": 16}),
    "mistral, window of a row": (MistralConfig, {"sliding_window": 99}),
    "qwen2, window from layer 2 on": (Qwen2Config, {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1}),
    "llama, biases and head size": (LlamaConfig, {"attention_bias": True, "mlp_bias": True, "head_dim": 16}),
    "llama, longrope, long": (LlamaConfig, {"rope_scaling": longrope(64)}),
    "llama, longrope, short": (LlamaConfig, {"rope_scaling": longrope(256)}),
    "llama, dynamic": (LlamaConfig, {"max_position_embeddings": 48, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
    "llama, linear": (LlamaConfig, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "llama, yarn": (
        LlamaConfig,
        {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}},
    ),
    "llama, llama3": (
        LlamaConfig,
        {
            "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
            | {"original_max_position_embeddings": 64}
        },
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("closing, read", [(7, "last"), (0, "last"), (0, "all")])
@torch.no_grad()
def test_exact_equals_reference_for_every_kind_of_attention_and_position(make_recommender, make_batch, shape, closing, read):
    """Windows shorter than a row count its padding; some rotary embeddings depend on the length of a whole row."""
    build, changes = SHAPES[shape]
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "initializer_range": 0.15}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    decoder = AutoModel.from_config(build(**(sizes | heads | changes)), attn_implementation="sdpa").eval()
    like = make_recommender(closing=closing)
    model = EllmRecommender(decoder, like.item_embeddings, like.prompt, max_length=30)
    rows = rows_of(model, make_batch([length for length in MIXED if length or closing]), read)
    expected = reference_states(decoder, rows, {1, 2, 3})
    torch.testing.assert_close(exact_states(decoder, rows, {1, 2, 3}), expected, atol=1e-5, rtol=0)
    if read == "last":
        model.encoding = "exact"
        answers_alike(model, make_batch(rows.lengths.tolist()))


def answers_alike(model, *batches):
    """What only answers gives the reference's user vectors, and computes nothing of the prompt for them."""
    expected = [model._read_user(model.user_projection, states[model.num_layers]) for states in reference_of(model, batches)]
    ready = model.answering()
    ready.encode(batches[0])  # the prompt is computed once
    seen = []
    ready.backbone.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[:2].numel()))
    for batch, users in zip(batches, expected, strict=True):
        torch.testing.assert_close(ready.encode(batch), users, atol=1e-5, rtol=0)
        tokens = int(batch["lengths"].sum()) + len(batch["lengths"]) * len(model.after)
        assert seen.pop() <= 1.4 * tokens  # without the prompt, and nearly without empty slots
    assert not seen


def reference_of(model, batches):
    return [reference_states(plain_backbone(model.backbone), rows_of(model, batch), {model.num_layers}) for batch in batches]


@pytest.mark.parametrize("lora, closing, kind", [(True, 7, "llama"), (False, 0, "qwen2")])
@torch.no_grad()
def test_answering_equals_reference_for_few_and_many_histories(make_recommender, make_batch, lora, closing, kind):
    model = make_recommender(3, kind, 2, lora=lora, closing=closing)
    many = [length for length in 3 * MIXED if length or closing]
    answers_alike(model, *[make_batch(lengths) for lengths in ([4], [1, 3], [30, 1, 30], [3] * 50, many)])
    assert not isinstance(model.backbone, PeftModel) and not model.training  # adapters are merged


@torch.no_grad()
def test_histories_longer_than_a_packed_row(make_recommender, make_batch):
    model = make_recommender(3, lora=True)
    model.max_length = 120
    answers_alike(model, make_batch([110]), make_batch([120, 97, 3]))


@torch.no_grad()
def test_what_only_answers_keeps_its_prompt_in_the_precision_that_is_asked_for(make_recommender, make_batch):
    """Until it is trained again: then the prompt is computed for every batch, with the weights of the day."""
    model, batch = make_recommender(3), make_batch([4, 9])
    expected = model.answering().encode(batch)
    with torch.autocast("cpu", torch.bfloat16):
        low = model.encode(batch)
        assert model.memory.dtype == torch.bfloat16 and not torch.equal(low, expected)
    assert torch.equal(model.encode(batch), expected) and model.memory.dtype == torch.float32
    for weight in model.train().backbone.parameters():
        weight.mul_(1.5)
    changed = model.encode(batch)
    assert not model.final and not torch.allclose(changed, expected, rtol=0.01)
    torch.testing.assert_close(model.answering().encode(batch), changed, atol=1e-5, rtol=0)


@torch.no_grad()
def test_answering_refuses_what_exact_refuses(make_recommender, make_batch):
    ready = make_recommender(closing=0).answering()
    with pytest.raises(ValueError, match="a history of 31 items does not fit into 30 slots"):
        ready.encode(make_batch([31]))
    with pytest.raises(ValueError, match="no token to be read"):
        ready.encode(make_batch([3, 0]))
    reference = make_recommender(lora=True)
    reference.encoding = "reference"  # which was asked for, and stays
    reference.answering().encode(make_batch([3]))
    assert reference.memory is None and isinstance(reference.backbone, PeftModel)


@pytest.mark.parametrize("window", [None, 16])
@torch.no_grad()
def test_attention_weights_of_a_window(make_recommender, make_batch, window):
    """With 62 + 30 + 7 positions and a window of 16, the last token sees its own row's last 9 items and 7 closing tokens."""
    like = make_recommender()
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = MistralConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, sliding_window=window)
    model = EllmRecommender(MistralModel(config), like.item_embeddings, like.prompt, max_length=30).eval()
    weights = model(make_batch([30]), attention=True).attention
    assert (weights > 0).sum(-1).tolist() == [[99 if window is None else 16] * 4]


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@torch.no_grad()
def test_other_rows_of_the_batch_never_influence_a_row(make_recommender, make_batch, encoding):
    model = make_recommender(encoding=encoding)
    together = make_batch(MIXED)
    vectors = model.encode(together)
    ends = together["lengths"].cumsum(0)
    for row in range(len(MIXED)):
        start, end = int(ends[row]) - MIXED[row], int(ends[row])
        alone = {"history": together["history"][start:end], "lengths": together["lengths"][row : row + 1]}
        torch.testing.assert_close(model.encode(alone)[0], vectors[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@torch.no_grad()
def test_order_of_rows_only_orders_the_result(make_recommender, make_batch, encoding):
    model = make_recommender(encoding=encoding)
    forward, backward = make_batch([5, 12]), make_batch([12, 5])
    backward["history"] = torch.cat([forward["history"][5:], forward["history"][:5]])
    torch.testing.assert_close(model.encode(backward).flip(0), model.encode(forward), atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@torch.no_grad()
def test_later_items_never_influence_earlier_positions(make_recommender, make_batch, encoding):
    model = make_recommender(closing=0, targets="all", encoding=encoding)
    batch = make_batch([9, 4], "all")
    changed = batch | {"history": batch["history"].clone()}
    changed["history"][6:9] = changed["history"][6:9] % 40 + 1  # items 7 to 9 of the first row
    before, after = model(batch).users, model(changed).users
    untouched = [0, 1, 2, 3, 4, 5, 9, 10, 11, 12]
    torch.testing.assert_close(after[untouched], before[untouched], atol=1e-6, rtol=0)
    assert ((after - before).abs().amax(dim=1)[6:9] > 1e-2).all()


def test_every_item_of_a_row_reaches_its_user_vector(make_recommender, make_batch):
    """The opposite of the tests above: with 30 items, changing any one of them changes the result."""
    model = make_recommender()
    batch = make_batch([30])
    with torch.no_grad():
        original = model.encode(batch)
        for place in range(30):
            changed = batch["history"].clone()
            changed[place] = changed[place] % 40 + 1
            assert (model.encode(batch | {"history": changed}) - original).abs().max() > 1e-5


def gpt2_recommender(encoding):
    backbone = GPT2Model(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4))
    return EllmRecommender(backbone, torch.randn(41, 8), Prompt((1, 2), (3,)), max_length=30, encoding=encoding)


@torch.no_grad()
def test_a_decoder_of_another_structure_needs_the_reference(make_batch):
    with pytest.raises(InputError, match="--encoding exact knows llama, mistral, qwen2, not gpt2: use --encoding reference"):
        gpt2_recommender("exact").encode(make_batch([3]))
    assert gpt2_recommender("reference").encode(make_batch([3, 1])).shape == (2, 8)


@pytest.mark.parametrize(
    "lengths, closing, read, message",
    [
        ([3], 7, "all", "only when nothing follows"),
        ([31], 7, "last", "31 items does not fit into 30 slots"),
        ([2, 0], 0, "last", "row without items has no token"),
    ],
)
def test_rows_that_cannot_be_read_are_refused(lengths, closing, read, message):
    with pytest.raises(ValueError, match=message):
        PromptedRows(torch.zeros(sum(lengths), 4), np.array(lengths), torch.zeros(2, 4), torch.zeros(closing, 4), 30, read)


def train(model, dataset, targets):
    """Losses of 20 steps of AdamW on fixed batches, then the validation rank of every user."""
    rows = SplitRows(dataset, "train", 30, targets)
    optimiser = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-3)
    losses = []
    for step in range(20):
        terms = next_item_objective(model, rows.collate(np.arange(8) * 5 % 48 + step % 3))
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
        losses.append(terms["loss"].item())
    return losses, evaluate_recommender(model, dataset, "valid", num_candidates=20, progress=False).ranks["sampled"]


@pytest.mark.parametrize("lora, targets, closing", [(False, "last", 7), (True, "last", 7), (False, "all", 0)])
def test_training_curve_and_ranks_do_not_depend_on_the_encoding(make_recommender, tiny_data, lora, targets, closing):
    dataset = load_dataset(tiny_data)
    make = lambda encoding: make_recommender(3, lora=lora, targets=targets, closing=closing, encoding=encoding)
    losses, ranks = train(make("exact"), dataset, targets)
    expected_losses, expected_ranks = train(make("reference"), dataset, targets)
    assert losses == pytest.approx(expected_losses, rel=1e-4)
    assert losses[18] < 0.9 * losses[0]  # the same batch, 18 steps later
    assert ranks.tolist() == expected_ranks.tolist()


@pytest.mark.parametrize("kv_heads", [4, 2])
@torch.no_grad()
def test_attention_weights_are_those_of_a_plain_forward_pass(make_recommender, make_batch, kv_heads):
    """The last token's weights on the 62 prompt tokens, then on the row's own 4 items and 7 closing tokens."""
    model = make_recommender(num_layers=2, kv_heads=kv_heads)
    batch = make_batch([4])
    vectors, mask, positions = one_row_by_hand(model, batch["history"].tolist())
    model.backbone.set_attn_implementation("eager")
    outputs = model.backbone(inputs_embeds=vectors, attention_mask=mask, position_ids=positions, output_attentions=True)
    model.backbone.set_attn_implementation("sdpa")
    expected = outputs.attentions[-1][0, :, -1][:, mask[0].bool()]  # [H, 62 + 4 + 7]
    weights = model(batch, attention=True).attention
    assert weights.shape == (1, 4, 62 + 11)
    torch.testing.assert_close(weights[0], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_attention_weights_of_every_item_sum_to_one_and_see_no_later_item(make_recommender, make_batch):
    model, batch = make_recommender(closing=0, targets="all"), make_batch([3, 5], "all")
    weights = model(batch, attention=True).attention
    assert weights.shape[:2] == (8, 4)
    torch.testing.assert_close(weights.sum(-1), torch.ones(8, 4))
    assert (weights > 0).sum(-1)[:, 0].tolist() == [63, 64, 65, 63, 64, 65, 66, 67]  # the prompt, earlier items, itself


def test_attention_weights_need_the_exact_encoding(make_recommender, make_batch):
    with pytest.raises(InputError, match="--encoding exact only"):
        make_recommender(encoding="reference")(make_batch([4]), attention=True)


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@pytest.mark.parametrize("lora", [False, True])
def test_recomputed_activations_change_no_gradient_and_keep_less(make_recommender, make_batch, encoding, lora):
    batch, kept, gradients = make_batch(MIXED), [], []
    for recompute in (False, True):
        model, sizes = make_recommender(4, lora=lora, encoding=encoding), []
        if recompute:
            model.recompute_activations()
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: (sizes.append(x.nbytes), x)[1], lambda x: x):
            loss = next_item_objective(model.train(), batch)["loss"]
        loss.backward()
        kept.append(sum(sizes))
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad})
    torch.testing.assert_close(gradients[1], gradients[0])
    assert kept[1] < 0.6 * kept[0]
