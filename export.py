"""A trained E-LLMRec for use elsewhere: a folder that plain Transformers loads, or an ONNX graph.

    python export.py --model runs/demo/slmrec_4_8 --format huggingface --output_dir runs/demo/exported
    python export.py --model runs/demo/slmrec_4_8 --format onnx --output_dir runs/demo/onnx    (pip install -e '.[export]')

The README.md that it writes shows how the result is used in ten lines, without this project.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from slmrec.arguments import OutputArguments
from slmrec.artifacts import Stage, read_manifest, stage_directory
from slmrec.catalogue import load_catalogue
from slmrec.command_line import parse_arguments
from slmrec.errors import InputError
from slmrec.runtime import run_main

STAGES = ("finetune", "distill")


@dataclass
class ExportArguments:
    """Which model, and as what."""

    model: str = field(
        metadata={"help": "directory of a trained E-LLMRec (finetune.py, distill.py), or a checkpoint-N inside one"}
    )
    format: Literal["huggingface", "onnx"] = field(
        default="huggingface", metadata={"help": "huggingface (a folder for AutoModel) or onnx (a graph for onnxruntime)"}
    )
    graph: Literal["exact", "reference"] = field(
        default="exact", metadata={"help": "of onnx: the prompt as constants, or as tokens of every row; same results, more work"}
    )

    def __post_init__(self):
        if self.format == "onnx" and not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
            raise InputError("--format onnx needs onnx and onnxscript: pip install -e '.[export]'")
        if self.format != "onnx" and self.graph != "exact":
            raise InputError("--graph is only for --format onnx")


def main(argv: list[str] | None = None) -> None:
    args, output = parse_arguments((ExportArguments, OutputArguments), argv, description=__doc__)
    from slmrec.export.folder import write_card, write_folder, write_graph
    from slmrec.export.graph import merged
    from slmrec.llm.model_directory import load_ellmrec, model_input

    source = model_input(args.model, STAGES)
    stage = Stage(
        "export",
        output.output_dir,
        {"format": args.format, "graph": args.graph},
        {"model": source},
        overwrite=output.overwrite_output_dir,
        item_map=read_manifest(stage_directory(args.model), STAGES)["item_map"],
    )
    if stage.up_to_date:
        return
    with stage:
        model = merged(load_ellmrec(args.model))
        where = stage_directory(args.model)
        if args.format == "onnx":
            write_graph(model, where, stage.path, keep_prompt=args.graph == "exact")
        else:
            write_folder(model, where, stage.path)
        write_card(model, Path(args.model).name, source["digest"], load_catalogue(args.model), stage.path, args.format == "onnx")
    print(f"{output.output_dir}: README.md there shows how it is used")


if __name__ == "__main__":
    run_main(main)
