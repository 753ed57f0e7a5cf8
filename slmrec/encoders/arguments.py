"""Which encoder, its size and its training, as command-line arguments."""

from __future__ import annotations

from dataclasses import dataclass, field

from slmrec.checks import at_least, one_of, report_target, share_below_one
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
        for name in ("hidden_size", "num_layers", "num_heads", "max_length"):
            at_least(name, getattr(self, name), 1)
        share_below_one("dropout", self.dropout)

    def architecture(self) -> dict:
        """The flags as constructor arguments; None where not given."""
        return {name: value for name, value in vars(self).items() if name != "model"}


ITEM_LOSSES = ("ce", "bce", "bpr", "sampled")  # slmrec/encoders/item_losses.py


@dataclass
class TrainEncoderArguments:
    """How an encoder is trained; what is not given is its own choice."""

    data: str = field(metadata={"help": "directory of the data stage"})
    targets: str | None = field(
        default=None,
        metadata={"help": "all (every position of the training part) or last (one target per user); default: the encoder's own"},
    )
    learning_rate: float | None = field(default=None, metadata={"help": "of Adam, constant; default: the encoder's own"})
    batch_size: int | None = field(default=None, metadata={"help": "users per step; default: the encoder's own"})
    num_epochs: int | None = field(default=None, metadata={"help": "at most this many; default: the encoder's own"})
    patience: int | None = field(
        default=None, metadata={"help": "stop after this many epochs without a better validation MRR; default: the encoder's own"}
    )
    weight_decay: float | None = field(default=None, metadata={"help": "L2 term of Adam; default: the encoder's own"})
    loss: str | None = field(
        default=None,
        metadata={"help": "ce (over all items), bce, bpr or sampled (against drawn negatives); default: the encoder's own"},
    )
    num_negatives: int | None = field(default=None, metadata={"help": "drawn negatives per target, for every loss but ce"})
    pretrain_epochs: int | None = field(default=None, metadata={"help": "s3rec: epochs of pretraining before --num_epochs"})
    precision: str | None = field(
        default=None,
        metadata={"help": "of training: fp32, or bf16 (mixed, for hardware that multiplies it); default: the encoder's own"},
    )
    seed: int = field(default=0, metadata={"help": "of the weights, the dropout and the order of users"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})
    report_to: str = field(default="tensorboard", metadata={"help": "where the curves go: none, tensorboard or wandb"})

    def __post_init__(self):
        report_target(self.report_to)
        if self.precision is not None:
            one_of("precision", self.precision, ("fp32", "bf16"))
        if self.targets is not None:
            one_of("targets", self.targets, ("all", "last"))
        at_least("batch_size", self.batch_size, 1)
        at_least("num_epochs", self.num_epochs, 1)
        at_least("patience", self.patience, 1)
        if self.loss is not None:
            one_of("loss", self.loss, ITEM_LOSSES)
        at_least("num_negatives", self.num_negatives, 1)
        at_least("pretrain_epochs", self.pretrain_epochs, 0)
        at_least("weight_decay", self.weight_decay, 0)
        at_least("seed", self.seed, 0)
        if self.learning_rate is not None and self.learning_rate <= 0:
            raise InputError(f"--learning_rate {self.learning_rate}: must be above 0")

    def settings(self) -> dict:
        """The flags that have a default per model; None where not given."""
        return {name: value for name, value in vars(self).items() if name not in ("data", "seed", "device", "report_to")}
