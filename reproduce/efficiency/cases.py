"""Models with random weights, which cost the same as trained ones, and one inference or training step of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import torch
from transformers import AutoModel, LlamaConfig

from reproduce.efficiency.arguments import BenchmarkArguments
from reproduce.efficiency.work import LayerShape, RowShape
from slmrec.data.batches import Batch
from slmrec.distillation.alignment import block_ends
from slmrec.distillation.arguments import DistillationArguments
from slmrec.distillation.objective import DistillationObjective
from slmrec.distillation.teacher import FrozenTeacher, TeacherSignals
from slmrec.llm.backbone import add_lora, load_backbone, load_backbone_config
from slmrec.llm.base_model import local_base_model
from slmrec.llm.ellmrec import EllmRecommender, next_item_objective
from slmrec.llm.prompt import Prompt, load_tokenizer, tokenize_prompt

BEFORE, AFTER = 62, 7  # prompt tokens with LLaMA's tokenizer; which ones they are does not matter to the cost
EMBEDDING_SIZE = 128  # d0 (paper, Section 5.1)
LORA_TARGETS = ["gate_proj", "up_proj", "down_proj"]

SLMREC_ENCODING = {"forward": "answering", "train": "exact"}  # of the student, by the mode of its case

Step = Callable[[Batch], None]


@dataclass(frozen=True)
class Case:
    """One thing that is timed.

    Attributes:
        layers: of the decoder.
        encoding: "reference", "exact", or "answering": exact, of a model whose weights are final (`EllmRecommender.answering`).
        mode: "forward" (user vectors, as in inference) or "train" (one optimiser step).
        teacher: how a training step gets the teacher's states: None (no distillation), "run" (forward pass of the teacher) or
            "cached" (they are there already).
    """

    layers: int
    encoding: str
    mode: str
    teacher: str | None = None


class StoredStates:
    """A teacher whose signals have been computed before."""

    learns = False

    def __init__(self, teacher: FrozenTeacher):
        self.teacher, self.stored = teacher, {}

    def signals(self, batch: Batch, attention: bool = False) -> TeacherSignals:
        key = (batch["users"].data_ptr(), len(batch["users"]))
        if key not in self.stored:
            self.stored[key] = self.teacher.signals(batch, attention)
        return self.stored[key]


class Models:
    """Builds models and steps; a model is built once and shared by the steps that can share it."""

    def __init__(self, arguments: BenchmarkArguments, num_items: int, device: torch.device):
        self.arguments, self.num_items, self.device = arguments, num_items, device
        self._built: dict[tuple, EllmRecommender] = {}

    def layer_shape(self, merged: bool = False) -> LayerShape:
        """With adapters, unless they are `merged` or there are none."""
        lora_r = self.arguments.lora_r if self.arguments.train_strategy == "lora" and not merged else 0
        share = self.arguments.num_key_value_heads / self.arguments.num_heads
        return LayerShape(self.arguments.hidden_size, self.arguments.intermediate_size, lora_r, share)

    @property
    def row_shape(self) -> RowShape:
        prompt = benchmark_prompt(self.arguments)
        return RowShape(len(prompt.before), len(prompt.after), self.arguments.max_length)

    def recommender(self, layers: int, precision: str | None = None, distilled: bool = False, role: str = "") -> EllmRecommender:
        """A model of so many layers; a distilled one has the adapters of Eq. 5. `role` keeps apart what must not be shared."""
        key = (layers, precision or self.arguments.precision, distilled, role)
        if key not in self._built:
            supervised = block_ends(layers, self.arguments.num_blocks, "student")[:-1] if distilled else ()
            self._built[key] = build_recommender(self.arguments, layers, self.num_items, self.device, key[1], supervised)
        return self._built[key]

    def answering(self, layers: int, precision: str, distilled: bool = False) -> EllmRecommender:
        """A model of so many layers that only answers, as `evaluate.py` asks it."""
        model = self.recommender(layers, precision, distilled, role="answering")
        model.answering()
        return model

    def step(self, case: Case, precision: str | None = None) -> Step:
        precision = precision or self.arguments.precision
        if case.encoding == "answering":
            return ForwardStep(self.answering(case.layers, precision, case.teacher is not None), "exact", precision)
        model = self.recommender(case.layers, precision, distilled=case.teacher is not None)
        if case.mode == "forward":
            return ForwardStep(model, case.encoding, precision)
        micro = self.arguments.micro_batch_size if case.encoding == "reference" else None
        return TrainStep(model, case.encoding, precision, self._objective(case, precision), micro)

    def _objective(self, case: Case, precision: str):
        if case.teacher is None:
            return next_item_objective
        blocks = self.arguments.num_blocks
        model = self.recommender(self.arguments.teacher_layers, precision, role="teacher")
        teacher = FrozenTeacher(model, block_ends(self.arguments.teacher_layers, blocks, "teacher"))
        return SameEncoding(
            model,
            case.encoding,
            DistillationObjective(
                StoredStates(teacher) if case.teacher == "cached" else teacher,
                block_ends(case.layers, blocks, "student"),
                DistillationArguments(teacher="", num_blocks=blocks),
            ),
        )


@dataclass
class SameEncoding:
    """A distillation objective whose teacher, shared with other steps, encodes as this step does."""

    teacher: EllmRecommender
    encoding: str
    objective: DistillationObjective

    def __call__(self, model: EllmRecommender, batch: Batch) -> dict[str, torch.Tensor]:
        self.teacher.encoding = self.encoding
        return self.objective(model, batch)


@dataclass
class ForwardStep:
    """User vectors of a batch."""

    model: EllmRecommender
    encoding: str
    precision: str

    def __call__(self, batch: Batch) -> torch.Tensor:
        self.model.encoding = self.encoding
        self.model.eval()
        with torch.inference_mode(), autocast(self.model, self.precision):
            return self.model.encode(batch)


class TrainStep:
    """Forward, loss, backward, clipping and AdamW, as the Trainer does them."""

    def __init__(self, model: EllmRecommender, encoding: str, precision: str, objective: Callable, micro_batch_size: int | None):
        self.model, self.encoding, self.precision, self.objective = model, encoding, precision, objective
        self.micro_batch_size = micro_batch_size
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=0.0)  # same work, but the weights stay: every step is alike

    def __call__(self, batch: Batch) -> None:
        self.model.encoding = self.encoding
        self.model.train()
        num_rows = len(batch["users"])
        for part in split_batch(batch, self.micro_batch_size or num_rows):
            with autocast(self.model, self.precision):
                loss = self.objective(self.model, part)["loss"]
            (loss * (len(part["users"]) / num_rows)).backward()
        self.update()

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)


def split_batch(batch: Batch, size: int) -> Iterator[Batch]:
    """Cut a batch (with one target per row) into batches of at most `size` rows."""
    ends = [0, *batch["lengths"].cumsum(0).tolist()]
    for start in range(0, len(batch["users"]), size):
        stop = min(start + size, len(batch["users"]))
        rows = {name: batch[name][start:stop] for name in ("users", "lengths", "targets")}
        yield rows | {"history": batch["history"][ends[start] : ends[stop]]}


def autocast(model: EllmRecommender, precision: str) -> torch.autocast:
    return torch.autocast(model.item_embeddings.device.type, torch.bfloat16, enabled=precision == "bf16")


def build_recommender(
    arguments: BenchmarkArguments, layers: int, num_items: int, device: torch.device | str, precision: str, supervised=()
) -> EllmRecommender:
    """An E-LLMRec of the shape in `arguments`, with the weights of its base model, where it has one, or random ones.

    Random ones are made on the device itself. Frozen weights are in the precision's dtype.
    """
    frozen = arguments.train_strategy == "lora"
    dtype = torch.bfloat16 if frozen and precision == "bf16" else torch.float32
    torch.manual_seed(arguments.seed)
    with torch.device(device):
        if arguments.base_model:
            backbone = load_backbone(arguments.base_model, layers, dtype)
        else:
            config = invented_config(arguments, layers)
            backbone = AutoModel.from_config(config, dtype=dtype, attn_implementation="sdpa", trust_remote_code=False)
        if frozen:
            backbone = add_lora(backbone, arguments.lora_r, arguments.lora_r, 0.05, LORA_TARGETS)
        table, prompt = torch.randn(num_items + 1, EMBEDDING_SIZE), benchmark_prompt(arguments)
        model = EllmRecommender(backbone, table, prompt, max_length=arguments.max_length, supervised_layers=tuple(supervised))
    return model.to(device)


def invented_config(arguments: BenchmarkArguments, layers: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=arguments.vocab_size,
        hidden_size=arguments.hidden_size,
        intermediate_size=arguments.intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=arguments.num_heads,
        num_key_value_heads=arguments.num_key_value_heads,
    )


def shaped_like_base_model(arguments: BenchmarkArguments) -> BenchmarkArguments:
    """The arguments with the sizes of their base model, which is made ready; as they are where there is none."""
    if arguments.base_model is None:
        return arguments
    directory = local_base_model(arguments.base_model, arguments.models_dir)
    config = load_backbone_config(directory)
    return replace(
        arguments,
        base_model=directory,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        vocab_size=config.vocab_size,
    )


@cache
def real_prompt(base_model: str) -> Prompt:
    return tokenize_prompt(load_tokenizer(base_model), "last")


def benchmark_prompt(arguments: BenchmarkArguments) -> Prompt:
    """The base model's own tokens, or as many as LLaMA's tokenizer gives."""
    if arguments.base_model:
        return real_prompt(arguments.base_model)
    return Prompt(*(tuple(i % arguments.vocab_size for i in range(tokens)) for tokens in (BEFORE, AFTER)))
