"""Stage 1: train an encoder, a conventional sequential recommender, whose item embeddings the LLM stages read.

python train_sr_trad.py --model sasrec --data runs/beauty/data --output_dir runs/beauty/sasrec
python train_sr_trad.py --model sasrec --data runs/beauty/data --text runs/beauty/text --output_dir runs/beauty/sasrec_text
python train_sr_trad.py --update_from runs/beauty/sasrec --data runs/beauty/newer_data --output_dir runs/beauty/newer_sasrec
"""

from __future__ import annotations

from slmrec import processes
from slmrec.arguments import OutputArguments
from slmrec.artifacts import Stage, stage_input
from slmrec.catalogue import save_catalogue
from slmrec.command_line import parse_arguments
from slmrec.data.batches import SplitRows
from slmrec.data.dataset import load_dataset
from slmrec.encoders.registry import (
    architecture_arguments,
    build_encoder,
    registered,
    save_encoder,
    training_arguments,
    with_defaults,
)
from slmrec.processes import launched
from slmrec.runtime import peak_memory_mib, pick_device, run_main, seed_everything
from slmrec.text.arguments import TextUseArguments
from slmrec.training.arguments import UpdateArguments
from slmrec.training.encoder_loop import LoopSettings, train_encoder
from slmrec.training.text_informed import decide_text, describe_text, finish_model, open_text, prepare_model
from slmrec.training.update import describe_update, going_on, start_from_encoder, update_rows


def main(arguments: list[str] | None = None) -> None:
    kinds = (architecture_arguments(), training_arguments(), TextUseArguments, UpdateArguments, OutputArguments)
    encoder, training, text_use, update, output = parse_arguments(kinds, arguments, description=__doc__)
    if launched(__file__, training.launch, arguments):
        return
    chosen = registered(encoder.model)
    architecture = with_defaults(encoder.model, chosen.architecture_defaults(), encoder.architecture())
    trained = with_defaults(encoder.model, chosen.training_defaults, training.settings())
    if update.update_from:
        architecture, trained = going_on(update.update_from, encoder.model, encoder.architecture(), training, trained)
    settings = LoopSettings(seed=training.seed, **trained)
    device = pick_device(training.device)
    dataset = load_dataset(training.data)

    sizes = {"num_items": dataset.num_items, "num_users": dataset.num_users}
    text_use = decide_text(text_use, training.data)
    text, (text_config, text_input) = open_text(text_use, training.data, settings.seed), describe_text(text_use)
    update_config, update_input = describe_update(update, "encoder", training.data)
    config = {"model": encoder.model, **sizes, "architecture": architecture, "training": vars(settings)}
    stage = Stage(
        "encoder",
        output.output_dir,
        config | text_config | update_config,
        {"data": stage_input(training.data, "data")} | text_input | update_input,
        overwrite=output.overwrite_output_dir,
        resumable=True,
        item_map=dataset.item_map,
        seed=settings.seed,
    )
    if stage.up_to_date:
        return
    with stage:
        stage.device = str(device)
        seed_everything(settings.seed)
        model = build_encoder(encoder.model, architecture=architecture, **sizes)
        if update.update_from:
            start_from_encoder(model, update.update_from, dataset, text.vectors if text else None)
        else:
            prepare_model(model, text)
        users = update_rows(dataset, update, settings.seed)
        history = train_encoder(model, dataset, settings, stage.path, device, training.report_to, users)
        from_text = finish_model(model, text, SplitRows(dataset, "train", model.max_length, settings.targets))
        if processes.first():
            save_encoder(model, stage.path)
            save_catalogue(training.data, stage.path)
        best = max((entry for entry in history if "valid_MRR" in entry), key=lambda entry: entry["valid_MRR"])
        stage.metrics = {
            "best_epoch": best["epoch"],
            "valid": {"sampled": {"MRR": best["valid_MRR"]}},
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "peak_memory_mib": peak_memory_mib(device),
            **({"items_from_text": from_text} if text else {}),
            "history": history,
        }
        stage.result = f"best validation MRR {best['valid_MRR']:.3f} at epoch {best['epoch']}"
        stage.count = f"{len(history)}/{settings.pretrain_epochs + settings.num_epochs} epochs"


if __name__ == "__main__":
    run_main(main)
