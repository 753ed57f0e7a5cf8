"""Constrained beam search, the way in which OpenP5 itself recommends: generation that can only say items of the catalogue.

It is transformers' own, with a processor that leaves the tokens that go on to an item. A beam search may miss the best items, as
it drops beginnings that look unlikely; exact scores (slmrec/openp5/scoring.py) miss none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from slmrec.openp5.item_index import END
from slmrec.openp5.model import OpenP5Recommender
from slmrec.openp5.trie import Trie


def language_model_with_ids(model: OpenP5Recommender) -> PreTrainedModel:
    """The causal language model with the alphabet's tokens in its own tables, behind its V words, as transformers generates from.

    The tables grow in place: a model is not to be trained or saved afterwards.
    """
    language_model, number = model.language_model, model.num_tokens + len(model.index.symbols)
    if language_model.get_input_embeddings().num_embeddings < number:
        language_model.resize_token_embeddings(number, mean_resizing=False)
    with torch.no_grad():
        language_model.get_input_embeddings().weight[model.num_tokens : number] = model.id_vectors
        if model.id_heads is not None:
            language_model.get_output_embeddings().weight[model.num_tokens : number] = model.id_heads
    return language_model


class OnlyItems(LogitsProcessor):
    """Leaves, behind a prompt and what is said so far, the tokens that go on to an item, with their log-probabilities; END, which
    is certain, once an item is said.

    Args:
        prompt_length: tokens before what is said.
    """

    def __init__(self, model: OpenP5Recommender, prompt_length: int):
        self.first, self.renormalise = model.num_tokens, model.softmax == "ids"
        self.end, self.prompt_length = model.index.places[END], prompt_length
        self.children = child_nodes(model.trie)

    def __call__(self, input_ids, scores):
        ids = scores[:, self.first :]
        ids = ids.log_softmax(1) if self.renormalise else ids
        allowed = torch.full_like(scores, -torch.inf)
        for row, said in enumerate((input_ids[:, self.prompt_length :] - self.first).tolist()):
            following = list(self.children.get(self.node(said), {}))
            if following:
                allowed[row, [self.first + token for token in following]] = ids[row, following]
            else:
                allowed[row, self.first + self.end] = 0.0
        return allowed

    def node(self, said: list[int]) -> int:
        """Where in the tree one stands; -1 where an answer and its END lie behind."""
        node = 0
        for token in said:
            node = self.children.get(node, {}).get(token, -1)
        return node


def child_nodes(trie: Trie) -> dict[int, dict[int, int]]:
    """Inner node -> token -> the node that it leads to."""
    children: dict[int, dict[int, int]] = {}
    for node, (parent, token) in enumerate(zip(trie.parent.tolist(), trie.token.tolist())):
        if node:
            children.setdefault(parent, {})[token] = node
    return children


@torch.no_grad()
def beam_search(model: OpenP5Recommender, prompt: Sequence[int], beams: int = 10) -> tuple[list[int], list[float]]:
    """The items that beam search ends with for one prompt, and their log-likelihoods, best first."""
    language_model, device = language_model_with_ids(model), model.id_vectors.device
    end = model.num_tokens + model.index.places[END]
    settings = GenerationConfig(
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=1 + max(map(len, model.index.responses)),
        length_penalty=0.0,  # a sum of logarithms stays one
        do_sample=False,
        eos_token_id=end,
        pad_token_id=end,
        return_dict_in_generate=True,
        output_scores=True,
    )
    tokens = torch.tensor([list(prompt)], device=device)
    processors = LogitsProcessorList([OnlyItems(model, len(prompt))])
    ones = torch.ones_like(tokens)
    found = language_model.generate(tokens, attention_mask=ones, generation_config=settings, logits_processor=processors)
    said = (found.sequences[:, len(prompt) :] - model.num_tokens).tolist()
    ended = model.index.places[END]
    items = {tuple(token for token in answer if token != ended): item for item, answer in enumerate(model.index.coded) if item}
    answers = [items.get(tuple(token for token in one if token != ended)) for one in said]
    scored = [(item, score) for item, score in zip(answers, found.sequences_scores.tolist()) if item and score > -torch.inf]
    return [item for item, _ in scored], [score for _, score in scored]
