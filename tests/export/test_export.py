"""An exported model gives the scores of the model it came from, on histories of every length."""

import re

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import export
import finetune
from slmrec.artifacts import read_manifest
from slmrec.errors import InputError
from slmrec.export.graph import HistoryEncoder, left_padded, merged
from slmrec.open_model import load_recommender

RANDOM = np.random.default_rng(0)
LENGTHS = [*range(1, 31), 30, 1]
HISTORIES = [RANDOM.integers(1, 41, length).tolist() for length in LENGTHS]


def users_of(model, histories):
    batch = {
        "users": torch.arange(len(histories)),
        "history": torch.tensor([item for one in histories for item in one]),
        "lengths": torch.tensor(list(map(len, histories))),
    }
    with torch.no_grad():
        return model.encode(batch)


@pytest.mark.parametrize("targets, closing", [("last", 7), ("all", 0)])
@pytest.mark.parametrize("keep_prompt", [True, False])
@pytest.mark.parametrize("kind, kv_heads", [("llama", 4), ("llama", 2), ("qwen2", 2)])
def test_the_graph_equals_the_model(make_recommender, targets, closing, keep_prompt, kind, kv_heads):
    model = make_recommender(3, lora=True, targets=targets, closing=closing, kind=kind, kv_heads=kv_heads).eval()
    expected = users_of(model, HISTORIES)
    graph = HistoryEncoder(merged(model), keep_prompt)
    with torch.no_grad():
        torch.testing.assert_close(graph(left_padded(HISTORIES)), expected, atol=1e-4, rtol=1e-4)
        alone = torch.cat([graph(torch.tensor([one])) for one in HISTORIES])
        torch.testing.assert_close(alone, expected, atol=1e-4, rtol=1e-4)
    assert torch.allclose(users_of(model, HISTORIES), expected, atol=1e-5)  # the model stays what it was


@pytest.fixture(scope="module")
def lora_model(tmp_path_factory, tiny_flags):
    output = tmp_path_factory.mktemp("export") / "lora"
    finetune.main(tiny_flags(train_strategy="lora", lora_r=4, max_steps=2, output_dir=output))
    return output


@pytest.mark.parametrize("graph", ["exact", "reference"])
def test_onnx_equals_pytorch_on_every_length(lora_model, tmp_path, graph):
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
    export.main(["--model", str(lora_model), "--format", "onnx", "--graph", graph, "--output_dir", str(tmp_path / "onnx")])
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "encoder.onnx")
    model = load_recommender(lora_model)
    expected = users_of(model, HISTORIES).numpy()
    together = session.run(None, {"history": left_padded(HISTORIES).numpy()})[0]
    np.testing.assert_allclose(together, expected, atol=1e-4)
    alone = np.concatenate([session.run(None, {"history": np.array([one])})[0] for one in HISTORIES])
    np.testing.assert_allclose(alone, expected, atol=1e-4)
    items = load_file(tmp_path / "onnx" / "items.safetensors")["item_embeddings"]
    np.testing.assert_array_equal(items, model.item_matrix().numpy())


def test_the_lines_of_the_model_card_work_without_this_project(lora_model, tiny_teacher, tmp_path):
    for name, directory in {"lora": lora_model, "full": tiny_teacher}.items():
        folder = tmp_path / name
        export.main(["--model", str(directory), "--output_dir", str(folder)])
        assert read_manifest(folder, "export")["inputs"]["model"]["digest"] == read_manifest(directory)["digest"]
        lines = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
        model = load_recommender(directory)
        for history in ([3], [5, 1, 40, 7]):
            place = {"FOLDER": str(folder), "HISTORY": history}
            exec(lines, place)  # our own text
            with torch.no_grad():
                expected = model.score_all(users_of(model, [history]))[0]
            torch.testing.assert_close(place["scores"], expected, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_exported(tiny_data, tiny_teacher, tmp_path):
    with pytest.raises(InputError, match="'data' stage where 'finetune' or 'distill'"):
        export.main(["--model", str(tiny_data), "--output_dir", str(tmp_path / "out")])
    with pytest.raises(InputError, match="--graph is only for"):
        export.main(["--model", str(tiny_teacher), "--graph", "reference", "--output_dir", str(tmp_path / "out")])
