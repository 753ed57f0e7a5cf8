"""Which encoder, its size and its training, as command-line arguments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from slmrec.checks import above, at_least, check_choices, each, report_target, seed_in_range, share_below_one
from slmrec.errors import InputError

ENCODERS_OWN = "; default: the encoder's own"  # slmrec/encoders/registry.py puts the values in its place


@dataclass
class EncoderArguments:
    """Which encoder, and the sizes that several of them have; slmrec/encoders/registry.py adds the flags of single ones."""

    model: str = field(default="sasrec", metadata={"help": "the encoder, a name in slmrec/encoders/registry.py"})
    hidden_size: int | None = field(default=None, metadata={"help": f"width of the item embedding{ENCODERS_OWN}"})
    num_layers: int | None = field(default=None, metadata={"help": f"layers that read the history{ENCODERS_OWN}"})
    num_heads: int | None = field(default=None, metadata={"help": f"attention heads{ENCODERS_OWN}"})
    dropout: float | None = field(default=None, metadata={"help": f"share of values that are dropped{ENCODERS_OWN}"})
    max_length: int | None = field(default=None, metadata={"help": f"latest items of a user that are read{ENCODERS_OWN}"})

    def __post_init__(self):
        each(at_least, self, "hidden_size num_layers num_heads max_length", 1)
        share_below_one("dropout", self.dropout)

    def architecture(self) -> dict:
        """The flags as constructor arguments; None where not given."""
        return {name: value for name, value in vars(self).items() if name != "model"}


@dataclass
class TrainEncoderArguments:
    """How an encoder is trained; what is not given is its own choice."""

    data: str = field(metadata={"help": "directory of the data stage"})
    targets: Literal["all", "last"] | None = field(
        default=None, metadata={"help": "every position of the training part, or one target per user; default: the encoder's own"}
    )
    learning_rate: float | None = field(default=None, metadata={"help": "of Adam, constant; default: the encoder's own"})
    batch_size: int | None = field(default=None, metadata={"help": "users per step; default: the encoder's own"})
    num_epochs: int | None = field(default=None, metadata={"help": "at most this many; default: the encoder's own"})
    patience: int | None = field(
        default=None, metadata={"help": "stop after this many epochs without a better validation MRR; default: the encoder's own"}
    )
    weight_decay: float | None = field(default=None, metadata={"help": "L2 term of Adam; default: the encoder's own"})
    loss: Literal["ce", "bce", "bpr", "sampled"] | None = field(
        default=None,
        metadata={"help": "ce: over all items; the others: against drawn negatives; default: the encoder's own"},
    )
    num_negatives: int | None = field(default=None, metadata={"help": "drawn negatives per target, for every loss but ce"})
    pretrain_epochs: int | None = field(default=None, metadata={"help": "s3rec: epochs of pretraining before --num_epochs"})
    precision: Literal["fp32", "bf16"] | None = field(
        default=None,
        metadata={"help": "of training; bf16 is mixed, for hardware that multiplies it; default: the encoder's own"},
    )
    seed: int = field(default=0, metadata={"help": "of the weights, the dropout and the order of users"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})
    report_to: Literal["none", "tensorboard", "wandb"] = field(default="tensorboard", metadata={"help": "where the curves go"})
    launch: int | None = field(
        default=None, metadata={"help": "processes of this machine that share the work; default: $LAUNCH, or else one"}
    )

    def __post_init__(self):
        check_choices(self)
        report_target(self.report_to)
        above("learning_rate", self.learning_rate, 0)
        each(at_least, self, "batch_size num_epochs patience num_negatives launch", 1)
        each(at_least, self, "pretrain_epochs weight_decay", 0)
        seed_in_range("seed", self.seed)
        if self.num_negatives is not None and self.loss in (None, "ce"):
            raise InputError(
                f"--num_negatives {self.num_negatives}: --loss ce is over all items; the other losses draw negatives"
            )

    def settings(self) -> dict:
        """The flags that have a default per model; None where not given."""
        return {
            name: value for name, value in vars(self).items() if name not in ("data", "seed", "device", "report_to", "launch")
        }


@dataclass
class EmbeddingArguments:
    """Where item embeddings come from."""

    encoder: str | None = field(default=None, metadata={"help": "directory of a trained encoder"})
    pickle: bool = field(default=False, metadata={"help": "also write sasrec_item.pkl in the layout of the released code"})
    from_pickle: str | None = field(
        default=None, metadata={"help": "instead of --encoder: a released sasrec_item.pkl whose items are in the order of --data"}
    )
    data: str | None = field(default=None, metadata={"help": "with --from_pickle: directory of the data stage"})
    first_item_row: int = field(
        default=1,
        metadata={"help": "with --from_pickle: the row of item 1; 1 where row 0 is padding, 0 where there is no such row"},
    )

    def __post_init__(self):
        if (self.encoder is None) == (self.from_pickle is None):
            raise InputError("give either --encoder or --from_pickle")
        if (self.from_pickle is None) != (self.data is None):
            raise InputError("--from_pickle and --data go together")
        if self.first_item_row not in (0, 1) or (self.encoder and self.first_item_row != 1):
            raise InputError(f"--first_item_row {self.first_item_row}: 0 or 1, and only with --from_pickle")
