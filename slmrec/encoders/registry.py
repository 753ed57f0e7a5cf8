"""The conventional recommenders by name, each with the values that it is trained with by default and where they come from."""

from __future__ import annotations

from dataclasses import dataclass

from slmrec.encoders.bert4rec import BERT4Rec
from slmrec.encoders.caser import Caser
from slmrec.encoders.counting import Markov, Popularity
from slmrec.encoders.duorec import DuoRec
from slmrec.encoders.encoder import Encoder
from slmrec.encoders.gru4rec import GRU4Rec
from slmrec.encoders.hgn import HGN
from slmrec.encoders.lightsans import LightSANs
from slmrec.encoders.maerec import MAERec
from slmrec.encoders.s3rec import S3Rec
from slmrec.encoders.sasrec import SASRec
from slmrec.errors import InputError


@dataclass(frozen=True)
class Registered:
    """One model.

    Attributes:
        encoder: its class, built as encoder(num_items=N, **architecture), and with num_users=U where it knows users.
        architecture: default of every other constructor argument; each is a flag of train_sr_trad.py.
        training: defaults of the training flags.
    """

    encoder: type[Encoder]
    architecture: dict[str, int | float]
    training: dict[str, int | float | str]
    knows_users: bool = False


ENCODERS = {
    "sasrec": Registered(
        SASRec,
        architecture={
            "hidden_size": 128,  # paper, Section 5.1
            "num_layers": 2,  # paper, Section 5.1
            "num_heads": 2,  # our choice, as is usual in re-implementations; not tuned
            "dropout": 0.5,  # Kang and McAuley, Section 4.2, for their sparse Amazon data sets
            "max_length": 30,  # released code, which feeds the LLM 30 items
        },
        training={
            "targets": "all",  # Kang and McAuley, Section 3.5 (their Eq. 7 sums over positions)
            "learning_rate": 1e-3,  # Kang and McAuley, Section 4.2; released code (2025)
            "batch_size": 256,  # paper, Table 5
            "num_epochs": 100,  # a bound that early stopping is not meant to reach: 15 epochs on Beauty, the best after 10
            "patience": 5,  # our choice
            "weight_decay": 0.0,  # none in Kang and McAuley
            "loss": "ce",  # paper, Section 2 (Klenitskiy and Vasilev 2023); Kang and McAuley: bce with one negative
            "num_negatives": 1,  # counts for the other losses only
            "precision": "fp32",  # our choice; bf16 is mixed precision
        },
    ),
    "gru4rec": Registered(
        GRU4Rec,
        architecture={
            "hidden_size": 128,  # as SASRec; Hidasi et al., Section 4.2: 100 units
            "num_layers": 1,  # Hidasi et al., Section 4.2: more layers did not help
            "dropout": 0.5,  # our choice, as SASRec; Hidasi et al., Table 2: 0 to 0.5 by loss and data set
            "max_length": 30,  # as SASRec
        },
        training={
            "targets": "all",  # Hidasi et al., Section 3: the output after each item is the next one
            "learning_rate": 1e-3,  # our choice, for Adam
            "batch_size": 256,  # as SASRec
            "num_epochs": 100,  # as SASRec
            "patience": 5,  # as SASRec
            "weight_decay": 0.0,  # as SASRec
            "loss": "ce",  # as SASRec; Hidasi et al.: bpr and top1
            "num_negatives": 1,  # counts for the other losses only
            "precision": "fp32",  # as SASRec
        },
    ),
    "bert4rec": Registered(
        BERT4Rec,
        architecture={
            "hidden_size": 128,  # as SASRec; released code of Sun et al. has 64, 128 and 256
            "num_layers": 2,  # Sun et al., implementation details
            "num_heads": 2,  # Sun et al., implementation details; their released code: 4 heads of 32
            "dropout": 0.2,  # our choice; released code of Sun et al. for Beauty: 0.5 of hidden states, 0.2 of attention
            "max_length": 30,  # as SASRec; released code of Sun et al. for Beauty: 50
            "mask_probability": 0.6,  # Sun et al., mask proportion of Beauty, and their released code
            "last_mask_share": 0.1,  # near 1 of 11 copies of a row in the released code; 0.8 was worse on Scientific
        },
        training={
            "targets": "all",  # Sun et al., Section 3.6: any item may be masked
            # Our choice; Sun et al.: 1e-4 for 400,000 steps. The best validation MRR was 0.162 on Beauty, 0.140 and 0.142 on
            # Scientific (two seeds); with 1e-3 it was 0.158, 0.133 and 0.135.
            "learning_rate": 5e-4,
            "batch_size": 256,  # Sun et al., implementation details
            "num_epochs": 100,  # as SASRec
            "patience": 5,  # as SASRec
            "weight_decay": 0.0,  # as SASRec; Sun et al.: 0.01, decoupled
            "loss": "ce",  # Sun et al., Section 3.6
            "num_negatives": 1,  # counts for the other losses only
            "precision": "fp32",  # as SASRec
        },
    ),
    "caser": Registered(
        Caser,
        architecture={
            "hidden_size": 128,  # as SASRec; released code of Tang and Wang: 50
            "num_horizontal_filters": 16,  # released code of Tang and Wang
            "num_vertical_filters": 4,  # released code of Tang and Wang
            "dropout": 0.5,  # Tang and Wang, Section 3, and their released code
            "max_length": 5,  # released code of Tang and Wang (their L)
        },
        training={
            "targets": "all",  # Tang and Wang, Section 3: a window at every position
            "learning_rate": 1e-3,  # released code of Tang and Wang
            "batch_size": 256,  # as SASRec, users with all their windows; released code of Tang and Wang: 512 windows
            "num_epochs": 100,  # as SASRec
            "patience": 5,  # as SASRec
            "weight_decay": 0.0,  # our choice; released code of Tang and Wang: 1e-6
            "loss": "ce",  # as SASRec; Tang and Wang, Section 3: bce with three negatives
            "num_negatives": 3,  # Tang and Wang; counts for the other losses only
            "precision": "fp32",  # as SASRec
        },
        knows_users=True,
    ),
    "duorec": Registered(
        DuoRec,
        architecture={
            "hidden_size": 128,  # as SASRec
            "num_layers": 2,  # as SASRec
            "num_heads": 2,  # as SASRec
            "dropout": 0.5,  # logs of Qiu et al. (hidden states and attention)
            "max_length": 30,  # as SASRec
            "contrast_weight": 0.1,  # released code of Qiu et al. (lmd_sem)
            # A cosine at a temperature of 0.4, as states have norm sqrt(128). Released code of Qiu et al.: 1, for dot products; the
            # contrast then outweighs the next-item loss so far that nothing was learnt on Scientific in 9 epochs. Best validation
            # MRR on Beauty and Scientific: 0.181 and 0.147; with 12.8 it was 0.179 and 0.148 (one seed).
            "contrast_temperature": 51.2,
        },
        training={
            "targets": "all",  # our choice: one pass for what Qiu et al. make a row per prefix of
            "learning_rate": 1e-3,  # logs of Qiu et al.
            "batch_size": 256,  # released code of Qiu et al.
            "num_epochs": 100,  # as SASRec
            "patience": 5,  # as SASRec
            "weight_decay": 0.0,  # as SASRec
            "loss": "ce",  # Qiu et al.: softmax over all items
            "num_negatives": 1,  # counts for the other losses only
            "precision": "fp32",  # as SASRec
        },
    ),
    "maerec": Registered(
        MAERec,
        architecture={
            "hidden_size": 128,  # as SASRec; released code of Ye et al.: 32
            "num_layers": 2,  # released code of Ye et al.
            "num_heads": 2,  # as SASRec; released code of Ye et al.: 4
            "dropout": 0.5,  # as SASRec; released code of Ye et al.: 0.3
            "max_length": 30,  # as SASRec; released code of Ye et al.: 50
            "num_graph_layers": 2,  # released code of Ye et al.
            "mask_probability": 0.001,  # released code of Ye et al.: 50 anchors, among 54,756 items of its books data
            "reconstruction_weight": 0.1,  # our choice, for a mean; released code of Ye et al.: 1, for a sum over edges
            "contrast_weight": 1.0,  # released code of Ye et al., where the reward sets it to 0.2 at times
        },
        training={
            "targets": "all",  # Ye et al. (every position of a sequence)
            "learning_rate": 1e-3,  # released code of Ye et al.
            "batch_size": 256,  # released code of Ye et al.
            "num_epochs": 100,  # as SASRec
            "patience": 5,  # as SASRec
            "weight_decay": 0.0,  # as SASRec; released code of Ye et al.: 1e-6 times the squared weights
            "loss": "ce",  # as SASRec; released code of Ye et al.: bce with one negative
            "num_negatives": 1,  # counts for the other losses only
            "precision": "fp32",  # as SASRec
        },
    ),
    "hgn": Registered(
        HGN,
        architecture={
            "hidden_size": 128,  # as SASRec; Ma et al.: 50
            "dropout": 0.5,  # our choice, in place of their L2 penalty, as these data sets are sparse
            "max_length": 30,  # as SASRec; Ma et al.: 5, with the 3 items after it as targets
        },
        training={
            "targets": "all",  # Ma et al. slide their window over the whole training part
            "learning_rate": 1e-3,  # Ma et al.
            "batch_size": 256,  # as SASRec, in users; Ma et al.: 4096 windows
            "num_epochs": 100,  # as SASRec
            "patience": 5,  # as SASRec
            "weight_decay": 0.0,  # our choice; Ma et al.: 0.001, for bpr
            "loss": "ce",  # as SASRec, for like terms; Ma et al.: bpr
            "num_negatives": 1,  # counts for the other losses only
            "precision": "fp32",  # as SASRec
        },
        knows_users=True,
    ),
    "lightsans": Registered(
        LightSANs,
        architecture={
            "hidden_size": 128,  # as SASRec; Fan et al.: 64
            "num_layers": 2,  # Fan et al.
            "num_heads": 2,  # Fan et al.
            "num_interests": 5,  # default of the authors' code; Fan et al.: 10 to 20 for sequences of 100 to 200 items
            "dropout": 0.5,  # Fan et al., for their sparse data sets
            "max_length": 30,  # as SASRec
        },
        training={
            "targets": "all",  # Fan et al. train on every prefix
            "learning_rate": 1e-3,  # as SASRec; Fan et al.: 0.003 with batches of 1024
            "batch_size": 256,  # as SASRec
            "num_epochs": 100,  # as SASRec
            "patience": 5,  # as SASRec
            "weight_decay": 0.0,  # as SASRec
            "loss": "ce",  # Fan et al.
            "num_negatives": 1,  # counts for the other losses only
            "precision": "fp32",  # as SASRec
        },
    ),
    "s3rec": Registered(
        S3Rec,
        architecture={
            "hidden_size": 128,  # as SASRec; Zhou et al.: 64
            "num_layers": 2,  # Zhou et al.
            "num_heads": 2,  # Zhou et al.
            "dropout": 0.5,  # as SASRec, and the authors' code
            "max_length": 30,  # as SASRec; Zhou et al.: 50
            "mask_probability": 0.2,  # Zhou et al.
            "segment_weight": 0.5,  # Zhou et al., Section 5.1.4, beside 1.0 for masked items
            "associated_attribute_weight": 0.2,  # Zhou et al., Section 5.1.4; counts where the data set has attributes
            "masked_attribute_weight": 1.0,  # likewise
        },
        training={
            "targets": "all",  # as SASRec
            "learning_rate": 1e-3,  # Zhou et al.
            "batch_size": 256,  # Zhou et al. for fine-tuning (200 for pretraining)
            # Our choice; Zhou et al.: up to 100. The best MRR on Scientific's validation part was 0.143 after 1, 0.145 after 2 and
            # 0.135 after 10 epochs (one seed).
            "pretrain_epochs": 2,
            "num_epochs": 100,  # as SASRec
            "patience": 5,  # as SASRec
            "weight_decay": 0.0,  # as SASRec
            "loss": "ce",  # as SASRec; Zhou et al.: pairwise with one negative. Pretraining has its own, see s3rec.py
            "num_negatives": 1,  # counts for the other losses only
            "precision": "fp32",  # as SASRec
        },
    ),
    # Counts of the training part: nothing to set and nothing to train.
    "popularity": Registered(Popularity, architecture={}, training={}),
    "markov": Registered(Markov, architecture={}, training={}),
}
TRAINED = tuple(name for name, entry in ENCODERS.items() if entry.training)  # the others only count


def registered(model: str) -> Registered:
    """Raises InputError that lists the names there are."""
    if model not in ENCODERS:
        raise InputError(f"--model {model}: choose one of {', '.join(ENCODERS)}")
    return ENCODERS[model]


def with_defaults(model: str, defaults: dict, given: dict) -> dict:
    """The defaults of a model with the flags that were given (not None) in their place.

    Raises InputError when a flag is given that the model does not have.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    unknown = sorted(chosen.keys() - defaults.keys())
    if unknown:
        raise InputError(f"--{unknown[0]}: {model} has no such setting (it has {', '.join(defaults) or 'none'})")
    return defaults | chosen


def build_encoder(model: str, num_items: int, num_users: int, architecture: dict) -> Encoder:
    """A freshly initialised model; `architecture` holds every constructor argument but the numbers of items and users."""
    entry = registered(model)
    users = {"num_users": num_users} if entry.knows_users else {}
    return entry.encoder(num_items=num_items, **users, **architecture)
