"""How much each layer changes its input, and how alike the layers' states are.

    python -m reproduce.analysis.layers --model runs/demo/e4srec_8

Block influence is ShortGPT's (Men et al. 2024, Eq. 1), linear CKA that of Kornblith et al. (2019, Section 3). Both are taken at
the position that the user vector is read from, over the histories of all users. State 0 is the decoder's input there, state l the
output of layer l; the last one is taken before the final norm, like the others.

Writes metrics.json into <model>/layers-<split>:
{"block_influence": [L numbers], "cka": [L + 1 rows of L + 1 numbers or null], "users": n}.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from reproduce.analysis.finished_model import AnalysisArguments, final_norm, open_analysis
from slmrec.checks import at_least
from slmrec.command_line import parse_arguments
from slmrec.data.batches import SplitRows
from slmrec.errors import InputError
from slmrec.llm.backbone import plain_backbone
from slmrec.llm.ellmrec import EllmRecommender
from slmrec.open_model import load_recommender
from slmrec.ragged import row_ends
from slmrec.runtime import pick_device, run_main


@dataclass
class LayersArguments(AnalysisArguments):
    """Over how many users the states are compared."""

    max_users: int | None = field(
        default=None, metadata={"help": "read this many users, evenly spaced over the data, where there are more; default: all"}
    )

    def __post_init__(self):
        super().__post_init__()
        at_least("max_users", self.max_users, 2)


def block_influence(states: list[torch.Tensor]) -> list[float]:
    """1 - the mean cosine between input and output of each layer, from L + 1 states [n, d]; 0 for a layer that does nothing."""
    cosines = [cosine_similarity(before.double(), after.double(), dim=1) for before, after in zip(states, states[1:])]
    return [1 - float(cosine.mean()) for cosine in cosines]


def linear_cka(states: list[torch.Tensor]) -> list[list[float | None]]:
    """Linear CKA of every pair of states [n, d], whose d may differ: |Y'X|^2 / (|X'X| |Y'Y|), Frobenius norms, columns centred.

    None where one of the two is the same for all n: the ratio is then 0 / 0.
    """
    constant = [bool((state == state[0]).all()) for state in states]  # rounding in the mean would hide it
    centred = [state.double() - state.double().mean(dim=0) for state in states]
    aligned = np.zeros((len(states), len(states)))
    for row, first in enumerate(centred):
        for column in range(row, len(states)):
            aligned[row, column] = aligned[column, row] = (first.T @ centred[column]).square().sum()

    def similarity(row: int, column: int) -> float | None:
        if constant[row] or constant[column]:
            return None
        return float(aligned[row, column] / np.sqrt(aligned[row, row] * aligned[column, column]))

    return [[similarity(row, column) for column in range(len(states))] for row in range(len(states))]


def read_states(model: EllmRecommender, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The L + 1 states of one batch at the last position, [B, d1] each; none of them normed."""
    caught = []
    hook = final_norm(model).register_forward_pre_hook(lambda norm, inputs: caught.append(inputs[0]))
    try:
        states = model(batch, layers=tuple(range(1, model.num_layers)), read="last").states
    finally:
        hook.remove()
    (last,) = caught  # [B, d1], or with the reference encoding [B, positions, d1]
    return [decoder_input(model, batch), *states.values(), last if last.dim() == 2 else last[:, -1]]


def decoder_input(model: EllmRecommender, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the decoder is given at the last position [B, d1]: the last closing token's vector, or else the last item's."""
    if len(model.after):
        embed = plain_backbone(model.backbone).get_input_embeddings()
        return embed(model.after[-1:]).expand(len(batch["lengths"]), -1)
    last_items = batch["history"][row_ends(batch["lengths"])]
    return model.item_vectors(last_items)


def collect_states(model: EllmRecommender, rows: SplitRows, chosen: np.ndarray, batch_size: int) -> list[torch.Tensor]:
    """The states of the chosen rows, L + 1 tensors float32 [n, d1] in main memory. Raises InputError where one is not finite."""
    device = model.item_embeddings.device
    batches = []
    with torch.inference_mode():
        for start in range(0, len(chosen), batch_size):
            batch = {name: tensor.to(device) for name, tensor in rows.collate(chosen[start : start + batch_size]).items()}
            batches.append([state.float().cpu() for state in read_states(model, batch)])
    states = [torch.cat(parts) for parts in zip(*batches)]
    broken = [number for number, state in enumerate(states) if not state.isfinite().all()]
    if broken:
        raise InputError(f"the states after layer {broken[0]} are not finite (NaN or infinity); nothing was compared")
    return states


def evenly_spaced(total: int, most: int | None) -> np.ndarray:
    """`most` of the numbers 0..total - 1 (all of them by default), int64."""
    count = total if most is None else min(most, total)
    return np.arange(count) * total // max(count, 1)


def main(argv: list[str] | None = None) -> None:
    (args,) = parse_arguments(LayersArguments, argv, description=__doc__)
    device = pick_device(args.device)
    stage, dataset = open_analysis("layers", args, {"max_users": args.max_users})
    if stage.up_to_date:
        return
    with stage:
        stage.device = str(device)
        model = load_recommender(args.model, device)
        rows = SplitRows(dataset, args.split, model.max_length)
        chosen = evenly_spaced(len(rows), args.max_users)
        if len(chosen) < 2:
            raise InputError(f"{len(chosen)} users have a history; their states cannot be compared")
        states = collect_states(model, rows, chosen, args.eval_batch_size)
        stage.metrics = {"block_influence": block_influence(states), "cka": linear_cka(states), "users": len(chosen)}
    for layer, influence in enumerate(stage.metrics["block_influence"], start=1):
        print(f"layer {layer}: block influence {influence:.4f}")


if __name__ == "__main__":
    run_main(main)
