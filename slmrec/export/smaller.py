"""A trained E-LLMRec made smaller after training: fewer bits, or fewer weights. Item table and heads stay float32.

bf16            the decoder's weights and products in bfloat16
int8            its linear weights as int8, one scale a row (torchao)
int8_dynamic    likewise, and activations as int8 with a scale that each batch gives (torchao)
int4            its linear weights as int4 values, one scale for each group of columns (torchao)
pruned          the smallest half of each linear weight's entries set to zero (torch.nn.utils.prune)
neurons         the half of each MLP's neurons whose output weights are smallest taken out (torch.nn.utils.prune)
onnx            the exported graph under onnxruntime
onnx_int8       that graph with int8 weights and dynamic activations (onnxruntime)

What torchao packs two to a byte needs a GPU (its release 0.18: CUDA or XPU); on a CPU int4 values take a byte each, so int4 is as
large as int8 here and shows what four bits cost in quality.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

from slmrec.errors import InputError
from slmrec.export.folder import GRAPH, write_encoder
from slmrec.export.graph import left_padded
from slmrec.llm.backbone import plain_backbone
from slmrec.llm.ellmrec import EllmRecommender
from slmrec.recommender import Recommender

SHARE = 0.5  # of weights or neurons that pruning takes
GROUP = 32  # columns that share a scale in int4, at most


def smaller(model: EllmRecommender, kind: str) -> Recommender:
    """The model, its adapters merged, made smaller in place; `fp32` leaves it as it is.

    Raises InputError for a kind that there is not, or whose library is not installed.
    """
    if kind not in KINDS:
        raise InputError(f"{kind}: choose one of {', '.join(KINDS)}")
    try:
        return KINDS[kind](model.answering().requires_grad_(False))
    except ModuleNotFoundError as error:
        raise InputError(f"{kind}: {error.name} is not installed: pip install -e '.[export,quantise]'") from None


def size_on_disk(model: Recommender) -> int:
    """Bytes of everything that answering needs, the item table included, as torch.save or ONNX writes it."""
    if isinstance(model, OnnxRecommender):
        return model.graph_bytes
    assert isinstance(model, EllmRecommender)
    stream = io.BytesIO()
    parts = {"decoder": plain_backbone(model.backbone).state_dict(), "heads": model.heads().state_dict()}
    torch.save(parts | {"items": model.item_matrix()}, stream)
    return stream.getbuffer().nbytes


class OnnxRecommender(Recommender):
    """The exported graph; `quantised` has int8 weights in it."""

    def __init__(self, model: EllmRecommender, quantised: bool = False):
        super().__init__()
        import onnxruntime

        self.max_length = model.max_length
        self.register_buffer("items", model.item_matrix().detach().clone())
        with TemporaryDirectory() as folder:
            path = Path(folder) / GRAPH
            write_encoder(model, path)
            if quantised:
                from onnxruntime.quantization import QuantType, quantize_dynamic

                small = path.with_name("int8.onnx")  # unsigned: where a processor has no VNNI, products of signed ones overflow
                quantize_dynamic(path, small, weight_type=QuantType.QUInt8, per_channel=True, op_types_to_quantize=["MatMul"])
                path = small
            self.graph_bytes = path.stat().st_size
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.log_severity_level = 3
            self.session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        histories = [row.tolist() for row in torch.split(batch["history"], batch["lengths"].tolist())]
        (users,) = self.session.run(None, {"history": left_padded(histories).numpy()})
        return torch.from_numpy(np.asarray(users))

    def item_matrix(self) -> torch.Tensor:
        return self.get_buffer("items")


def int8(model: EllmRecommender) -> EllmRecommender:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(plain_backbone(model.backbone), Int8WeightOnlyConfig())
    return model


def int8_dynamic(model: EllmRecommender) -> EllmRecommender:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantize_(plain_backbone(model.backbone), Int8DynamicActivationInt8WeightConfig())
    return model


def int4(model: EllmRecommender) -> EllmRecommender:
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    for layer in linear_layers(model):
        group = next(size for size in range(GROUP, 0, -1) if layer.in_features % size == 0)
        config = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(group))  # type: ignore[attr-defined]
        quantize_(layer, config)
    return model


def pruned(model: EllmRecommender) -> EllmRecommender:
    for layer in linear_layers(model):
        prune.l1_unstructured(layer, "weight", SHARE)
        prune.remove(layer, "weight")
    return model


def neurons(model: EllmRecommender) -> EllmRecommender:
    """Raises InputError for a decoder whose MLPs are not LLaMA's."""
    decoder = plain_backbone(model.backbone)
    for layer in decoder.layers:
        mlp = layer.mlp
        if not all(hasattr(mlp, name) for name in ("gate_proj", "up_proj", "down_proj")):
            raise InputError(f"neurons: a {decoder.config.model_type} decoder has other MLPs than LLaMA")
        prune.ln_structured(mlp.down_proj, "weight", SHARE, n=2, dim=1)
        kept = mlp.down_proj.weight_mask[0].bool()
        prune.remove(mlp.down_proj, "weight")
        for name in ("gate_proj", "up_proj"):
            replace_weight(getattr(mlp, name), getattr(mlp, name).weight[kept])
        replace_weight(mlp.down_proj, mlp.down_proj.weight[:, kept])
    return model


def replace_weight(layer: nn.Linear, weight: torch.Tensor) -> None:
    """Raises InputError for a layer with a bias, which would have to be cut too."""
    if layer.bias is not None:
        raise InputError("neurons: an MLP with biases is not cut")
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    layer.out_features, layer.in_features = weight.shape


def linear_layers(model: EllmRecommender) -> list[nn.Linear]:
    """Those of the decoder."""
    return [module for module in plain_backbone(model.backbone).modules() if isinstance(module, nn.Linear)]


KINDS: dict[str, Callable[[EllmRecommender], Recommender]] = {
    "fp32": lambda model: model,
    "bf16": lambda model: model.answering("bf16"),
    "int8": int8,
    "int8_dynamic": int8_dynamic,
    "int4": int4,
    "pruned": pruned,
    "neurons": neurons,
    "onnx": OnnxRecommender,
    "onnx_int8": lambda model: OnnxRecommender(model, quantised=True),
}
