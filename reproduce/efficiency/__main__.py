r"""What exact encoding and distillation save, measured side by side in one run.

    python -m reproduce.efficiency --data runs/beauty/data --batch_size 256 --json results/efficiency/cpu_beauty_256.json

At LLaMA-7B shape on one GPU (random weights cost the same as real ones; a smaller --micro_batch_size takes less of its memory):

    python -m reproduce.efficiency --data runs/beauty/data --device cuda --precision bf16 --train_strategy lora \
        --e4srec_layers 32 --hidden_size 4096 --intermediate_size 11008 --num_heads 32 --vocab_size 32000 --micro_batch_size 32 \
        --json results/efficiency/gpu_llama7b.json

With --base_model the shape, weights and prompt are those of a real model, here SmolLM2 with all its 30 layers:

    python -m reproduce.efficiency --data runs/beauty/data --base_model smollm2-135m --train_strategy lora --num_layers 30 \
        --e4srec_layers 30 --micro_batch_size 16 --repeats 3 --json results/efficiency/cpu_smollm2_beauty.json

Without --data the histories are invented, with --mean_length actions per user. Times are medians over turns that alternate
between the sides. --parts precision compares float32 with bf16; --plot FILE draws tokens per row.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from reproduce.efficiency import paper_tables, speedups
from reproduce.efficiency.arguments import BenchmarkArguments
from reproduce.efficiency.cases import SLMREC_ENCODING, Case, Models, shaped_like_base_model
from reproduce.efficiency.environment import environment
from reproduce.efficiency.memory import peak_memory
from reproduce.efficiency.openp5_hours import OpenP5Costs, openp5_costs
from reproduce.efficiency.shares import ranking_shares, training_shares
from reproduce.efficiency.timing import ProcessorShare
from reproduce.efficiency.workload import Workload, make_workload
from reproduce.efficiency_tables import efficiency_tables
from reproduce.table import to_text
from slmrec.artifacts import write_json
from slmrec.command_line import parse_arguments
from slmrec.llm.backbone import backbone_input
from slmrec.runtime import pick_device, run_main

QUIET = 0.9  # of the wall time on a CPU; timings taken with less are marked


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments(BenchmarkArguments, argv, description=__doc__)
    arguments = shaped_like_base_model(arguments)
    device = pick_device(arguments.device)
    openp5 = openp5_costs(arguments.openp5, device) if arguments.openp5 else OpenP5Costs()  # before anything is timed
    workload = make_workload(arguments)
    models = Models(arguments, workload.dataset.num_items, device)
    result = headline(measure(arguments, models, workload, openp5)) | {
        "lengths": workload.label,
        "configuration": asdict(arguments) | described_base(arguments) | {"openp5": openp5.digest},
        "environment": environment("reproduce.efficiency", argv, device),
    }
    print(as_text(result), flush=True)
    if arguments.json:
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(arguments.json), result)
    if arguments.plot:
        from reproduce.efficiency.picture import plot_tokens  # matplotlib is slow to import

        batch = workload.batches("test", arguments.max_length, arguments.infer_batch_size, torch.device("cpu"))[0]
        plot_tokens(batch["lengths"].numpy(), models.row_shape, arguments.plot)


def as_text(result: dict) -> str:
    """All parts that were measured, for a terminal."""
    tables = efficiency_tables({"experiment": "efficiency", "benchmark": result})
    head = f"Users: {result['lengths']}\nDevice: {result['environment']['device']}, {result['configuration']['precision']}"
    if result.get("processor_share", 1.0) < QUIET:
        head += (
            f"\nOther programs ran meanwhile (this one had {result['processor_share']:.0%} of its processors): times are rough"
        )
    return "\n\n".join([head, *("\n".join([table.detail, to_text(table.header, table.rows), table.note]) for table in tables)])


def measure(arguments: BenchmarkArguments, models: Models, workload: Workload, openp5: OpenP5Costs) -> dict:
    """Each part that is asked for, under its name."""
    parts, result = set(arguments.parts), {}
    if "memory" in parts:  # first: on a GPU nothing else is held yet
        result["memory_mib"] = {name: peak_memory(arguments, case) for name, case in memory_cases(arguments).items()}
    share = ProcessorShare()
    if "encoding" in parts:
        result["encoding"] = speedups.compare_encodings(models, workload, arguments.repeats)
    if "models" in parts:
        result["models"] = speedups.compare_models(models, workload, arguments.repeats)
        result["parameters"] = speedups.parameters(models)
        llama = paper_tables.llama_parameters(arguments)
        result["parameters"] |= {f"{name} at LLaMA-7B shape": count for name, count in llama.items()} | openp5.parameters
    if "shares" in parts:
        training = training_shares(models, workload, arguments.repeats)
        result["shares"] = {"training": training, "ranking": ranking_shares(models, workload)}
    if "precision" in parts:
        result["precision"] = speedups.compare_precisions(models, workload, arguments.repeats)
    if {"models", "shares"} <= parts:
        result["tables"] = tables(arguments, models, workload, result, openp5)
    if models.device.type == "cpu":
        result["processor_share"] = share()
    return result


def described_base(arguments: BenchmarkArguments) -> dict:
    """A base model by its name and digest instead of its path, and without the place of the models."""
    base = {"base_model": arguments.base_model and backbone_input(arguments.base_model)}
    return base | {"models_dir": Path(arguments.models_dir).name}


def memory_cases(arguments: BenchmarkArguments) -> dict[str, Case | None]:
    """Steps whose peak memory is measured; None stands for the loss alone."""
    e4srec, student = arguments.e4srec_layers, arguments.student_layers
    slmrec = f"SLMRec_{student}<-{arguments.teacher_layers}"
    cases: dict[str, Case | None] = {}
    for mode in ("forward", "train"):
        depths = dict.fromkeys((arguments.num_layers, e4srec))
        cases |= {f"E4SRec_{layers} reference {mode}": Case(layers, "reference", mode) for layers in depths}
        cases[f"E4SRec_{arguments.num_layers} exact {mode}"] = Case(arguments.num_layers, "exact", mode)
        cases[f"{slmrec} reference {mode}"] = Case(student, "reference", mode, "run")
        cases[f"{slmrec} exact {mode}"] = Case(student, SLMREC_ENCODING[mode], mode, "run")
    return cases | {"loss alone, training": None}


def tables(arguments: BenchmarkArguments, models: Models, workload: Workload, result: dict, openp5: OpenP5Costs) -> dict:
    costs = paper_tables.seconds_per_row(arguments, result["models"], result["shares"])
    detailed = paper_tables.table_7(models, workload, costs, openp5.hours)
    conventional = paper_tables.conventional_seconds(arguments, workload, models.device)
    ranking = next(iter(costs.values())).ranking
    return {
        "Table 5": paper_tables.table_5(detailed, result["parameters"]),
        "Table 7": detailed,
        "Table 8": paper_tables.table_8(detailed, conventional, ranking),
    }


def headline(result: dict) -> dict:
    """The numbers of reference against exact, before everything else."""
    if "encoding" not in result:
        return result
    encoding, numbers = result["encoding"], {}
    for mode in ("forward", "train"):
        numbers[f"{mode}_speedup"] = encoding[mode]["speedup"]
        numbers[f"predicted_{mode}_speedup"] = encoding[mode]["predicted"]
        numbers[f"{mode}_achieved"] = encoding[mode]["achieved"]
    numbers |= {"token_ratio": encoding["tokens"]["token_ratio"], "max_abs_diff": encoding["max_abs_diff"]}
    return numbers | result


if __name__ == "__main__":
    run_main(main)
