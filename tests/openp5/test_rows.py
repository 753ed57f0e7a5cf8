"""Prompts, prefixes and the loss: what is read where, worked out by hand, and that packing changes nothing."""

import numpy as np
import pytest
import torch

from slmrec.data.dataset import SequenceDataset
from slmrec.errors import InputError
from slmrec.openp5.item_index import ItemIndex
from slmrec.openp5.prompting import Prompter
from slmrec.openp5.rows import PrefixRows
from slmrec.openp5.templates import SEEN, UNSEEN, parts

TASKS = ("sequential", "straightforward")


def test_templates_are_ten_and_one_for_each_task_and_all_different():
    for task in TASKS:
        texts = [*SEEN[task], UNSEEN[task]]
        assert len(SEEN[task]) == 10 and len(set(texts)) == 11
        assert all("{user}" in text and ("{history}" in text) == (task == "sequential") for text in texts)
    assert parts("So {user} has {history} . Next") == ["So", "{user}", " has", "{history}", " . Next"]


def test_a_prompt_by_hand(letters):
    index = ItemIndex([("1", "0"), ("2", "1")])
    prompter = Prompter(letters, index, 40, num_users=42)
    words = lambda text: letters(text, add_special_tokens=False)["input_ids"]
    codes = lambda text: [40 + index.places[symbol] for symbol in text]
    prompt = prompter.prompt("sequential", -1, [2, 1], user=41)
    listed = [*codes("21"), *words(","), *codes("10")]
    asked = [*words(" in the past, the following item of"), *words(" user"), *codes("1042"), *words(" is")]
    assert prompt == [1, *words("Given"), *listed, *asked]
    assert prompter.prompt("straightforward", 0, [], user=-1) == [1, *words("A good item for the user is")]
    never_trained = prompter.prompt("straightforward", 0, [], user=42)
    assert never_trained == [1, *words("A good item for the user is")]


def test_a_tokenizer_of_another_model_is_refused(letters):
    with pytest.raises(InputError, match="its tokenizer does not belong to it"):
        Prompter(letters, ItemIndex([("1",)]), 10, num_users=0)


def rows_of(dataset, model, **how):
    chosen = {"max_length": 10, "tasks": ("sequential",), "share": 1.0, "seed": 0} | how
    return PrefixRows(dataset, model.index, model.prompter, **chosen)


def test_rows_are_all_prefixes_of_training_parts(make_openp5):
    """Sequences [1 2 3 4 5] and [3 1 2]: the training part of the first is 1 2 3, of the second 3, which has no history."""
    dataset = SequenceDataset(np.array([1, 2, 3, 4, 5, 3, 1, 2], dtype=np.int32), np.array([0, 5, 8]), 5)
    model = make_openp5(dataset)
    rows = rows_of(dataset, model, max_length=1)
    assert len(rows) == 2 and rows.left_out == 1
    found = {tuple(answer): prompt for prompt, answer in map(rows.row, range(2))}
    code = lambda item: [40 + place for place in model.index.coded[item]]
    for history, target in ((1, 2), (2, 3)):  # the latest item alone is read
        prompt = found[tuple(model.index.responses[target])]
        assert [token for token in prompt if token >= 40] == code(history)


def test_an_epoch_has_its_share_and_every_epoch_another_one(small_data, make_openp5):
    rows = rows_of(small_data, make_openp5(small_data), share=0.25)
    total = int((small_data.lengths - 3).sum())
    assert len(rows) == round(total / 4) and len(rows.users) == total
    first = rows.chosen.copy(), rows.template.copy()
    rows.begin_epoch(1)
    assert not np.array_equal(rows.chosen, first[0]) and len(set(rows.chosen)) == len(rows)
    rows.begin_epoch(0)
    assert np.array_equal(rows.chosen, first[0]) and np.array_equal(rows.template, first[1])


def test_loss_is_of_the_answer_alone_from_its_first_token_on(small_data, make_openp5):
    """Each row by itself: the state at the prompt's last token has to say the answer's first one, and so on to its last."""
    model = make_openp5(small_data)
    rows = rows_of(small_data, model, tasks=TASKS)
    numbers, logs = list(range(9)), []
    for prompt, answer in map(rows.row, numbers):
        tokens = torch.tensor([[*prompt, *(40 + place for place in answer)]])
        states = model.language_model.base_model(inputs_embeds=model.embed(tokens)).last_hidden_state[0]
        heads = torch.cat([model.language_model.get_output_embeddings().weight, model.id_vectors])
        logits = states @ heads.T
        logs += [logits[len(prompt) - 1 + step].log_softmax(0)[40 + place] for step, place in enumerate(answer)]
    batch = rows.collate(numbers)
    assert len(batch["targets"]) == len(logs) and batch["lengths"].sum() == len(batch["tokens"])
    assert float(model(batch).detach()) == pytest.approx(-float(torch.stack(logs).mean().detach()), abs=1e-5)


def test_only_what_should_learn_has_a_gradient(small_data, make_openp5):
    model = make_openp5(small_data, lora=True)
    model(rows_of(small_data, model).collate(range(4))).backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert "id_vectors" in learning and all(name == "id_vectors" or "lora_" in name for name in learning)
