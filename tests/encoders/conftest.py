"""Small models of every kind, data sets to train them on, and the Transformer block as loops."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from slmrec.data.dataset import SequenceDataset
from slmrec.encoders.registry import build_encoder

NUM_ITEMS, NUM_USERS = 40, 20
SASREC = {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "dropout": 0.3, "max_length": 6}
GRAPH = {"num_graph_layers": 2, "mask_probability": 0.05, "reconstruction_weight": 0.1, "contrast_weight": 0.5}
ATTRIBUTES = {"associated_attribute_weight": 0.2, "masked_attribute_weight": 0.7}
ARCHITECTURES = {
    "sasrec": SASREC,
    "gru4rec": {"hidden_size": 8, "num_layers": 2, "dropout": 0.3, "max_length": 6},
    "bert4rec": SASREC | {"mask_probability": 0.4, "last_mask_share": 0.2},
    "caser": {"hidden_size": 8, "num_horizontal_filters": 3, "num_vertical_filters": 2, "dropout": 0.3, "max_length": 6},
    "duorec": SASREC | {"contrast_weight": 0.1, "contrast_temperature": 1.0},
    "maerec": SASREC | GRAPH,
    "hgn": {"hidden_size": 8, "dropout": 0.3, "max_length": 6},
    "lightsans": SASREC | {"num_interests": 3},
    "s3rec": SASREC | {"mask_probability": 0.3, "segment_weight": 0.5} | ATTRIBUTES,
    "popularity": {},
    "markov": {},
    "nearest": {"hidden_size": 8},
}


@pytest.fixture(scope="session")
def architectures():
    """The constructor arguments of the small models."""
    return ARCHITECTURES


@pytest.fixture(scope="session")
def make_encoder():
    """make_encoder(name, num_items=40, num_users=20, seed=0, **changes): a small model as it is before training."""

    def make(name, num_items=NUM_ITEMS, num_users=NUM_USERS, seed=0, **changes):
        torch.manual_seed(seed)
        return build_encoder(name, num_items, num_users, ARCHITECTURES[name] | changes)

    return make


@pytest.fixture(scope="session")
def stirred():
    """stirred(model): its weights moved away from the small initial ones, so that every term counts; in eval mode."""

    def stir(model):
        for parameter in model.parameters():
            parameter.data.mul_(3.0).add_(0.1 * torch.randn_like(parameter))
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight.data[module.padding_idx] = 0.0
        return model.eval()

    return stir


@pytest.fixture(scope="session")
def dataset_of():
    """dataset_of(sequences, num_items): the data set of these users."""

    def build(sequences, num_items):
        return SequenceDataset(np.concatenate(sequences).astype(np.int32), np.cumsum([0, *map(len, sequences)]), num_items)

    return build


@pytest.fixture(scope="session")
def random_dataset(dataset_of):
    """20 users with 3 to 8 actions; item 40 occurs nowhere."""
    random = np.random.default_rng(0)
    return dataset_of([random.integers(1, NUM_ITEMS, random.integers(3, 9)) for _ in range(NUM_USERS)], NUM_ITEMS)


@pytest.fixture(scope="session")
def cycle(dataset_of):
    """24 users with 7 actions; item i is always followed by item i + 1, and 12 by 1."""
    return dataset_of([(np.arange(7) + user) % 12 + 1 for user in range(24)], 12)


def _rows_of(batch):
    return torch.split(batch["history"], batch["lengths"].tolist())


@pytest.fixture(scope="session")
def rows_of():
    """rows_of(batch): its histories one by one."""
    return _rows_of


def _loop_attention(block, inputs, causal):
    """One head, one query and one key at a time."""
    width = inputs.shape[1] // block.num_heads
    query, key, value = (inputs @ block.query_key_value.weight.T + block.query_key_value.bias).chunk(3, dim=1)
    outputs = torch.zeros_like(inputs)
    for head in range(block.num_heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(len(inputs)):
            seen = range(i + 1 if causal else len(inputs))
            weights = torch.stack([(query[i, part] @ key[j, part]) / math.sqrt(width) for j in seen]).exp()
            outputs[i, part] = sum(weight * value[j, part] for j, weight in zip(seen, weights / weights.sum(), strict=True))
    return outputs @ block.attention_output.weight.T + block.attention_output.bias


def _normalise(norm, states):
    centred = states - states.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


@pytest.fixture(scope="session")
def normalise():
    """normalise(norm, states): layer normalisation written out."""
    return _normalise


@pytest.fixture(scope="session")
def loop_blocks():
    """loop_blocks(model, vectors, causal): the input of the first block and the output of each for the vectors of one row."""

    def run(model, vectors, causal):
        positions = model.position_embedding.weight[: len(vectors)].flip(0)  # 0 at the last one
        states = [_normalise(model.input_norm, torch.stack(list(vectors)) + positions)]
        for block in model.blocks:
            attended = _normalise(block.attention_norm, states[-1] + _loop_attention(block, states[-1], causal))
            first, _, second = block.feed_forward
            inner = F.gelu(attended @ first.weight.T + first.bias)
            states.append(_normalise(block.feed_forward_norm, attended + inner @ second.weight.T + second.bias))
        return states

    return run
