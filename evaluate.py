"""Stage 5: rank each user's held-out item with any model of this repository.

    python evaluate.py --model runs/demo/student --split test --full_ranking

Writes metrics.json (fractions), ranks.npz (per user: users, sampled, full; the first rank is 1) and example.json (one user's
history, what came next, and the ten best items).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from slmrec import processes
from slmrec.artifacts import Stage, require_same_item_map, stage_directory, stage_input, write_json
from slmrec.catalogue import catalogue_of
from slmrec.command_line import parse_arguments
from slmrec.data.dataset import SequenceDataset, load_dataset
from slmrec.evaluation.arguments import EvaluationArguments
from slmrec.evaluation.metrics import METRICS
from slmrec.evaluation.protocol import Evaluation, evaluate_recommender
from slmrec.open_model import MODEL_STAGES, data_directory, load_recommender
from slmrec.processes import launched
from slmrec.progress import in_pipeline
from slmrec.recommendation import Model
from slmrec.runtime import pick_device, run_main


def main(arguments: list[str] | None = None) -> None:
    (args,) = parse_arguments(EvaluationArguments, arguments, description=__doc__)
    if launched(__file__, args.launch, arguments):
        return
    device = pick_device(args.device)
    data = args.data or data_directory(args.model)
    require_same_item_map(stage_directory(args.model), data)
    dataset = load_dataset(data)
    stage = open_stage(args, data, dataset)
    if stage.up_to_date:
        return
    with stage:
        stage.device = str(device)
        recommender = load_recommender(args.model, device).answering()
        evaluation = evaluate_recommender(
            recommender,
            dataset,
            args.split,
            seed=args.candidates_seed,
            num_candidates=args.num_candidates,
            full_ranking=args.full_ranking,
            batch_size=args.eval_batch_size,
            device=device,
            score_floats=args.score_mib * 2**18,
        )
        if processes.first():
            np.savez_compressed(stage.path / "ranks.npz", users=np.arange(dataset.num_users), **evaluation.ranks)
            write_json(stage.path / "example.json", example(Model(recommender, catalogue_of(data), device), dataset, args.split))
        stage.metrics = {args.split: evaluation.metrics}
        found = [f"{100 * metrics['MRR']:.2f} among {rivals(metrics)}" for metrics in evaluation.metrics.values()]
        stage.result, stage.count = f"{args.split} MRR {', '.join(found)}", f"{dataset.num_users} users"
    if not in_pipeline() and processes.first():  # the pipeline shows all models in one table at its end
        print_table(args, dataset, evaluation, stage.output_dir)


def open_stage(args: EvaluationArguments, data: str | Path, dataset: SequenceDataset) -> Stage:
    """The stage directory of this evaluation; batch size and device are left out of its identity, they change no result."""
    model = stage_directory(args.model)
    config = {name: getattr(args, name) for name in ("split", "full_ranking", "candidates_seed", "num_candidates")}
    config["checkpoint"] = Path(args.model).name if model != Path(args.model) else None
    return Stage(
        "evaluate",
        args.output_dir or Path(args.model) / f"evaluation-{args.split}",
        config,
        {"data": stage_input(data, "data"), "model": stage_input(model, MODEL_STAGES)},
        overwrite=args.overwrite_output_dir,
        item_map=dataset.item_map,
        seed=args.candidates_seed,
    )


def example(model: Model, dataset: SequenceDataset, split: str) -> dict:
    """What the model recommends to the first user after what came before the target, beside the target."""
    items = [
        {"item": model.catalogue.source_ids[number - 1], "title": model.catalogue.titles[number - 1]}
        for number in dataset.items[: dataset.target_positions(split)[0] + 1]
    ]
    found = model.recommend([one["item"] for one in items[:-1]])
    return {"history": items[:-1], "target": items[-1], "recommended": [one._asdict() for one in found]}


def rivals(metrics: dict) -> str:
    """What a target was ranked among."""
    return f"all {metrics['items']} items" if "items" in metrics else f"1 + {metrics['candidates']} candidates"


def print_table(args: EvaluationArguments, dataset: SequenceDataset, evaluation: Evaluation, output_dir: Path) -> None:
    """Metrics in percent, one line for each way of ranking."""
    label = " on SYNTHETIC data (made by the demo generator, not real reviews)" if dataset.stats.get("synthetic") else ""
    print(f"{args.model}: {args.split} split, {dataset.num_users} users, in percent{label}")
    print(f"{'ranked among':<22}" + "".join(f"{name:>9}" for name in METRICS))
    for metrics in evaluation.metrics.values():
        print(f"{rivals(metrics):<22}" + "".join(f"{100 * metrics[column]:9.2f}" for column in METRICS))
        if "users_without_rivals" in metrics:
            left_out = metrics["users_without_rivals"]
            print(f"  {left_out} users have touched every item: nothing to rank their target against, so they are left out")
    print(", ".join(f"{part} {seconds:.1f} s" for part, seconds in evaluation.seconds.items()) + f"; written to {output_dir}")


if __name__ == "__main__":
    run_main(main)
