"""Open-P5, the generative row of the paper's tables: a LLaMA tuned to write the next item's id (Xu et al. 2023).

python train_openp5.py --data runs/demo/data --base_model runs/demo/backbone --output_dir runs/demo/openp5
"""

from __future__ import annotations

from slmrec.arguments import OutputArguments
from slmrec.command_line import parse_arguments
from slmrec.llm.backbone import load_backbone_config
from slmrec.llm.base_model import local_base_model
from slmrec.openp5.arguments import OpenP5Arguments, OpenP5Inputs, OpenP5TrainingArguments
from slmrec.openp5.stage import open_stage, train_and_save
from slmrec.processes import launched
from slmrec.runtime import run_main, seed_everything
from slmrec.training.llm_stage import resolve_precision


def main(argv: list[str] | None = None) -> None:
    kinds = (OpenP5Inputs, OpenP5Arguments, OpenP5TrainingArguments, OutputArguments)
    inputs, model, training, output = parse_arguments(kinds, argv, description=__doc__)
    if launched(__file__, training.launch, argv):
        return
    model.base_model = local_base_model(model.base_model, model.models_dir)
    precision = resolve_precision(training, load_backbone_config(model.base_model).hidden_size)
    stage = open_stage(output, model, inputs, training, precision)
    if stage.up_to_date:
        return
    with stage:
        seed_everything(training.seed)
        train_and_save(stage, model, inputs.data, training, precision)


if __name__ == "__main__":
    run_main(main)
