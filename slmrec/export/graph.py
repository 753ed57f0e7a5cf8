"""An E-LLMRec as one traceable graph: left-padded histories in, user vectors out.

The exact encoding packs rows by their lengths in Python, which a trace would freeze. This graph computes the same states on
plain tensors: rows are padded to the longest of the batch, and the prompt, the same for everybody, is either part of every row
(the reference) or present as the keys and values that it has in each layer, which are constants of a trained model.

Shapes: B rows, L slots (the longest history of the batch, at most max_length), P and S prompt tokens, d1 hidden size.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PretrainedConfig

from slmrec.data.dataset import PAD
from slmrec.errors import InputError
from slmrec.llm.backbone import merge_adapters, plain_backbone
from slmrec.llm.ellmrec import EllmRecommender
from slmrec.llm.encoding import SharedPrompt, attention_window, prompt_memory, require_exact_support
from slmrec.llm.four_bits import how_read


class HistoryEncoder(nn.Module):
    """history int64 [B, L], oldest first, PAD (0) on the left -> user vectors float32 [B, d0], those of `model.encode`.

    Args:
        model: plain or with adapters, which must be merged (see `merged`).
        keep_prompt: the prompt enters as constants instead of as tokens of every row; the results are equal.
    """

    def __init__(self, model: EllmRecommender, keep_prompt: bool = True):
        super().__init__()
        decoder = plain_backbone(model.backbone)
        require_exact_support(decoder.config)
        _require_plain_attention(decoder.config, len(model.prompt.before) + model.max_length + len(model.prompt.after))
        self.model, self.decoder, self.keep_prompt = model.eval(), decoder, keep_prompt
        if keep_prompt:
            nothing = {name: torch.zeros(0, dtype=torch.int64, device=model.before.device) for name in ("history", "lengths")}
            for number, memory in enumerate(prompt_memory(decoder, model.prompted_rows(nothing, read="last"))):
                self.register_buffer(f"prompt_{number}", memory)

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        decoder, model = self.decoder, self.model
        embed, rows, slots = decoder.get_input_embeddings(), history.shape[0], history.shape[1]
        before, after = (embed(part).expand(rows, -1, -1) for part in (model.before, model.after))
        filled = history != PAD  # [B, L]
        items = model.item_vectors(history) * filled.unsqueeze(2)
        always = (filled.new_ones(rows, part.shape[1]) for part in (before, after))
        first, last = always
        hidden = torch.cat([items, after] if self.keep_prompt else [before, items, after], dim=1)
        seen = torch.cat([first, filled, last], dim=1)  # [B, P + L + S]
        # positions are those of the reference, whose rows are all padded to max_length
        begin = before.shape[1] + model.max_length - slots
        positions = torch.arange(slots + after.shape[1], device=history.device) + begin
        if not self.keep_prompt:
            positions = torch.cat([torch.arange(before.shape[1], device=history.device), positions])
        rope = decoder.rotary_emb(hidden, positions.unsqueeze(0))
        mask = self._mask(seen, hidden)
        for number, layer in enumerate(decoder.layers):
            kept = SharedPrompt(getattr(self, f"prompt_{number}")) if self.keep_prompt else None
            hidden = layer(hidden, position_embeddings=rope, past_key_values=kept, attention_mask=mask)
        return model.user_projection(decoder.norm(hidden[:, -1]).float())

    @staticmethod
    def _mask(seen: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """[B, 1, Q, P + L + S], 0 where a query may attend and the lowest number elsewhere; queries are the last Q tokens."""
        total, queries = seen.shape[1], hidden.shape[1]
        place = torch.arange(total, device=seen.device)
        causal = place.unsqueeze(0) <= (place[:queries] + (total - queries)).unsqueeze(1)  # [Q, P + L + S]
        allowed = causal.unsqueeze(0) & seen.unsqueeze(1)
        lowest = torch.finfo(hidden.dtype).min
        return torch.where(allowed, 0.0, lowest).to(hidden.dtype).unsqueeze(1)


def _require_plain_attention(config: PretrainedConfig, row_length: int) -> None:
    """Raise InputError for what the graph leaves out: windows shorter than a row, rotary embeddings that depend on its length."""
    if any(attention_window(config, layer, row_length) for layer in range(1, config.num_hidden_layers + 1)):
        raise InputError(f"this decoder attends to the last {config.sliding_window} positions only, which no export knows")
    if config.rope_parameters["rope_type"] == "longrope":
        raise InputError("this decoder's rotary embedding (longrope) depends on the length of a row, which no export knows")


def left_padded(histories: list[list[int]]) -> torch.Tensor:
    """Histories of item numbers as int64 [B, L] with PAD on the left."""
    longest = max(map(len, histories))
    return torch.tensor([[PAD] * (longest - len(one)) + list(one) for one in histories], dtype=torch.int64)


def merged(model: EllmRecommender) -> EllmRecommender:
    """The model with its adapters added to the weights they adapt; without adapters, itself.

    Raises InputError for weights in 4 bits, which would have to be rounded anew with the adapters in them.
    """
    if how_read(plain_backbone(model.backbone)):
        raise InputError("its base model is in 4 bits, and adapters cannot be added to such weights without rounding them anew")
    model.backbone = merge_adapters(model.backbone)
    return model
