"""E-LLMRec (E4SRec in the paper's tables): frozen item embeddings -> linear -> decoder -> linear -> user vector (Section 3)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from slmrec.catalogue_loss import ItemLoss, catalogue_cross_entropy
from slmrec.errors import InputError
from slmrec.llm.backbone import in_bfloat16, merge_adapters, plain_backbone
from slmrec.llm.encoding import ATTENTION, PromptedRows, States, exact_states, prompt_memory, reference_states
from slmrec.llm.four_bits import how_read
from slmrec.llm.prompt import Prompt
from slmrec.recommender import Recommender

ENCODINGS: dict[str, Callable[..., States]] = {"exact": exact_states, "reference": reference_states}


@dataclass
class Encoded:
    """What one forward pass gives, for n read positions (n = B users, or T items with targets="all").

    Attributes:
        users: float32 [n, d0], user vectors in the space of the item embeddings.
        items: float32 [N + 1, d0], the item embeddings they are scored against.
        states: layer -> [n, d1], the decoder's states that were asked for, 1-based; the last layer's is after the final norm.
        block_users: layer -> float32 [n, d0], user vectors read from intermediate layers by their own adapters (Eq. 5).
        projected: layer -> [n, width of the teacher], states after their learned map, where the model has one.
        attention: float32 [n, H, A], the last layer's attention weights, where they were asked for.
    """

    users: torch.Tensor
    items: torch.Tensor
    states: dict[int, torch.Tensor] = field(default_factory=dict)
    block_users: dict[int, torch.Tensor] = field(default_factory=dict)
    projected: dict[int, torch.Tensor] = field(default_factory=dict)
    attention: torch.Tensor | None = None


ForwardPass = Callable[..., Encoded]  # what an objective needs of a model: to be called like `EllmModel`


class EllmModel(Protocol):
    """What the LLM stages train and save: one E-LLMRec, or a student together with the teacher that learns beside it."""

    def __call__(
        self, batch: dict[str, torch.Tensor], layers: tuple[int, ...] = (), read: str | None = None, attention: bool = False
    ) -> Encoded:
        """One forward pass, of the student where there are two."""

    def item_matrix(self) -> torch.Tensor:
        """The item embeddings, float32 [N + 1, d0]."""

    def parts(self) -> dict[str, EllmRecommender]:
        """What a checkpoint holds: sub-directory -> model. What recommends lies in the directory itself, under ""."""


class EllmRecommender(Recommender):
    """A decoder that reads item embeddings between prompt tokens and answers with a user vector.

    Args:
        backbone: decoder with d1 = hidden size, plain or wrapped by peft.
        item_embeddings: float32 [N + 1, d0], frozen; row 0 is PAD.
        prompt: token ids before and after the items.
        max_length: item slots per row; positions are counted as if every row filled them.
        targets: "last" (read after the closing prompt tokens) or "all" (read at every item, no closing tokens).
        encoding: "exact" or "reference" (see `slmrec.llm.encoding`); the results are equal.
        supervised_layers: intermediate layers that get an adapter d1 -> d0 of their own (multiple supervision, Eq. 5).
        item_dropout: of the item vectors that enter the decoder, in training.
        projected_layers: layer -> width, layers whose states are compared with a teacher of another width after a linear map.
        text_vectors: float32 [N + 1, d_text], frozen; what the items are called, added to what enters the decoder through a
            linear map of their own, which starts at zero.
        train_items: the item embeddings are trained along (not in the paper).

    Attributes:
        final: its weights do not change any more, so the prompt's keys and values are kept from the next forward pass on.
        low: it answers in bfloat16.
        memory: they, as `prompt_memory` gives them, in the precision that was asked for last; None before.
    """

    text_vectors: torch.Tensor
    frozen_items: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor
    memory: torch.Tensor | None

    def __init__(
        self,
        backbone: nn.Module,
        item_embeddings: torch.Tensor,
        prompt: Prompt,
        *,
        max_length: int,
        targets: str = "last",
        encoding: str = "exact",
        supervised_layers: tuple[int, ...] = (),
        item_dropout: float = 0.0,
        projected_layers: dict[int, int] | None = None,
        text_vectors: torch.Tensor | None = None,
        train_items: bool = False,
    ):
        super().__init__()
        hidden_size = plain_backbone(backbone).config.hidden_size
        size = item_embeddings.shape[1]
        self.max_length, self.targets, self.encoding, self.prompt = max_length, targets, encoding, prompt
        self.backbone = backbone
        self.recompute, self.final, self.low = False, False, False
        self.item_projection = nn.Linear(size, hidden_size)
        self.item_dropout = nn.Dropout(item_dropout)
        self.user_projection = nn.Linear(hidden_size, size, bias=False)
        self.block_projections = nn.ModuleDict(
            {str(layer): nn.Linear(hidden_size, size, bias=False) for layer in supervised_layers}
        )
        self.state_projections = nn.ModuleDict(
            {str(layer): nn.Linear(hidden_size, width, bias=False) for layer, width in (projected_layers or {}).items()}
        )
        self.text_projection: nn.Linear | None = None
        if text_vectors is not None:
            self.text_projection = nn.Linear(text_vectors.shape[1], hidden_size, bias=False)
            nn.init.zeros_(self.text_projection.weight)
            self.register_buffer("text_vectors", text_vectors.float(), persistent=False)
        self.trained_items = nn.Embedding.from_pretrained(item_embeddings.float().clone(), freeze=False) if train_items else None
        if self.trained_items is None:
            self.register_buffer("frozen_items", item_embeddings.float(), persistent=False)
        self.register_buffer("before", torch.tensor(prompt.before, dtype=torch.long), persistent=False)
        self.register_buffer("after", torch.tensor(prompt.after, dtype=torch.long), persistent=False)
        self.register_buffer("memory", None, persistent=False)

    @property
    def num_layers(self) -> int:
        return plain_backbone(self.backbone).config.num_hidden_layers

    @property
    def hidden_size(self) -> int:
        return plain_backbone(self.backbone).config.hidden_size

    @property
    def item_embeddings(self) -> torch.Tensor:
        """float32 [N + 1, d0]."""
        return self.frozen_items if self.trained_items is None else self.trained_items.weight

    def heads(self) -> nn.ModuleDict:
        """The trained layers outside the backbone."""
        heads = {
            "item_projection": self.item_projection,
            "user_projection": self.user_projection,
            "block_projections": self.block_projections,
            "state_projections": self.state_projections,
            "text_projection": self.text_projection,
            "trained_items": self.trained_items,
        }
        return nn.ModuleDict({name: head for name, head in heads.items() if head is not None})

    def item_vectors(self, items: torch.Tensor) -> torch.Tensor:
        """What enters the decoder for items int64 [T], float [T, d1]."""
        vectors = self.item_projection(self.item_embeddings[items])
        return vectors if self.text_projection is None else vectors + self.text_projection(self.text_vectors[items])

    def forward(
        self, batch: dict[str, torch.Tensor], layers: tuple[int, ...] = (), read: str | None = None, attention: bool = False
    ) -> Encoded:
        """User vectors, the states of `layers`, and the last layer's attention weights if asked for, at the read positions.

        `read` is "last" or "all"; by default what the training targets need.
        """
        rows = self.prompted_rows(batch, read)
        supervised = [int(layer) for layer in self.block_projections]
        wanted = {*layers, *supervised, self.num_layers} | ({ATTENTION} if attention else set())
        decoder, options = plain_backbone(self.backbone), {}
        if self.encoding == "exact":
            if self.final and (self.memory is None or self.memory.dtype != rows.items.dtype):
                self.memory = prompt_memory(decoder, rows)
            options = {"recompute": self.recompute and self.training, "memory": self.memory}
        states = ENCODINGS[self.encoding](decoder, rows, wanted, **options)
        return Encoded(
            users=self._read_user(self.user_projection, states[self.num_layers]),
            items=self.item_embeddings,
            states={layer: states[layer] for layer in layers},
            block_users={layer: self._read_user(self.block_projections[str(layer)], states[layer]) for layer in supervised},
            projected={layer: self.state_projections[str(layer)](states[layer]) for layer in layers if self._projects(layer)},
            attention=states.get(ATTENTION),
        )

    def prompted_rows(self, batch: dict[str, torch.Tensor], read: str | None = None) -> PromptedRows:
        """A batch as the decoder sees it, item vectors between prompt tokens."""
        token_vectors = plain_backbone(self.backbone).get_input_embeddings()
        return PromptedRows(
            items=self.item_dropout(self.item_vectors(batch["history"])),
            lengths=batch["lengths"].cpu().numpy(),
            before=token_vectors(self.before),
            after=token_vectors(self.after),
            max_length=self.max_length,
            read=read or ("all" if self.targets == "all" else "last"),
        )

    def train(self, mode: bool = True) -> EllmRecommender:
        """As any module's; weights that are trained again are final no longer, and the prompt is forgotten."""
        if mode:
            self.final, self.memory = False, None
        return super().train(mode)

    def recompute_activations(self) -> None:
        """From here on the backward pass computes what is inside each layer once more: gradient checkpointing."""
        self.recompute = True
        if self.encoding == "reference":
            kept = {"use_reentrant": False}
            plain_backbone(self.backbone).activation_checkpointing_enable(activation_checkpointing_kwargs=kept)

    def _projects(self, layer: int) -> bool:
        return str(layer) in self.state_projections

    def parts(self) -> dict[str, EllmRecommender]:
        """A lone model is its own only part."""
        return {"": self}

    @staticmethod
    def _read_user(projection: nn.Module, states: torch.Tensor) -> torch.Tensor:
        """User vectors stay in float32 under mixed precision: they are scored and ranked."""
        with torch.autocast(states.device.type, enabled=False):
            return projection(states.float())

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.autocast(self.before.device.type, torch.bfloat16) if self.low else nullcontext():
            return self(batch, read="last").users

    def item_matrix(self) -> torch.Tensor:
        return self.item_embeddings

    def answering(self, precision: str = "fp32") -> EllmRecommender:
        """Adapters are merged, and the prompt's keys and values kept. The reference encoding stays the plain definition.

        With the precision bf16 the decoder's weights and products are in bfloat16; user vectors and items stay float32.
        """
        self.eval()
        if precision == "bf16" and how_read(plain_backbone(self.backbone)):
            raise InputError(f"--precision {precision}: the model was read in 4 bits, and its products have their precision")
        if self.encoding == "exact":
            self.backbone, self.final = merge_adapters(self.backbone), True
        if precision == "bf16":
            self.backbone, self.low = in_bfloat16(self.backbone), True
        return self


def next_item_objective(
    model: ForwardPass, batch: dict[str, torch.Tensor], item_loss: ItemLoss = catalogue_cross_entropy
) -> dict[str, torch.Tensor]:
    """What fine-tuning minimises: cross-entropy over all items (paper, Eq. 1), averaged over the batch's targets.

    Scalars `ce` and `loss`, the same here.
    """
    encoded = model(batch)
    cross_entropy = item_loss(encoded.users, encoded.items, batch["targets"])
    return {"ce": cross_entropy, "loss": cross_entropy}
