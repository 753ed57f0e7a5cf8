"""What an epoch of each conventional recommender costs, beside the least that its matrix products could take.

    python -m reproduce.efficiency.encoder_costs --data runs/beauty/data --json results/encoders/costs_beauty.json

Every model trains `steps` steps with its defaults on the same users; the models take turns, so that a slow moment of the machine
hits all of them alike. The floor of an epoch is the FLOPs of its matrix products, convolutions and attention (counted by torch's
FlopCounterMode; 2 for a multiplication and an addition, forward and backward), over the rate of a large square matrix product in
the same run. Dropout, softmax, normalisation, looking up embeddings and the optimiser are not in the floor. Of the sparse
products with MAERec's graph the entries that exist are counted.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from reproduce.efficiency.environment import environment
from reproduce.efficiency.timing import DTYPES, ProcessorShare, in_turn, matrix_product_rate
from slmrec.artifacts import read_manifest, write_json
from slmrec.checks import one_of
from slmrec.command_line import parse_arguments
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import SequenceDataset, load_dataset
from slmrec.encoders.registry import TRAINED, build_encoder, registered
from slmrec.errors import InputError
from slmrec.runtime import pick_device, run_main, seed_everything
from slmrec.training.encoder_loop import LoopSettings, Objective, epoch_batches, new_optimizer, train_step

HEADER = f"{'model':<22}{'s/epoch':>9}{'floor':>8}{'ratio':>7}{'GFLOP/step':>12}"


@dataclass
class CostArguments:
    """What to measure."""

    data: str = field(metadata={"help": "directory of the data stage"})
    models: list[str] = field(default_factory=lambda: list(TRAINED), metadata={"help": "names as in train_sr_trad.py"})
    steps: int = field(default=8, metadata={"help": "timed steps of each model"})
    precision: str = field(default="fp32", metadata={"help": "of training, and of the product that gives the rate: fp32 or bf16"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})
    json: str | None = field(default=None, metadata={"help": "file to write the result to"})

    def __post_init__(self):
        one_of("precision", self.precision, tuple(DTYPES))
        if self.steps < 1:
            raise InputError(f"--steps {self.steps}: must be at least 1")
        for name in self.models:
            if not registered(name).training_defaults:
                raise InputError(f"--models {name}: it only counts and has no training step")


class Side:
    """One model in training: called with the number of a step, it makes that step.

    Attributes:
        num_steps: of an epoch.
    """

    def __init__(
        self, name: str, dataset: SequenceDataset, arguments: CostArguments, device: torch.device, pretraining: bool = False
    ):
        self.settings = LoopSettings(**registered(name).training_defaults | {"precision": arguments.precision})
        self.pretraining = pretraining
        self.model = build_encoder(name, dataset.num_items, dataset.num_users, {})
        rows = SplitRows(dataset, "train", self.model.max_length, self.settings.targets)
        self.model.prepare(rows)
        self.model.to(device).train()
        self.optimizer = new_optimizer(self.model, self.settings)
        self.objective = Objective(self.model, self.settings, pretraining)
        batches = epoch_batches(rows, self.settings.batch_size, seed=0, epoch=1)
        self.batches = [
            {key: value.to(device) for key, value in batch.items()} for _, batch in zip(range(arguments.steps), batches)
        ]
        self.num_steps = len(rows) / self.settings.batch_size

    def __call__(self, step: int) -> None:
        batch = self.batches[step % len(self.batches)]
        train_step(self.objective, batch, self.optimizer)

    def flops_per_step(self) -> float:
        with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mm: product_flops}) as counter:
            for step in range(len(self.batches)):
                self(step)
        return counter.get_total_flops() / len(self.batches)


def product_flops(left: torch.Tensor, right: torch.Tensor, *_, **__) -> int:
    """FLOPs of left @ right, with the entries that exist where left is sparse."""
    entries = left._nnz() if left.layout == torch.sparse_csr else left.numel()
    return 2 * entries * right.shape[1]


product_flops._get_raw = True  # FlopCounterMode passes such functions tensors in the place of shapes


def costs(arguments: CostArguments, device: torch.device) -> dict:
    """Model -> seconds and floor of an epoch, their ratio and the FLOPs of a step; beside the rate and the processor's share."""
    dataset = load_dataset(arguments.data)
    seed_everything(0)
    sides = {name: Side(name, dataset, arguments, device) for name in arguments.models}
    if "s3rec" in sides:
        sides["s3rec (pretraining)"] = Side("s3rec", dataset, arguments, device, pretraining=True)
    share = ProcessorShare()
    seconds = in_turn(sides, arguments.steps, device, "training steps")
    processor_share, rate = share(), matrix_product_rate(device, DTYPES[arguments.precision])
    models = {name: cost(side, statistics.median(seconds[name]), rate) for name, side in sides.items()}
    return {"models": models, "flops_per_second": rate, "processor_share": processor_share}


def cost(side: Side, step_seconds: float, rate: float) -> dict[str, float]:
    flops = side.flops_per_step()
    return {
        "epoch_seconds": step_seconds * side.num_steps,
        "floor_seconds": flops / rate * side.num_steps,
        "ratio": step_seconds * rate / flops,
        "flops_per_step": flops,
    }


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments(CostArguments, argv, description=__doc__)
    device = pick_device(arguments.device)
    result = costs(arguments, device)
    print(f"matrix products: {result['flops_per_second'] / 1e9:.0f} GFLOP/s", HEADER, sep="\n")
    for name, found in result["models"].items():
        values = f"{found['epoch_seconds']:9.1f}{found['floor_seconds']:8.1f}{found['ratio']:7.1f}"
        print(f"{name:<22}{values}{found['flops_per_step'] / 1e9:12.1f}")
    if arguments.json:
        made = {"data": read_manifest(arguments.data, "data")["digest"], "configuration": asdict(arguments)}
        made["environment"] = environment("reproduce.efficiency.encoder_costs", argv, device)
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(arguments.json), result | made)


if __name__ == "__main__":
    run_main(main)
