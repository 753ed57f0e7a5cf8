"""Beside stage 0: item titles to vectors, for recommenders that know what an item is called.

python embed_titles.py --data runs/beauty/data --output_dir runs/beauty/text
python embed_titles.py --data runs/beauty/data --encoder minilm --output_dir runs/beauty/text_minilm
"""

from __future__ import annotations

import numpy as np

from slmrec.arguments import OutputArguments
from slmrec.artifacts import Stage, read_manifest, stage_input
from slmrec.command_line import parse_arguments
from slmrec.embeddings import save_text_vectors
from slmrec.errors import InputError
from slmrec.progress import say
from slmrec.runtime import run_main
from slmrec.text.arguments import TFIDF, TextArguments
from slmrec.text.known_encoders import local_encoder
from slmrec.text.language_model import embed_texts, encoder_input
from slmrec.text.tfidf import tfidf_vectors
from slmrec.text.titles import item_texts, share_with_title
from slmrec.text.vectors import fill_missing


def embed(texts: list[str], args: TextArguments, checkpoint: str | None) -> np.ndarray:
    """float32 [len(texts), d_text]."""
    if checkpoint is None:
        return tfidf_vectors(texts, args.dimensions, args.ngrams, args.seed)
    return embed_texts(texts, checkpoint, args.layer, args.max_tokens, args.batch_size, args.device)


def main(arguments: list[str] | None = None) -> None:
    args, output = parse_arguments((TextArguments, OutputArguments), arguments, description=__doc__)
    share = share_with_title(args.data)
    if args.min_share and share <= args.min_share:
        say(f"{args.data}: {share:.0%} of the items have a title, so titles are left alone (--min_share {args.min_share:g})")
        return
    inputs = {"data": stage_input(args.data, "data")}
    checkpoint = None if args.encoder == TFIDF else local_encoder(args.encoder, args.models_dir)
    if checkpoint:
        inputs["encoder"] = encoder_input(checkpoint)
    item_map = read_manifest(args.data)["item_map"]
    stage = Stage("text", output.output_dir, args.settings(), inputs, overwrite=output.overwrite_output_dir, item_map=item_map)
    if stage.up_to_date:
        return
    texts = item_texts(args.data, args.attributes)
    known = np.array([bool(text) for text in texts])
    if not known.any():
        raise InputError(f"{args.data}: no item has a title; give the data stage --meta")
    with stage:
        distinct = sorted(set(texts) - {""})  # nothing is embedded twice
        place = {text: row for row, text in enumerate(distinct)}
        vectors = embed(distinct, args, checkpoint)[[place[text] for text in texts if text]]
        save_text_vectors(fill_missing(known, vectors), stage.path)
        stage.metrics = {"items": len(texts), "without_text": int((~known).sum()), "width": vectors.shape[1]}
        missing = f", {len(texts) - known.sum()} of them without a title, which get the mean" if not known.all() else ""
        stage.result = f"{len(texts)} items{missing}; {args.encoder}, width {vectors.shape[1]}"


if __name__ == "__main__":
    run_main(main)
