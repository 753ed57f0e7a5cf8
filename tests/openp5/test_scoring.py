"""The tree of answers, and that its scores are those of every answer spelt out one by one."""

import pytest
import torch

from slmrec.data.batches import SplitRows
from slmrec.openp5 import scoring
from slmrec.openp5.item_index import ItemIndex
from slmrec.openp5.trie import build_trie


def test_a_tree_by_hand():
    """Answers 1-2, 1-3 and 4: nodes root, 1, 12, 13, 4; the root and node 1 have children."""
    trie = build_trie([[], [1, 3], [4], [1, 2]])
    assert trie.token.tolist() == [0, 1, 2, 3, 4] and trie.parent.tolist() == [0, 0, 1, 1, 0]
    assert trie.inner.tolist() == [0, 1] and trie.leaf.tolist() == [0, 3, 4, 2]
    assert trie.children(0) == [1, 4] and trie.children(1) == [2, 3]
    steps = torch.zeros(1, 2, 5)
    steps[0, 0, 1], steps[0, 0, 4], steps[0, 1, 2], steps[0, 1, 3] = -1.0, -2.0, -10.0, -20.0
    assert trie.total(steps).tolist() == [[0.0, -21.0, -2.0, -11.0]]


def test_pieces_hold_every_inner_node_once_behind_its_ancestors():
    numbers = ItemIndex([tuple(str(number)) for number in range(1001, 1400)])
    trie = build_trie(numbers.responses)
    pieces = trie.pieces(7)
    own = torch.cat([piece.nodes[piece.repeated :] for piece in pieces])
    assert own.tolist() == trie.inner[1:].tolist()
    for piece in pieces:
        for place, node in enumerate(piece.nodes.tolist()):
            way = []
            while node:
                way.append(node)
                node = int(trie.parent[node])
            assert sorted(piece.nodes[piece.sees[place]].tolist()) == sorted(way)


@pytest.mark.parametrize("answers", [[[], [1], [1, 2]], [[], [1, 2], [1, 2]], [[], [1, 2], [1]]])
def test_an_answer_that_begins_another_one_is_refused(answers):
    with pytest.raises(ValueError, match="begins another"):
        build_trie(answers)


@torch.no_grad()
def one_by_one(model, prompt, response):
    """log p of an answer by a plain forward pass over prompt and answer alone."""
    tokens = torch.tensor([[*prompt, *(model.num_tokens + place for place in response)]])
    states = model.language_model.base_model(inputs_embeds=model.embed(tokens)).last_hidden_state[0]
    heads = model.id_vectors if model.id_heads is None else model.id_heads
    if model.softmax == "vocabulary":
        heads = torch.cat([model.language_model.get_output_embeddings().weight, heads])
    logs = (states @ heads.T).log_softmax(1)
    first = len(heads) - len(model.index.symbols)
    return sum(float(logs[len(prompt) - 1 + step, first + place]) for step, place in enumerate(response))


@pytest.mark.parametrize("how", [{}, {"tied": False}, {"softmax": "ids", "lora": True}, {"indexing": "collaborative"}])
def test_tree_scores_are_those_of_one_by_one(how, small_data, make_openp5, monkeypatch):
    monkeypatch.setattr(scoring, "NODES_AT_ONCE", 5)  # several pieces
    monkeypatch.setattr(scoring, "TOKENS_AT_ONCE", 400)  # and several batches
    model = make_openp5(small_data, **how)
    batch = SplitRows(small_data, "test", 10).collate(range(6))
    scores, prompts = model.encode(batch), model.prompts(batch)
    assert len({len(prompt) for prompt in prompts}) > 1
    for user, prompt in enumerate(prompts):
        plain = [one_by_one(model, prompt, model.index.responses[item]) for item in range(1, 26)]
        assert scores[user, 1:].tolist() == pytest.approx(plain, abs=1e-5)
    assert scores[:, 0].eq(0).all() and scores.shape == (6, 26)


def test_an_id_that_another_one_goes_on_from(small_data, make_openp5):
    """Its answer has END, and the probabilities of all answers sum to no more than one."""
    model = make_openp5(small_data, softmax="ids")
    model.index = ItemIndex([("1",), ("1", "2"), ("1", "2", "3"), ("4",)])
    model.trie = build_trie(model.index.responses)
    prompts = [[1, 2, 3], [1, 5, 6, 7, 8]]
    scores = scoring.catalogue_log_likelihoods(model, prompts, model.trie)
    for user, prompt in enumerate(prompts):
        plain = [one_by_one(model, prompt, response) for response in model.index.responses[1:]]
        assert scores[user, 1:].tolist() == pytest.approx(plain, abs=1e-5)
    assert (scores[:, 1:].exp().sum(1) < 1).all()


def test_scores_of_candidates_are_those_of_all(small_data, make_openp5):
    model = make_openp5(small_data)
    users = model.encode(SplitRows(small_data, "valid", 10).collate([3, 1]))
    candidates = torch.tensor([[4, 9], [25, 1]])
    assert model.score(users, candidates).tolist() == [[users[0, 4], users[0, 9]], [users[1, 25], users[1, 1]]]
    model.score_all(users).fill_(7.0)  # what evaluation does to the scores does not reach the vectors
    assert not users.eq(7.0).any() and model.score_block(users, 2, 4).shape == (2, 2)
