"""What lies beside LoRA adapters so that they find their base model again, from any working directory, and say how they load."""

from __future__ import annotations

import os
from pathlib import Path

from peft import PeftModel

from slmrec.checkpoints import when_whole
from slmrec.errors import InputError
from slmrec.llm.backbone import backbone_input, plain_backbone
from slmrec.llm.four_bits import how_read

CARD = """---
library_name: peft
base_model: {base}
tags: [sequential-recommendation, lora]
---

# {kind} on {base}

LoRA adapters on the first {layers} decoder layers of `{base}`, and {beside}

Load the whole recommender with the project that wrote it:

```python
from slmrec.open_model import load_recommender

model = load_recommender("{directory}")
```

Load the adapted decoder alone with peft; the base model is cut to its first {layers} layers:

```python
from peft import AutoPeftModel

decoder = AutoPeftModel.from_pretrained("{directory}", num_hidden_layers={layers})
```

or, where the base model has moved to BASE:

```python
from peft import PeftModel
from transformers import AutoModel

decoder = PeftModel.from_pretrained(AutoModel.from_pretrained("BASE", num_hidden_layers={layers}), "{directory}")
```
"""


KINDS = {  # of recommenders, and what beside adapters they have
    "An E-LLMRec": """the linear maps between its states and item embeddings
(`heads.safetensors`). It reads a user's history as item vectors, not as text, and answers with a user vector.""",
    "An Open-P5": """vectors of the tokens that item ids are made of
(`id_tokens.safetensors`, `item_index.csv`). It reads a user's history as ids between words, and writes the next item's id.""",
}
FOUR_BITS = """
The base model was read in 4 bits: give from_pretrained
`quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="{quant_type}", bnb_4bit_compute_dtype="{dtype}")`
of transformers and `dtype="{dtype}"` as well.
"""


def save_adapters(backbone: PeftModel, base_model: str, directory: Path, kind: str) -> None:
    """peft's own files, naming the base model by its absolute path, and a model card of a recommender of this kind."""
    name = base_model if _on_the_hub(base_model) else str(Path(base_model).resolve())
    backbone.peft_config["default"].base_model_name_or_path = name
    backbone.save_pretrained(directory, save_embedding_layers=False)
    shown = directory.with_name(directory.name.removesuffix(".partial")).name
    decoder = plain_backbone(backbone)
    base, layers = Path(base_model).name if name != base_model else base_model, decoder.config.num_hidden_layers
    text = CARD.format(kind=kind, beside=KINDS[kind], base=base, layers=layers, directory=shown)
    read = how_read(decoder)
    (directory / "README.md").write_text(text + (FOUR_BITS.format(**read) if read else ""), encoding="utf-8")


def described_base(base_model: str, directory: Path) -> str | dict:
    """A hub name as it is; of a directory its name, digests, absolute path, and its path from `directory` once that is whole."""
    if _on_the_hub(base_model):
        return base_model
    there = Path(base_model).resolve()
    digests = {name: value for name, value in backbone_input(base_model).items() if name in ("digest", "weights")}
    return (
        {"name": there.name}
        | digests
        | {"absolute": str(there), "relative": os.path.relpath(there, when_whole(directory.resolve()))}
    )


def find_base(described: str | dict, directory: Path, tokenizer: bool = False) -> str:
    """Where the base model of the adapters in `directory` lies now: where it was from there, or where it was at all.

    With `tokenizer`, that has to be the same too; a model that keeps its prompt's tokens has no need of it, and versions of
    transformers write the tokenizer of one GGUF file in different ways. Raises InputError when the base model is at neither
    place, or another model is.
    """
    if isinstance(described, str):
        return described
    places = [Path(os.path.normpath(directory.resolve() / described["relative"])), Path(described["absolute"])]
    there = [place for place in dict.fromkeys(places) if place.is_dir()]
    for place in there:
        found = backbone_input(str(place))
        alike = described["digest"] in (found["digest"], found["weights"])  # earlier versions did not look at the tokenizer
        if alike or (not tokenizer and described.get("weights") == found["weights"]):
            return str(place)
    if there:
        raise InputError(f"{directory}: {there[0]} is not the {described['name']} that its adapters were trained on")
    tried = " or ".join(str(place) for place in dict.fromkeys(places))
    raise InputError(f"{directory}: its base model {described['name']} is not at {tried}; put it there")


def _on_the_hub(base_model: str) -> bool:
    return not Path(base_model).is_dir()
