"""Stage 3: tune an E-LLMRec (E4SRec in the paper's tables) to predict the next item: the teacher, or any other depth.

    python finetune.py --data runs/demo/data --embeddings runs/demo/embeddings --base_model runs/demo/backbone \
        --num_layers 8 --output_dir runs/demo/teacher

With --update_from DIR it goes on from a trained model, whose other flags it is given again, on data with new actions.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from slmrec.arguments import OutputArguments
from slmrec.command_line import parse_arguments
from slmrec.embeddings import load_item_embeddings, load_text_vectors
from slmrec.errors import InputError
from slmrec.llm.arguments import EllmArguments, EllmInputs
from slmrec.llm.backbone import load_backbone_config
from slmrec.llm.ellmrec import next_item_objective
from slmrec.llm.map_start import resolve_start
from slmrec.llm.model_directory import go_on_from, new_recommender
from slmrec.llm.sharding import place
from slmrec.processes import launched
from slmrec.runtime import pick_device, run_main, seed_everything
from slmrec.training.arguments import GuideArguments, LlmTrainingArguments, LossArguments, UpdateArguments
from slmrec.training.guide import check_guide, describe_guide, guided
from slmrec.training.llm_stage import DTYPES, open_stage, prepare_base_model, resolve_precision, train_and_save
from slmrec.training.sampled_softmax import choose_loss
from slmrec.training.update import describe_update


def main(argv: list[str] | None = None) -> None:
    kinds = (EllmInputs, EllmArguments, LossArguments, GuideArguments, LlmTrainingArguments, UpdateArguments, OutputArguments)
    inputs, model_arguments, loss, guide, training, update, output = parse_arguments(kinds, argv, description=__doc__)
    if launched(__file__, training.launch, argv, shards=True):
        return
    prepare_base_model(model_arguments, training.device)
    check_guide(guide, model_arguments, inputs)
    if model_arguments.start == "teacher":
        raise InputError("--start teacher is for distill.py, which has one: choose passing or random")
    model_arguments.start = resolve_start(model_arguments)
    precision = resolve_precision(training, load_backbone_config(model_arguments.base_model).hidden_size)
    config, guide_input = describe_guide(guide)
    update_config, update_input = describe_update(update, "finetune", inputs.data)
    extra = {"extra_config": config | update_config | loss.settings(), "extra_inputs": guide_input | update_input}
    stage = open_stage("finetune", output, model_arguments, inputs, training, precision, **extra)
    if stage.up_to_date:
        return
    with stage:
        seed_everything(training.seed)
        embeddings, text = load_item_embeddings(inputs.embeddings), load_text_vectors(inputs.text)
        model = new_recommender(model_arguments, embeddings, DTYPES[precision], text_vectors=text, seed=training.seed)
        if update.update_from:
            go_on_from(model, Path(update.update_from))
        place([model], pick_device(training.device))
        objective = partial(next_item_objective, item_loss=choose_loss(loss, inputs.data))
        objective = guided(objective, guide, model_arguments, training.device)
        train_and_save(stage, model, objective, model_arguments, inputs.data, training, precision, update)


if __name__ == "__main__":
    run_main(main)
