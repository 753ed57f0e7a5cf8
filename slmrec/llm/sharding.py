"""A frozen base model whose weights lie in parts in the processes of a run: FSDP2 (torch.distributed.fsdp.fully_shard).

A layer's weights are gathered when it computes, and given back. What is trained (adapters, the maps between items and states) is
whole in every process, as are norms and token embeddings, of which a prompt needs a few rows. So trained weights, the optimiser's
states and checkpoints are what they are without sharding. The last layer's linear parts are gathered one by one, as they are
called one by one (`slmrec.llm.encoding`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from slmrec import processes
from slmrec.accelerate_configuration import sharding
from slmrec.errors import InputError
from slmrec.llm.arguments import EllmArguments
from slmrec.llm.backbone import load_backbone_config, plain_backbone, share_frozen
from slmrec.llm.ellmrec import EllmRecommender
from slmrec.llm.encoding import EXACT_MODEL_TYPES
from slmrec.llm.model_directory import resolve_train_strategy
from slmrec.progress import say

MIB = 2**20


def shards_weights() -> bool:
    """Whether frozen weights are shared out among the processes of this run; one process has nobody to share with."""
    return sharding() is not None and processes.number() > 1


def check_sharding(arguments: EllmArguments) -> None:
    """Raises InputError for a model whose frozen weights this run could not share out as it is asked to; loads nothing."""
    if not shards_weights():
        return
    if resolve_train_strategy(arguments) == "full":
        raise InputError(f"FSDP shares out frozen weights, and {arguments.base_model} is trained whole (--train_strategy)")
    if arguments.load_in_4bit:
        raise InputError("FSDP of weights in 4 bits is not supported: leave out --load_in_4bit, or each process holds them whole")
    kind = load_backbone_config(arguments.base_model).model_type
    if kind not in EXACT_MODEL_TYPES:
        raise InputError(f"FSDP knows the layers of {', '.join(EXACT_MODEL_TYPES)}, not those of {kind}")


def place(models: Sequence[EllmRecommender], device: torch.device) -> None:
    """Put one model, or a student and its teacher, on `device`, each frozen weight that they have in common once.

    Where this run shards, the device gets this process's share, and at most one layer at a time is whole there. All processes
    come here with the same models. Student and teacher then have shares of their own.
    """
    if shards_weights():
        processes.wait()  # so that their group is there
        if device.type == "cuda":
            torch.cuda.set_device(device)
        mesh = init_device_mesh(device.type, (processes.number(),))
        for model in models:
            _shard(model, mesh, device)
        _say_shares(models)
    backbones = [model.to(device).backbone for model in models]
    if len(backbones) == 2:
        share_frozen(*backbones)


def _shard(model: EllmRecommender, mesh: DeviceMesh, device: torch.device) -> None:
    chosen = sharding()
    assert chosen is not None
    trained = {weight for weight in model.parameters() if weight.requires_grad}
    shard = partial(fully_shard, mesh=mesh, reshard_after_forward=chosen.reshard)
    *layers, last = plain_backbone(model.backbone).layers
    for part in (*layers, *last.self_attn.children(), last.mlp):
        shard(part, ignored_params=trained)
    whole = {weight for weight in model.parameters() if not isinstance(weight, DTensor)}
    for weight in whole:
        weight.data = weight.data.to(device)
    shard(model, ignored_params=whole)  # no weights of its own; it fetches those of the next layer ahead


def _say_shares(models: Sequence[EllmRecommender]) -> None:
    frozen = [weight for model in models for weight in model.parameters() if not weight.requires_grad]
    here = sum((weight.to_local() if isinstance(weight, DTensor) else weight).nbytes for weight in frozen)
    whole = sum(weight.numel() * weight.element_size() for weight in frozen)
    say(f"FSDP: this process holds {here / MIB:,.2f} of {whole / MIB:,.2f} MiB of frozen weights")


def data_parallel(model: nn.Module, device: torch.device) -> DistributedDataParallel:
    """What averages the gradients of trained weights, which are whole; accelerate would not wrap a model with others in parts."""
    parts = [name for name, weight in model.named_parameters() if isinstance(weight, DTensor)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, parts)
    return DistributedDataParallel(model, device_ids=None if device.type == "cpu" else [device], broadcast_buffers=False)
