import json
import re
import shutil

import pytest
import torch
from peft import AutoPeftModel, PeftModel
from transformers import AutoModel

import finetune
from slmrec.errors import InputError
from slmrec.files import read_json
from slmrec.llm.adapter_folder import find_base
from slmrec.llm.backbone import backbone_input, plain_backbone
from slmrec.llm.model_directory import load_ellmrec


@pytest.fixture
def place(tiny_backbone, tiny_flags, tmp_path, monkeypatch):
    """A folder with a base model of 4 layers and a LoRA model on 2 of them, trained with paths relative to that folder."""
    folder = tmp_path / "place"
    shutil.copytree(tiny_backbone, folder / "models/base", ignore=shutil.ignore_patterns("manifest.json", "run.json"))
    monkeypatch.chdir(folder)
    finetune.main(tiny_flags(base_model="models/base", output_dir="runs/model", max_steps=2, num_layers=2))
    return folder


def states(decoder):
    with torch.no_grad():
        return decoder(input_ids=torch.arange(9).unsqueeze(0)).last_hidden_state


def test_it_loads_from_any_directory_and_after_a_move(place, tmp_path, monkeypatch):
    expected = load_ellmrec(place / "runs/model").state_dict()
    monkeypatch.chdir(tmp_path)
    for directory in (place / "runs/model", place / "runs/model/checkpoint-2"):
        assert load_ellmrec(directory).state_dict().keys() == expected.keys()
    shutil.copytree(place / "runs/model", tmp_path / "copy")  # elsewhere: the absolute path leads back
    load_ellmrec(tmp_path / "copy")
    place.rename(tmp_path / "moved")  # all together: the relative one does
    moved = load_ellmrec(tmp_path / "moved/runs/model").state_dict()
    assert all(torch.equal(moved[name], expected[name]) for name in expected)
    load_ellmrec(tmp_path / "moved/runs/model/checkpoint-2")
    with pytest.raises(InputError, match=r"copy: its base model base is not at .* or .*; put it there"):
        load_ellmrec(tmp_path / "copy")


def test_another_model_in_its_place_is_refused(place, write_backbone):
    shutil.rmtree(place / "models/base")
    write_backbone(place / "models/base", num_heads=2)
    with pytest.raises(InputError, match="models/base is not the base that its adapters were trained on"):
        load_ellmrec(place / "runs/model")


def test_a_base_with_another_tokenizer(place):
    """A model that keeps its prompt's tokens does without it; one that makes prompts does not.

    Adapters of earlier versions have one digest: of base and tokenizer or, earlier still, of the weights alone.
    """
    base, model = place / "models/base", place / "runs/model"
    weights = backbone_input(str(base))["weights"]
    tokenizer = base / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    described = read_json(model / "recommender.json")["base_model"]
    load_ellmrec(model)
    earlier = {name: value for name, value in described.items() if name != "weights"}
    for refused, needs in ((described, True), (earlier, False)):
        with pytest.raises(InputError, match="models/base is not the base that its adapters were trained on"):
            find_base(refused, model, tokenizer=needs)
    assert find_base(earlier | {"digest": weights}, model, tokenizer=True) == str(base)


def test_peft_loads_it_by_the_lines_of_the_card(place, tmp_path, monkeypatch):
    """The card's lines are run as they stand, from the folder around the model."""
    expected = states(plain_backbone(load_ellmrec(place / "runs/model").eval().backbone))
    card = (place / "runs/model/README.md").read_text()
    assert "base_model: base" in card and "More Information Needed" not in card
    code = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    monkeypatch.chdir(place / "runs")
    for lines, kind in zip(code, (object, PeftModel, PeftModel), strict=True):
        names = {}
        exec(lines.replace('"BASE"', repr(str(place / "models/base"))), names)
        if "decoder" in names:
            assert isinstance(names["decoder"], kind)
            torch.testing.assert_close(states(names["decoder"].eval()), expected, atol=1e-6, rtol=0)


def test_the_adapter_changes_the_decoder(place):
    """So that the equality above says something."""
    plain = AutoModel.from_pretrained(place / "models/base", num_hidden_layers=2).eval()
    adapted = AutoPeftModel.from_pretrained(place / "runs/model", num_hidden_layers=2).eval()
    assert not torch.allclose(states(adapted), states(plain), atol=1e-5)
    assert json.loads((place / "runs/model/adapter_config.json").read_text())["base_model_name_or_path"].startswith("/")
