"""What the configuration file of `accelerate launch` asks for, which it says in the environment: taken, or refused in one line.

Plain data parallelism needs nothing of it. FSDP, version 2, is taken by the stages that train adapters on a frozen base model
(`slmrec.llm.sharding`). Whatever else would be ignored is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from slmrec.errors import InputError

OTHER_WAYS = {
    "DEEPSPEED": "DeepSpeed",
    "MEGATRON_LM": "Megatron-LM",
    "PARALLELISM_CONFIG": "a parallelism configuration",
}
ASKS = "ACCELERATE_USE_FSDP"
TAKEN = "SLMREC_SHARD_FROZEN"  # what `ASKS` becomes: read by accelerate itself it would shard what is trained as well
# Setting of the configuration -> the values that say what is done here; None: left out
FSDP_SETTINGS = {
    "fsdp_version": ("2",),
    "fsdp_auto_wrap_policy": ("TRANSFORMER_BASED_WRAP",),
    "fsdp_reshard_after_forward": ("true", "false"),
    "fsdp_state_dict_type": ("FULL_STATE_DICT",),
    "fsdp_cpu_ram_efficient_loading": ("false",),
    "fsdp_offload_params": ("false", None),
    "fsdp_activation_checkpointing": ("false", None),
    "fsdp_activation_checkpointing_offload": ("false", None),
    "fsdp_transformer_layer_cls_to_wrap": (None,),
    "fsdp_ignored_modules": (None,),
}


@dataclass(frozen=True)
class Sharding:
    """How frozen weights are shared out among the processes; `reshard`: given back after each forward pass of a layer."""

    reshard: bool


def take_configuration(shards: bool) -> None:
    """Look at what accelerate is asked for; `shards`: the stage can share out frozen weights. Raises InputError."""
    for name, way in OTHER_WAYS.items():
        if _true(f"ACCELERATE_USE_{name}"):
            raise InputError(
                f"{way} is not supported: each process holds the model whole, or with FSDP its share (docs/gpu.md has the memory)"
            )
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no" and "LOCAL_RANK" in os.environ:
        raise InputError(f"accelerate's configuration says mixed_precision: {precision}; it has to be 'no', --precision decides")
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no")
    if backend.lower() != "no":
        raise InputError(f"accelerate's configuration says dynamo_backend: {backend}; compiling the models is not supported")
    if _true(ASKS):
        _take_fsdp(shards)


def sharding() -> Sharding | None:
    """What `take_configuration` has taken; None where each process holds the model whole."""
    return Sharding(os.environ["FSDP_RESHARD_AFTER_FORWARD"] == "true") if _true(TAKEN) else None


def _take_fsdp(shards: bool) -> None:
    if not shards:
        raise InputError(
            "FSDP is not supported by this stage, only by finetune.py and distill.py; "
            "give it scripts/accelerate/one_machine_8_gpus.yaml"
        )
    for setting, values in FSDP_SETTINGS.items():
        found = os.environ.get(setting.upper().replace("_LAYER_CLS_", "_CLS_"))  # the one that is called otherwise there
        if found not in values:
            wanted = " or ".join(value for value in values if value) or "left out"
            says = f"accelerate's configuration {f'says {setting}: {found}' if found else f'has no {setting}'}"
            raise InputError(f"{says}; it has to be {wanted} (scripts/accelerate/fsdp_13b.yaml)")
    os.environ[TAKEN] = os.environ.pop(ASKS)


def _true(name: str) -> bool:
    return os.environ.get(name, "false").lower() == "true"
