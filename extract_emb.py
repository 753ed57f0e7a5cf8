"""Stage 2: item embeddings for the LLM stages, from a trained encoder or from a released pickle.

python extract_emb.py --encoder runs/beauty/sasrec --output_dir runs/beauty/embeddings
python extract_emb.py --from_pickle sasrec_item.pkl --data runs/music/data --output_dir runs/music/embeddings
"""

from __future__ import annotations

import torch

from slmrec.arguments import OutputArguments
from slmrec.artifacts import Stage, file_input, read_manifest, stage_input
from slmrec.command_line import parse_arguments
from slmrec.data.dataset import load_dataset
from slmrec.embeddings import save_item_embeddings
from slmrec.encoders.arguments import EmbeddingArguments
from slmrec.encoders.registry import load_encoder
from slmrec.released_pickle import place_rows, read_released_pickle, write_released_pickle
from slmrec.runtime import run_main

PICKLE = "sasrec_item.pkl"  # the released code's name for it


def described_inputs(source: EmbeddingArguments) -> tuple[dict, str]:
    """What the stage reads, and the item map that its rows are numbered by."""
    if source.encoder:
        inputs = {"encoder": stage_input(source.encoder, "encoder")}
        return inputs, read_manifest(source.encoder)["item_map"]
    inputs = {"pickle": file_input(source.from_pickle), "data": stage_input(source.data, "data")}
    return inputs, read_manifest(source.data)["item_map"]


def item_table(source: EmbeddingArguments) -> torch.Tensor:
    """[N + 1, d]."""
    if source.encoder:
        return load_encoder(source.encoder).item_matrix()
    table = read_released_pickle(source.from_pickle)
    return place_rows(table, load_dataset(source.data).num_items, source.first_item_row)


def main(arguments: list[str] | None = None) -> None:
    source, output = parse_arguments((EmbeddingArguments, OutputArguments), arguments, description=__doc__)
    inputs, item_map = described_inputs(source)
    config = {"pickle": source.pickle, "first_item_row": source.first_item_row}
    stage = Stage("embeddings", output.output_dir, config, inputs, overwrite=output.overwrite_output_dir, item_map=item_map)
    if stage.up_to_date:
        return
    with stage, torch.no_grad():
        table = item_table(source)
        save_item_embeddings(table, stage.path)
        if source.pickle:
            write_released_pickle(table, stage.path / PICKLE)
        stage.result = f"{len(table) - 1} items, width {table.shape[1]}"


if __name__ == "__main__":
    run_main(main)
