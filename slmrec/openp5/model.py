"""A causal language model that answers with items, each written in a few tokens of an alphabet of its own.

The alphabet's tokens stand behind the base model's vocabulary; their vectors are trained, and so are adapters or all weights.
Where the base model writes with the vectors that it reads (tied), so does the alphabet.

Shapes: V tokens of the base model, K of the alphabet, d hidden size, B users, N items.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from slmrec.errors import InputError
from slmrec.llm.backbone import plain_backbone
from slmrec.openp5.item_index import ItemIndex
from slmrec.openp5.prompting import Prompter
from slmrec.openp5.scoring import catalogue_log_likelihoods
from slmrec.openp5.trie import build_trie
from slmrec.packing import pack_rows
from slmrec.ragged import places
from slmrec.recommender import Recommender

LOGITS_AT_ONCE = 2**20  # floats (4 MiB, which stay in a cache) where nothing is trained
PACKED_WIDTH = 256  # slots that short rows share, so that padding costs little


class OpenP5Recommender(Recommender):
    """The model. A user vector is what it says of every item: the log-likelihood of its answer after the user's prompt.

    Args:
        backbone: causal language model, plain or wrapped by peft.
        index: how items are written.
        prompter: of the same index and of the base model's tokenizer.
        max_length: latest items of a history that a prompt has.
        softmax: an answer's token is one of all V + K ("vocabulary"), or one of K ("ids").
    """

    def __init__(self, backbone: nn.Module, index: ItemIndex, prompter: Prompter, *, max_length: int, softmax: str):
        super().__init__()
        self.backbone, self.index, self.prompter = backbone, index, prompter
        self.max_length, self.softmax = max_length, softmax
        self.num_tokens = prompter.num_tokens
        vectors = self.language_model.get_input_embeddings().weight
        tied = self.language_model.get_output_embeddings().weight is vectors
        self.id_vectors = nn.Parameter(_like(vectors[: self.num_tokens], len(index.symbols)))  # [K, d]
        heads = None if tied else self.language_model.get_output_embeddings().weight
        self.id_heads = None if heads is None else nn.Parameter(_like(heads[: self.num_tokens], len(index.symbols)))  # [K, d]
        if heads is not None and softmax == "ids":
            heads.requires_grad_(False)  # nothing is written with them
        self.trie = build_trie(index.responses)

    @property
    def language_model(self) -> PreTrainedModel:
        """The causal model itself; adapters are inside its layers."""
        return plain_backbone(self.backbone)

    @property
    def num_layers(self) -> int:
        return self.language_model.config.num_hidden_layers

    def parts(self) -> dict[str, OpenP5Recommender]:
        """A lone model is its own only part."""
        return {"": self}

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Vectors [..., d] of tokens int64 [...], words (below V) and ids (from V on)."""
        table = self.language_model.get_input_embeddings()
        words = table(tokens.clamp(max=self.num_tokens - 1))
        ids = F.embedding((tokens - self.num_tokens).clamp(min=0), self.id_vectors).to(words.dtype)
        return torch.where((tokens >= self.num_tokens).unsqueeze(-1), ids, words)

    def states(self, tokens: torch.Tensor, **how) -> torch.Tensor:
        """The decoder's last states [B, T, d] of tokens int64 [B, T]; `how` goes to the decoder (mask, positions, cache)."""
        return self.language_model.base_model(inputs_embeds=self.embed(tokens), **how).last_hidden_state

    def log_probabilities(self, states: torch.Tensor) -> torch.Tensor:
        """log p(token k comes next), float32 [n, K], for states [n, d]."""
        with torch.autocast(states.device.type, enabled=False):
            heads = self.id_vectors if self.id_heads is None else self.id_heads
            logits = states.float() @ heads.T
            norm = logits.logsumexp(1, keepdim=True)
            if self.softmax == "vocabulary":
                norm = torch.logaddexp(norm, self._log_mass_of_words(states))
            return logits - norm

    def _log_mass_of_words(self, states: torch.Tensor) -> torch.Tensor:
        """logsumexp of the logits of all V words, float32 [n, 1]."""
        heads = self.language_model.get_output_embeddings().weight[: self.num_tokens]
        rows = len(states) if torch.is_grad_enabled() else max(1, LOGITS_AT_ONCE // self.num_tokens)
        parts = [F.linear(part.to(heads.dtype), heads).float().logsumexp(1) for part in states.split(max(rows, 1))]
        return torch.cat(parts).unsqueeze(1)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy of a batch of `PrefixRows` over the tokens of its answers."""
        lengths = batch["lengths"].cpu().numpy()
        packing = pack_rows(lengths, max(PACKED_WIDTH, int(lengths.max())), batch["tokens"].device)
        mask = packing.causal_mask()
        mask.diagonal(dim1=1, dim2=2).fill_(True)  # an empty slot attends to itself, as a softmax over nothing is undefined
        states = self.states(
            packing.pack(batch["tokens"]),
            attention_mask=mask.unsqueeze(1),
            position_ids=packing.pack(places(batch["lengths"])),
            use_cache=False,
        )
        read = packing.unpack(states)[batch["read"]]  # [A, d]
        return F.nll_loss(self.log_probabilities(read), batch["targets"])

    # -- the contract of a recommender ------------------------------------------------------------------------------------------

    def prompts(self, batch: dict[str, torch.Tensor]) -> list[list[int]]:
        """Token numbers of the prompts that a batch of histories is ranked by: the sequential task in unseen words."""
        histories = torch.split(batch["history"].cpu(), batch["lengths"].tolist())
        users = batch["users"].tolist()
        return [self.prompter.prompt("sequential", -1, items.tolist(), user) for items, user in zip(histories, users)]

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Log-likelihoods float32 [B, N + 1] of all items; 0 stands for PAD, which has none."""
        return catalogue_log_likelihoods(self, self.prompts(batch), self.trie)

    def item_matrix(self) -> torch.Tensor:
        raise InputError("Open-P5 writes items as tokens and has no vector of any item")

    def score_all(self, users: torch.Tensor) -> torch.Tensor:
        return users.clone()

    def score_block(self, users: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        return users[:, start:stop].clone()

    def score(self, users: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        return users.gather(1, candidates)


def _like(table: torch.Tensor, number: int) -> torch.Tensor:
    """New rows float32 [number, d] with the mean and, about it, the spread of a table's rows."""
    table = table.detach().float()
    return table.mean(0) + torch.randn(number, table.shape[1]) * (table - table.mean(0)).std()


def openp5_objective(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What training minimises, as the Trainer asks for it."""
    return {"loss": model(batch)}
