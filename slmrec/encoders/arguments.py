"""Which conventional recommender, its size and its training, as command-line arguments."""

from __future__ import annotations

from dataclasses import dataclass, field

from slmrec.checks import at_least, one_of, share_below_one
from slmrec.errors import InputError


@dataclass
class EncoderArguments:
    """Which conventional recommender, and its size; what is not given comes from slmrec/encoders/registry.py."""

    model: str = field(default="sasrec", metadata={"help": "name of the model; slmrec/encoders/registry.py has them all"})
    hidden_size: int | None = field(default=None, metadata={"help": "width of the item embedding; default: the model's"})
    num_layers: int | None = field(default=None, metadata={"help": "default: the model's"})
    num_heads: int | None = field(default=None, metadata={"help": "attention heads; default: the model's"})
    dropout: float | None = field(default=None, metadata={"help": "default: the model's"})
    max_length: int | None = field(default=None, metadata={"help": "latest items of a user that are read; default: the model's"})
    num_horizontal_filters: int | None = field(default=None, metadata={"help": "caser: filters of each height"})
    num_vertical_filters: int | None = field(default=None, metadata={"help": "caser: filters over the last items"})
    mask_probability: float | None = field(
        default=None, metadata={"help": "bert4rec, s3rec, maerec: share of items that are masked"}
    )
    last_mask_share: float | None = field(
        default=None, metadata={"help": "bert4rec: share of rows whose last item alone is masked"}
    )
    num_interests: int | None = field(default=None, metadata={"help": "lightsans: rank k of the decomposed attention"})
    contrast_weight: float | None = field(default=None, metadata={"help": "duorec, maerec: weight of the contrastive term"})
    contrast_temperature: float | None = field(
        default=None, metadata={"help": "duorec: of the similarities in the contrastive term"}
    )
    segment_weight: float | None = field(default=None, metadata={"help": "s3rec: weight of segment prediction in pretraining"})
    associated_attribute_weight: float | None = field(
        default=None, metadata={"help": "s3rec: weight of telling items' attributes from their embeddings, where there are any"}
    )
    masked_attribute_weight: float | None = field(
        default=None, metadata={"help": "s3rec: weight of telling masked items' attributes, where there are any"}
    )
    reconstruction_weight: float | None = field(
        default=None, metadata={"help": "maerec: weight of reconstructing masked transitions"}
    )
    num_graph_layers: int | None = field(default=None, metadata={"help": "maerec: layers of the graph encoder"})

    def __post_init__(self):
        at_least("hidden_size", self.hidden_size, 1)
        at_least("num_layers", self.num_layers, 1)
        at_least("num_heads", self.num_heads, 1)
        at_least("max_length", self.max_length, 1)
        for name in ("num_horizontal_filters", "num_vertical_filters", "num_interests", "num_graph_layers"):
            at_least(name, getattr(self, name), 1)
        for name in [name for name in vars(self) if name.endswith("_weight")]:
            at_least(name, getattr(self, name), 0)
        for name in ("dropout", "mask_probability", "last_mask_share"):
            if getattr(self, name) is not None:
                share_below_one(name, getattr(self, name))
        if self.contrast_temperature is not None and self.contrast_temperature <= 0:
            raise InputError(f"--contrast_temperature {self.contrast_temperature}: must be above 0")

    def architecture(self) -> dict:
        """The flags as constructor arguments; None where not given."""
        return {name: value for name, value in vars(self).items() if name != "model"}


ITEM_LOSSES = ("ce", "bce", "bpr", "sampled")  # slmrec/encoders/item_losses.py


@dataclass
class TrainEncoderArguments:
    """How a conventional recommender is trained; what is not given comes from slmrec/encoders/registry.py."""

    data: str = field(metadata={"help": "directory of the data stage"})
    targets: str | None = field(
        default=None,
        metadata={"help": "all (every position of the training part) or last (one target per user); default: the model's"},
    )
    learning_rate: float | None = field(default=None, metadata={"help": "of Adam, constant; default: the model's"})
    batch_size: int | None = field(default=None, metadata={"help": "users per step; default: the model's"})
    num_epochs: int | None = field(default=None, metadata={"help": "at most this many; default: the model's"})
    patience: int | None = field(
        default=None, metadata={"help": "stop after this many epochs without a better validation MRR; default: the model's"}
    )
    weight_decay: float | None = field(default=None, metadata={"help": "L2 term of Adam; default: the model's"})
    loss: str | None = field(
        default=None,
        metadata={"help": "ce (over all items), bce, bpr or sampled (against drawn negatives); default: the model's, mostly ce"},
    )
    num_negatives: int | None = field(default=None, metadata={"help": "drawn negatives per target, for every loss but ce"})
    pretrain_epochs: int | None = field(default=None, metadata={"help": "s3rec: epochs of pretraining before --num_epochs"})
    precision: str | None = field(
        default=None,
        metadata={"help": "of training: fp32, or bf16 (mixed, for hardware that multiplies it); default: the model's"},
    )
    seed: int = field(default=0, metadata={"help": "of the weights, the dropout and the order of users"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})

    def __post_init__(self):
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
        return {name: value for name, value in vars(self).items() if name not in ("data", "seed", "device")}
