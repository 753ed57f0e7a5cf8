"""How titles become vectors, and how a recommender uses them, as command-line arguments."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from slmrec.checks import above, at_least, check_choices, device_name, each, seed_in_range, share_below_one
from slmrec.errors import InputError

TFIDF = "tfidf"
HALF = 0.5  # of the items: titles are used by themselves where more of them have one
USES = ("start", "sum", "adapter", "alphafuse", "auto", "off")


@dataclass
class TextArguments:
    """Titles to vectors."""

    data: str = field(metadata={"help": "directory of the data stage"})
    encoder: str = field(
        default=TFIDF,
        metadata={
            "help": "tfidf (words and word pairs, SVD; no download), minilm, smollm2-135m, or a checkpoint: directory or hub name"
        },
    )
    attributes: bool = field(default=False, metadata={"help": "add an item's categories and brand to its title"})
    dimensions: int | None = field(default=None, metadata={"help": "tfidf: directions that the SVD keeps; default 256"})
    ngrams: int | None = field(default=None, metadata={"help": "tfidf: words in the longest term; default 2"})
    seed: int = field(default=0, metadata={"help": "tfidf: of the SVD, which is a randomised one"})
    layer: int | None = field(
        default=None, metadata={"help": "checkpoints: the layer whose states are averaged; default: the last, after its norm"}
    )
    min_share: float = field(default=0.0, metadata={"help": "do nothing unless more than this share of the items have a title"})
    max_tokens: int | None = field(default=None, metadata={"help": "checkpoints: tokens of a text that are read; default 128"})
    models_dir: str = field(default="models", metadata={"help": "where checkpoints of known names are kept"})
    batch_size: int = field(default=64, metadata={"help": "checkpoints: texts at a time"})
    device: str = field(default="auto", metadata={"help": "checkpoints: auto, cpu, cuda or cuda:N"})

    def __post_init__(self):
        seed_in_range("seed", self.seed)
        share_below_one("min_share", self.min_share)
        each(at_least, self, "batch_size dimensions ngrams layer max_tokens", 1)
        device_name("device", self.device)
        counting = self.encoder == TFIDF
        self._default({"dimensions": 256, "ngrams": 2}, counting, "--encoder tfidf")
        self._default({"layer": None, "max_tokens": 128}, not counting, "an --encoder that is a checkpoint")

    def _default(self, defaults: dict, useful: bool, needed: str) -> None:
        """Fill in defaults; a flag that this encoder has no use for is refused rather than ignored."""
        for name, default in defaults.items():
            if getattr(self, name) is not None and not useful:
                raise InputError(f"--{name} is only for {needed}")
            if getattr(self, name) is None and useful:
                setattr(self, name, default)

    def settings(self) -> dict:
        """What determines the vectors, beside the inputs."""
        return {
            name: value
            for name, value in vars(self).items()
            if name not in ("data", "models_dir", "min_share", "batch_size", "device")
        }


@dataclass
class TextUseArguments:
    """How an encoder uses text vectors."""

    text: str | None = field(default=None, metadata={"help": "directory of text vectors (embed_titles.py) of the same data"})
    text_use: Literal["start", "sum", "adapter", "alphafuse", "auto", "off"] | None = field(
        default=None,
        metadata={
            "help": "start: the item table starts from the texts; sum: ID embedding plus a learned map of the text; adapter: a "
            "learned map of the text; alphafuse: text directions frozen, IDs in their null space; auto: start where more than "
            "half of the items have a title, else off; default: start with --text"
        },
    )
    text_exponent: float | None = field(
        default=None, metadata={"help": "start, alphafuse: of the singular values, 0 whitened, 1 PCA; default 0.5"}
    )
    text_std: float | None = field(
        default=None, metadata={"help": "start, adapter, alphafuse: standard deviation of the entries; default 0.06"}
    )
    text_dimensions: int | None = field(
        default=None,
        metadata={"help": "start, alphafuse: leading directions that are kept; default: the width of the table, alphafuse half"},
    )
    text_control: Literal["none", "shuffled", "gaussian"] | None = field(
        default=None, metadata={"help": "vectors in the place of the texts', as a control; default: none"}
    )
    text_cold: bool = field(
        default=True, metadata={"help": "items that no training row holds get their vector from their text, by ridge regression"}
    )

    def __post_init__(self):
        if self.text_use is None:
            self.text_use = "start" if self.text else "off"
        check_choices(self)
        if self.text is None and self.text_use != "off":
            raise InputError(f"--text_use {self.text_use}: needs --text")
        self._default("text_exponent", 0.5, ("start", "auto", "alphafuse"))
        self._default("text_std", 0.06, ("start", "auto", "adapter", "alphafuse"))
        self._default("text_dimensions", None, ("start", "auto", "alphafuse"))
        self._default("text_control", "none", USES[:-1])
        at_least("text_exponent", self.text_exponent, 0)
        at_least("text_dimensions", self.text_dimensions, 1)
        above("text_std", self.text_std, 0)

    def _default(self, name: str, default: float | str | None, uses: tuple[str, ...]) -> None:
        """Fill in a default; a flag that this use has no need of is refused rather than ignored."""
        if self.text_use not in uses and getattr(self, name) is not None:
            raise InputError(f"--{name} is not for --text_use {self.text_use}")
        if self.text_use in uses and getattr(self, name) is None:
            setattr(self, name, default)

    def decided(self, share: float) -> TextUseArguments:
        """These arguments with `auto` decided, by the share of the items that have a title."""
        if self.text_use != "auto":
            return self
        if share > HALF:
            return replace(self, text_use="start")
        return TextUseArguments(text_use="off", text_cold=self.text_cold)

    @property
    def used(self) -> bool:
        return self.text_use != "off"

    def settings(self) -> dict:
        """What determines the result, beside the vectors themselves."""
        return {name: value for name, value in vars(self).items() if name != "text"}
