"""Item texts to vectors by a Hugging Face checkpoint: a layer's mean state, or what its sentence-transformers files say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from slmrec.artifacts import json_sha256, read_json
from slmrec.checkpoint_directory import named_digests, opening, require_readable, tokenizer_files
from slmrec.errors import InputError
from slmrec.llm.backbone import is_causal
from slmrec.progress import Counter
from slmrec.runtime import pick_device

MODULES, POOLING = "modules.json", "1_Pooling/config.json"  # of a sentence-transformers checkpoint
UNLIKE_AT_THE_END = torch.tensor([[0, 1, 2], [0, 1, 3]])  # tokens, for `is_causal`
UNDERSTOOD = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class Pooling:
    """How a text's states become its vector: their mean or the first one's, then with `normalize` divided by its length."""

    first_token: bool = False
    normalize: bool = False


def has_modules(checkpoint: str | Path) -> bool:
    return (Path(checkpoint) / MODULES).is_file()


def read_pooling(checkpoint: str | Path) -> Pooling:
    """Mean pooling, unless sentence-transformers files in a checkpoint directory say otherwise.

    Raises InputError for what is not understood rather than leaving it out.
    """
    if not has_modules(checkpoint):
        return Pooling()
    modules = read_json(Path(checkpoint) / MODULES, list)
    if not all(isinstance(module, dict) and isinstance(module.get("type"), str) for module in modules):
        raise InputError(f"--encoder {checkpoint}: its {MODULES} is no list of modules with a type each")
    kinds = [module["type"].split(".")[-1] for module in modules]
    strange = [kind for kind in kinds if kind not in UNDERSTOOD]
    if strange:
        raise InputError(
            f"--encoder {checkpoint}: its {MODULES} has a {strange[0]} module; {', '.join(UNDERSTOOD)} are understood"
        )
    modes = {
        name for name, value in read_json(Path(checkpoint) / POOLING).items() if name.startswith("pooling_mode") and value is True
    }
    if modes not in ({"pooling_mode_mean_tokens"}, {"pooling_mode_cls_token"}):
        raise InputError(
            f"--encoder {checkpoint}: its {POOLING} asks for {', '.join(sorted(modes)) or 'nothing'}, not for mean or cls"
        )
    return Pooling(first_token=modes == {"pooling_mode_cls_token"}, normalize="Normalize" in kinds)


def encoder_input(checkpoint: str) -> dict:
    """Describe the checkpoint as a stage input: the digest of all that shapes a vector, or of a hub name and commit."""
    if not Path(checkpoint).is_dir():
        return {"checkpoint": checkpoint, "digest": json_sha256([checkpoint, getattr(_config(checkpoint), "_commit_hash", None)])}
    files = {path for path in Path(checkpoint).rglob("*") if path.suffix in (".safetensors", ".json", ".bin", ".model")}
    digests = named_digests(files | tokenizer_files(checkpoint), checkpoint)
    return {"checkpoint": Path(checkpoint).name, "digest": json_sha256(digests)}


def embed_texts(
    texts: list[str], checkpoint: str, layer: int | None, max_tokens: int, batch_size: int, device: str
) -> np.ndarray:
    """Vectors of the texts, float32 [len(texts), d_text], in their order; texts of like length are embedded together.

    A decoder without sentence-transformers files reads a start token before each text, whose state is left out of the mean: from
    the first layers on, the first state is hundreds of times as long as the others whatever the token (Xiao et al., attention
    sinks, ICLR 2024), and a mean with it says little but how many tokens a text has.

    Args:
        layer: 1..L, whose states are pooled; None for the last one's after the final norm.
    """
    depth = _config(checkpoint).num_hidden_layers
    if layer is not None and layer > depth:
        raise InputError(f"--layer {layer}: {checkpoint} has {depth} layers")
    # one layer more than is read, as the last one's states are those after the final norm
    model = _open(checkpoint, depth if layer is None else min(depth, layer + 1))
    tokenizer, pooling = _tokenizer(checkpoint), read_pooling(checkpoint)
    place = pick_device(device)
    model.to(place)
    start_id = (
        None if has_modules(checkpoint) or not is_causal(model, input_ids=UNLIKE_AT_THE_END.to(place)) else start_token(tokenizer)
    )
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    vectors = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    with Counter("embedding titles", len(texts), unit="titles") as progress:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            tokens = tokenizer(
                [texts[row] for row in rows], padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
            ).to(place)
            vectors[rows] = _pooled(model, tokens, layer, pooling, start_id).cpu().numpy()
            progress.update(len(rows))
    return vectors


@torch.inference_mode()
def _pooled(
    model: PreTrainedModel, tokens: dict[str, torch.Tensor], layer: int | None, pooling: Pooling, start_id: int | None
) -> torch.Tensor:
    ids, mask = tokens["input_ids"], tokens["attention_mask"]  # [B, T]
    counted = mask
    if start_id is not None:
        if not (ids[:, 0] == start_id).all():  # some tokenizers put it there
            ids, mask = F.pad(ids, (1, 0), value=start_id), F.pad(mask, (1, 0), value=1)
        counted = mask * (torch.arange(ids.shape[1], device=ids.device) > 0)
    outputs = model(input_ids=ids, attention_mask=mask, output_hidden_states=layer is not None)
    states = outputs.last_hidden_state if layer is None else outputs.hidden_states[layer]  # [B, T, d_text]
    vectors = states[:, 0].float() if pooling.first_token else mean_of_tokens(states, counted)
    return F.normalize(vectors, dim=1) if pooling.normalize else vectors


def start_token(tokenizer: PreTrainedTokenizerBase) -> int:
    return tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id


def mean_of_tokens(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean float32 [B, d] of states [B, T, d] where mask int64 [B, T] is 1."""
    weights = mask.unsqueeze(2).float()
    return (states.float() * weights).sum(1) / weights.sum(1).clamp_min(1)


def _config(checkpoint: str):
    require_readable(checkpoint, "--encoder")
    with opening(checkpoint, "--encoder", "no checkpoint there"):
        return AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)


def _open(checkpoint: str, layers: int) -> PreTrainedModel:
    """The checkpoint with its first layers alone."""
    with opening(checkpoint, "--encoder", "its weights cannot be loaded"):
        options = {"dtype": torch.float32, "output_loading_info": True, "num_hidden_layers": layers}
        model, loaded = AutoModel.from_pretrained(checkpoint, **options, trust_remote_code=False)
    lacks = sorted(name for name in loaded["missing_keys"] if "pooler" not in name)  # of BERT, which is not used here
    if lacks:  # transformers would draw them
        raise InputError(f"--encoder {checkpoint}: its weights lack {lacks[0]} ({len(lacks)} such tensors)")
    return model.eval()


def _tokenizer(checkpoint: str) -> PreTrainedTokenizerBase:
    """Padded on the right, so that a decoder's tokens see none of the padding and the first token is the text's."""
    with opening(checkpoint, "--encoder", "no tokenizer that can be read"):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side="right", trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
