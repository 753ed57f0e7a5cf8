"""What an exported folder holds beside the graph or the decoder, and its model card."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from slmrec.artifacts import write_json
from slmrec.catalogue import CATALOGUE, Catalogue
from slmrec.export.graph import HistoryEncoder
from slmrec.llm.backbone import plain_backbone
from slmrec.llm.ellmrec import EllmRecommender

HEADS, SETTINGS, GRAPH, ITEMS = "heads.safetensors", "slmrec.json", "encoder.onnx", "items.safetensors"
OPSET = 20

PLAIN_USE = """```python
import json, torch
from safetensors.torch import load_file
from transformers import AutoModel

decoder = AutoModel.from_pretrained(FOLDER, trust_remote_code=False).eval()
heads, settings = load_file(f"{FOLDER}/heads.safetensors"), json.load(open(f"{FOLDER}/slmrec.json"))
tokens = decoder.get_input_embeddings()(torch.tensor(settings["before"] + settings["after"]))
items = heads["item_inputs"][HISTORY]  # item numbers, oldest first, at most settings["max_length"]; catalogue.csv has their ids
row = torch.cat([tokens[: len(settings["before"])], items, tokens[len(settings["before"]) :]])
shift = settings["max_length"] - len(HISTORY)  # positions are counted as if every history were of full length
places = torch.arange(len(row)) + shift * (torch.arange(len(row)) >= len(settings["before"]))
with torch.no_grad():
    state = decoder(inputs_embeds=row[None], position_ids=places[None]).last_hidden_state[0, -1]
    scores = heads["item_embeddings"] @ (heads["user_projection"] @ state)  # row 0 is padding
```"""

ONNX_USE = """```python
import numpy, onnxruntime
from safetensors.numpy import load_file

session = onnxruntime.InferenceSession(f"{FOLDER}/encoder.onnx")
users = session.run(None, {"history": numpy.array([HISTORY])})[0]  # int64 [B, L], item numbers, 0 fills up on the left
scores = users @ load_file(f"{FOLDER}/items.safetensors")["item_embeddings"].T  # row 0 is padding
```"""

CARD = """---
library_name: {library}
tags: [sequential-recommendation, slmrec]
---
# {name}

An E-LLMRec of SLMRec (Xu et al., ICLR 2025): a decoder of {layers} layers that reads item vectors between prompt tokens and
answers with a user vector; items are scored by its dot product with theirs. Exported from a stage with digest `{digest}`.
{parameters:,} parameters (adapters merged), {items:,} items, histories of up to {max_length} items.

FOLDER is this directory, HISTORY a list of item numbers (`catalogue.csv` has the source id and title of each number):

{use}
"""


def write_folder(model: EllmRecommender, catalogue_source: Path, directory: Path) -> None:
    """The decoder as a plain Hugging Face checkpoint, the linear maps folded into two item tables and one matrix beside it."""
    decoder = plain_backbone(model.backbone)
    decoder.save_pretrained(directory)
    with torch.no_grad():
        inputs = model.item_vectors(torch.arange(len(model.item_matrix())))
    tensors = {
        "item_inputs": inputs.contiguous(),  # [N + 1, d1], what enters the decoder for each item
        "user_projection": model.user_projection.weight.detach().contiguous(),  # [d0, d1]
        "item_embeddings": model.item_matrix().detach().contiguous(),  # [N + 1, d0], what user vectors are scored against
    }
    save_file(tensors, directory / HEADS)
    settings = {"before": list(model.prompt.before), "after": list(model.prompt.after), "max_length": model.max_length}
    write_json(directory / SETTINGS, settings)
    _copy_catalogue(catalogue_source, directory)


def write_graph(model: EllmRecommender, catalogue_source: Path, directory: Path, keep_prompt: bool) -> None:
    """The encoder as an ONNX graph with dynamic batch and length, and the item embeddings beside it."""
    write_encoder(model, directory / GRAPH, keep_prompt)
    save_file({"item_embeddings": model.item_matrix().detach().contiguous()}, directory / ITEMS)
    _copy_catalogue(catalogue_source, directory)


def write_encoder(model: EllmRecommender, path: Path, keep_prompt: bool = True) -> None:
    """The graph alone."""
    longest = torch.export.Dim("length", min=1, max=model.max_length)
    torch.onnx.export(
        HistoryEncoder(model, keep_prompt).eval(),
        (torch.ones(2, 3, dtype=torch.int64),),
        str(path),
        dynamo=True,
        external_data=False,
        input_names=["history"],
        output_names=["users"],
        dynamic_shapes={"history": {0: torch.export.Dim("batch", min=1), 1: longest}},
        opset_version=OPSET,
        verbose=False,
    )


def write_card(model: EllmRecommender, name: str, digest: str, catalogue: Catalogue, directory: Path, onnx: bool) -> None:
    """README.md: what this is and how it is used without this project."""
    text = CARD.format(
        library="onnx" if onnx else "transformers",
        name=name,
        layers=model.num_layers,
        digest=digest,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        items=len(catalogue),
        max_length=model.max_length,
        use=ONNX_USE if onnx else PLAIN_USE,
    )
    (directory / "README.md").write_text(text, encoding="utf-8")


def _copy_catalogue(source: Path, directory: Path) -> None:
    shutil.copyfile(source / CATALOGUE, directory / CATALOGUE)
