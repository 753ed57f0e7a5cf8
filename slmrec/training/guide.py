"""A trained encoder as a guide: an E-LLMRec's user vectors are pulled to its own, wherever they are read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from slmrec.artifacts import require_same_item_map, stage_input
from slmrec.embeddings import load_item_embeddings
from slmrec.encoders.encoder import Encoder
from slmrec.encoders.registry import load_encoder
from slmrec.errors import InputError
from slmrec.llm.arguments import EllmArguments, EllmInputs
from slmrec.llm.ellmrec import ForwardPass
from slmrec.runtime import pick_device
from slmrec.training.arguments import GuideArguments
from slmrec.training.trainer import Objective


@dataclass
class GuidedObjective:
    """Another objective's terms, its cross-entropy weighed anew, and `guide`: the distance of the user vectors from the guide's.

    Attributes:
        objective: gives `ce` and `loss` among its terms, and calls the model once.
        guide: frozen, in eval mode, on the device of the batches.
        targets: "all" (read at every item) or "last".
    """

    objective: Objective
    guide: Encoder
    targets: str
    lambda_guide: float
    lambda_ce: float

    def __call__(self, model: ForwardPass, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        passes = []

        def remembered(*arguments, **options):
            passes.append(model(*arguments, **options))
            return passes[-1]

        terms = self.objective(remembered, batch)
        (encoded,) = passes
        terms["guide"] = squared_distance(encoded.users, self.user_vectors(batch))
        return terms | {"loss": terms["loss"] + (self.lambda_ce - 1) * terms["ce"] + self.lambda_guide * terms["guide"]}

    @torch.no_grad()
    def user_vectors(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """float32 [n, d], the guide's own at the positions that are read."""
        with torch.autocast(batch["history"].device.type, enabled=False):
            return self.guide.encode_positions(batch) if self.targets == "all" else self.guide.encode(batch)


def squared_distance(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Mean over n user vectors [n, d] and over their d coordinates of the squared difference, so its scale is free of d."""
    return F.mse_loss(ours.float(), theirs.float())


def guided(objective: Objective, arguments: GuideArguments, model: EllmArguments, device: str) -> Objective:
    """The objective itself where there is no guide."""
    if arguments.guide is None:
        return objective
    assert arguments.lambda_guide is not None and arguments.lambda_ce is not None  # filled in beside a guide
    guide = load_encoder(arguments.guide).requires_grad_(False).to(pick_device(device))
    return GuidedObjective(objective, guide, model.targets, arguments.lambda_guide, arguments.lambda_ce)


def describe_guide(arguments: GuideArguments) -> tuple[dict, dict]:
    """(configuration, inputs) that a guide adds to those of a stage: nothing where there is none."""
    if arguments.guide is None:
        return {}, {}
    config = {"lambda_guide": arguments.lambda_guide, "lambda_ce": arguments.lambda_ce}
    return config, {"guide": stage_input(arguments.guide, "encoder")}


def check_guide(arguments: GuideArguments, model: EllmArguments, inputs: EllmInputs) -> None:
    """Raise InputError where a guide does not fit the model; before anything is written."""
    if arguments.guide is None:
        return
    require_same_item_map(arguments.guide, inputs.data)
    guide, items = load_encoder(arguments.guide), load_item_embeddings(inputs.embeddings)
    if not torch.equal(guide.item_matrix()[1:].detach(), items[1:]):
        raise InputError(f"--guide {arguments.guide}: --embeddings {inputs.embeddings} are not its item embeddings")
    if guide.max_length < model.max_length:
        raise InputError(f"--guide {arguments.guide} reads {guide.max_length} items, --max_length is {model.max_length}")
    if model.targets == "all" and type(guide).encode_positions is Encoder.encode_positions:
        raise InputError(f"--guide {arguments.guide}: {type(guide).__name__} has no vector at every item; give --targets last")
