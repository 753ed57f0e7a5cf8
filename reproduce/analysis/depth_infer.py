"""How well each of the last ten layers recommends, without training (Section 2, Figures 2 and 5 (a) to (c)).

    python -m reproduce.analysis.depth_infer --model runs/demo/e4srec_8 --split test

The trained user projection reads the state after layer l in the place of the last layer's. The paper does not say whether that
state goes through the decoder's final norm first, so both are measured; the last layer's always does, as in training.

Writes metrics.json into <model>/depth_infer-<split>:
{"layers": [{"layer": l, "final_norm": false, "metrics": {"sampled": {...}, "full": {...}}}, ...]}, fractions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import torch

from reproduce.analysis.finished_model import AnalysisArguments, final_norm, open_analysis
from slmrec.checks import at_least
from slmrec.command_line import parse_arguments
from slmrec.data.dataset import SequenceDataset
from slmrec.errors import InputError
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.llm.ellmrec import EllmRecommender
from slmrec.open_model import load_recommender
from slmrec.recommender import Recommender
from slmrec.runtime import pick_device, run_main

LAST_LAYERS = 10  # Section 2: "the final ten layers"


@dataclass(frozen=True)
class Reading:
    """Where a user vector is read: after layer `layer` (1-based), through the final norm or not."""

    layer: int
    final_norm: bool


@dataclass
class DepthInferArguments(AnalysisArguments):
    """What each layer is measured against."""

    candidates_seed: int = field(default=0, metadata={"help": "seed of the candidates that a target is ranked against"})
    num_candidates: int = field(default=999, metadata={"help": "candidates per target, all of them items the user never touched"})

    def __post_init__(self):
        super().__post_init__()
        at_least("num_candidates", self.num_candidates, 1)
        if not 0 <= self.candidates_seed < 2**64:
            raise InputError(f"--candidates_seed {self.candidates_seed}: must be in 0..2**64 - 1")


def readings(num_layers: int) -> list[Reading]:
    """Two for each of the last ten layers, by rising depth; one for the very last, whose state is normed by definition."""
    layers = range(max(1, num_layers - LAST_LAYERS + 1), num_layers)
    return [Reading(layer, normed) for layer in layers for normed in (False, True)] + [Reading(num_layers, True)]


class LayerReader(Recommender):
    """Recommends with the user vectors of one `reading`, which may be changed between evaluations.

    The model runs once: the first evaluation keeps every user's vectors of all readings (4 * readings * d0 bytes a user, in main
    memory), and the later ones look them up.
    """

    def __init__(self, model: EllmRecommender, num_users: int):
        super().__init__()
        self.model, self.max_length = model, model.max_length
        self.readings = readings(model.num_layers)
        self.reading = self.readings[-1]
        self.vectors = torch.empty(len(self.readings), num_users, model.item_matrix().shape[1])
        self.known = torch.zeros(num_users, dtype=torch.bool)

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        users = batch["users"].cpu()
        if not self.known[users].all():
            for place, vectors in enumerate(self._read(batch)):
                self.vectors[place, users] = vectors.cpu()
            self.known[users] = True
        return self.vectors[self.readings.index(self.reading), users].to(batch["users"].device)

    def _read(self, batch: dict[str, torch.Tensor]) -> Iterator[torch.Tensor]:
        """User vectors float32 [B, d0], one tensor for each reading."""
        layers = tuple({reading.layer: None for reading in self.readings})
        states = self.model(batch, layers=layers, read="last").states
        norm = final_norm(self.model)
        for reading in self.readings:
            state = states[reading.layer]
            if reading.final_norm and reading.layer < self.model.num_layers:  # the last one's comes normed
                state = norm(state)
            yield self.model.user_projection(state.float())

    def item_matrix(self) -> torch.Tensor:
        return self.model.item_matrix()


def measure(reader: LayerReader, dataset: SequenceDataset, args: DepthInferArguments, device: torch.device) -> list[dict]:
    """The metrics of every reading, all against the same candidates, as metrics.json has them; prints MRR in percent."""
    layers = []
    for reading in reader.readings:
        reader.reading = reading
        evaluation = evaluate_recommender(
            reader,
            dataset,
            args.split,
            seed=args.candidates_seed,
            num_candidates=args.num_candidates,
            full_ranking=True,
            batch_size=args.eval_batch_size,
            device=device,
            progress=False,
        )
        layers.append(asdict(reading) | {"metrics": evaluation.metrics})
        mrr = ", ".join(f"MRR {100 * metrics['MRR']:.2f} ({name})" for name, metrics in evaluation.metrics.items())
        print(f"layer {reading.layer}, {'after' if reading.final_norm else 'without'} the final norm: {mrr}", flush=True)
    return layers


def main(argv: list[str] | None = None) -> None:
    (args,) = parse_arguments(DepthInferArguments, argv, description=__doc__)
    device = pick_device(args.device)
    config = {"candidates_seed": args.candidates_seed, "num_candidates": args.num_candidates}
    stage, dataset = open_analysis("depth_infer", args, config, seed=args.candidates_seed)
    if stage.up_to_date:
        return
    with stage:
        stage.device = str(device)
        reader = LayerReader(load_recommender(args.model, device), dataset.num_users)
        stage.metrics = {"layers": measure(reader, dataset, args, device)}


if __name__ == "__main__":
    run_main(main)
