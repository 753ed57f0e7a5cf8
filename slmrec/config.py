"""Command-line arguments: one dataclass per concern, read by transformers.HfArgumentParser, checked when built."""

from __future__ import annotations

from dataclasses import dataclass, field

from slmrec.artifacts import InputError


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"--{name} {value}: choose one of {', '.join(choices)}")


@dataclass
class OutputArguments:
    """Where a stage writes."""

    output_dir: str = field(metadata={"help": "directory of this stage; it exists under this name once it is whole"})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "replace a directory that holds another run"})


COLUMNS = {  # what the four columns are called where no flag names them
    "csv": {"user_column": "reviewerID", "item_column": "asin", "rating_column": "overall", "time_column": "unixReviewTime"},
    "recbole": {"user_column": "user_id", "item_column": "item_id", "rating_column": "rating", "time_column": "timestamp"},
}
META_COLUMNS = {"meta_item_column": "Product ID", "meta_title_column": "Description"}
MAX_MALFORMED = 0.01


@dataclass
class DataArguments:
    """What the data stage reads, and which actions it keeps."""

    format: str = field(metadata={"help": "amazon (JSON lines), csv, sequences (S3-Rec text, LC-Rec JSON) or recbole (.inter)"})
    input: str = field(metadata={"help": "reviews, actions or sequences; may be gzip-compressed, like every file here"})
    meta: str | None = field(
        default=None,
        metadata={"help": "file of titles and categories: Amazon .json, .csv, or a RecBole atomic file (titles alone)"},
    )
    item_table: str | None = field(
        default=None, metadata={"help": "'source id TAB number' of each item, where --input holds numbers"}
    )
    user_table: str | None = field(default=None, metadata={"help": "'source id TAB number' of each user, likewise"})
    protocol: str = field(default="paper", metadata={"help": "paper or released"})
    duplicates: str = field(default="first", metadata={"help": "first: of each (user, item) pair one action; keep: all"})
    min_rating: float | None = field(
        default=None, metadata={"help": "keep ratings of at least this; default: above 3 (paper), at least 3 (released)"}
    )
    k_core: int = field(
        default=5, metadata={"help": "fewest actions of users and items (paper), of users (released, whose items need 20)"}
    )
    max_malformed: float | None = field(
        default=None, metadata={"help": f"share of JSON lines that may fail to parse; default {MAX_MALFORMED:g}"}
    )
    user_column: str | None = field(default=None, metadata={"help": "default: reviewerID (csv), user_id (recbole)"})
    item_column: str | None = field(default=None, metadata={"help": "default: asin (csv), item_id (recbole)"})
    rating_column: str | None = field(
        default=None, metadata={"help": "default: overall (csv), rating (recbole); none where there are no ratings"}
    )
    time_column: str | None = field(
        default=None, metadata={"help": "Unix seconds, default: unixReviewTime (csv), timestamp (recbole); none likewise"}
    )
    meta_item_column: str | None = field(default=None, metadata={"help": "item ids in a .csv --meta, default: Product ID"})
    meta_title_column: str | None = field(default=None, metadata={"help": "titles in a .csv --meta, default: Description"})
    meta_category_column: str | None = field(
        default=None, metadata={"help": "categories in a .csv --meta, one to a cell; default: Category, which it may lack"}
    )

    def __post_init__(self):
        one_of("format", self.format, ("amazon", "csv", "sequences", "recbole"))
        one_of("protocol", self.protocol, ("paper", "released"))
        one_of("duplicates", self.duplicates, ("first", "keep"))
        if self.k_core < 1:
            raise InputError(f"--k_core {self.k_core}: must be at least 1")
        if self.max_malformed is not None and not 0 <= self.max_malformed <= 1:
            raise InputError(f"--max_malformed {self.max_malformed}: must be a share from 0 to 1")
        meta = (self.meta or "").removesuffix(".gz")
        columns = COLUMNS.get(self.format, COLUMNS["csv"])
        self._default(columns, self.format in COLUMNS, "--format csv or recbole")
        self._default(META_COLUMNS | {"meta_category_column": None}, meta.endswith(".csv"), "a .csv file as --meta")
        self._default({"max_malformed": MAX_MALFORMED}, self.format == "amazon" or meta.endswith(".json"), "JSON lines")
        tables = {"item_table": None, "user_table": None}
        self._default(tables, self.format in ("sequences", "recbole"), "--format sequences or recbole")

    def _default(self, defaults: dict, useful: bool, needed: str) -> None:
        """Fill in defaults; a flag that this source has no use for is refused rather than ignored."""
        for name, default in defaults.items():
            if getattr(self, name) is not None and not useful:
                raise InputError(f"--{name} is only for {needed}")
            if getattr(self, name) is None and useful:
                setattr(self, name, default)

    def files(self) -> dict[str, str]:
        """The input files that are given, by the names that the manifest has for them."""
        files = {"reviews": self.input, "meta": self.meta, "item_table": self.item_table, "user_table": self.user_table}
        return {name: path for name, path in files.items() if path}

    def rules(self) -> dict:
        """Everything but the files that determines the result."""
        return {name: value for name, value in vars(self).items() if name not in ("input", "meta", "item_table", "user_table")}


@dataclass
class DemoArguments:
    """Size of the synthetic reviews."""

    seed: int = field(default=0, metadata={"help": "the same seed gives the same bytes"})
    num_users: int = field(default=2600, metadata={"help": "users with enough actions to stay; as many again by a third do not"})
    num_items: int = field(default=1400, metadata={"help": "items that the users' paths lead through"})

    def __post_init__(self):
        if self.seed < 0 or self.num_users < 20 or self.num_items < 100:
            raise InputError("--seed must be at least 0, --num_users 20, --num_items 100")


@dataclass
class DataBenchmarkArguments:
    """What the benchmark of the data stage generates and measures."""

    rows: int = field(default=10_000_000, metadata={"help": "reviews in the generated file"})
    repeats: int = field(default=3, metadata={"help": "how often both commands run, in turn"})
    work_dir: str = field(default="runs/data_benchmark", metadata={"help": "made for the generated file, removed afterwards"})
    output: str = field(default="results/data_stage/benchmark.json", metadata={"help": "file of the result"})

    def __post_init__(self):
        if self.rows < 1 or self.repeats < 1:
            raise InputError("--rows and --repeats must be at least 1")


@dataclass
class EvaluationArguments:
    """What `evaluate.py` ranks, and against what."""

    model: str = field(metadata={"help": "directory of a finished encoder, teacher or student, or a checkpoint-N inside one"})
    split: str = field(default="test", metadata={"help": "valid or test"})
    full_ranking: bool = field(
        default=False, metadata={"help": "also rank each target among all items, with the user's other items masked"}
    )
    data: str | None = field(
        default=None, metadata={"help": "directory of the data stage; default: the one that the model was trained on"}
    )
    output_dir: str | None = field(default=None, metadata={"help": "default: evaluation-<split> in the model's directory"})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "replace a directory that holds another run"})
    candidates_seed: int = field(default=0, metadata={"help": "seed of the candidates that a target is ranked against"})
    num_candidates: int = field(default=999, metadata={"help": "candidates per target, all of them items the user never touched"})
    eval_batch_size: int = field(default=512, metadata={"help": "users per batch; it has no influence on the result"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})

    def __post_init__(self):
        one_of("split", self.split, ("valid", "test"))
        if self.num_candidates < 1 or self.eval_batch_size < 1:
            raise InputError("--num_candidates and --eval_batch_size must be at least 1")
        if not 0 <= self.candidates_seed < 2**64:
            raise InputError(f"--candidates_seed {self.candidates_seed}: must be in 0..2**64 - 1")


@dataclass
class BackboneArguments:
    """Size of a randomly initialised LLaMA."""

    hidden_size: int = field(default=128, metadata={"help": "width of the decoder (paper: 4096)"})
    intermediate_size: int | None = field(default=None, metadata={"help": "width of its MLP; default: 2.6875 times, as LLaMA-7B"})
    num_layers: int = field(default=8, metadata={"help": "decoder layers (paper: 32)"})
    num_heads: int = field(default=4, metadata={"help": "attention heads (paper: 32)"})
    initializer_range: float = field(default=0.02, metadata={"help": "standard deviation of the weights (LLaMA: 0.02)"})
    attention_dropout: float = field(default=0.0, metadata={"help": "of attention weights when it is trained (LLaMA: 0)"})
    seed: int = field(default=0, metadata={"help": "of the random weights"})

    def __post_init__(self):
        if self.hidden_size % (2 * self.num_heads):
            raise InputError(
                f"--hidden_size {self.hidden_size}: rotary heads need an even share for each of {self.num_heads} heads"
            )
        share_below_one("attention_dropout", self.attention_dropout)
        if self.initializer_range <= 0:
            raise InputError(f"--initializer_range {self.initializer_range}: must be above 0")
        if self.intermediate_size is None:
            self.intermediate_size = self.hidden_size * 43 // 16


@dataclass
class EllmArguments:
    """The E-LLMRec model."""

    base_model: str = field(
        metadata={"help": "LLaMA-family checkpoint: a directory or a hub name such as meta-llama/Llama-2-7b-hf"}
    )
    num_layers: int = field(
        default=8, metadata={"help": "first decoder layers that are kept (paper: 8 for the teacher, 4 the student)"}
    )
    train_strategy: str = field(
        default="auto",
        metadata={"help": "lora, full, or auto: full for a random checkpoint made by this project, lora otherwise"},
    )
    targets: str = field(
        default="last",
        metadata={
            "help": "last: one target per user, read after the closing prompt (paper); all: every item of the training part"
        },
    )
    max_length: int = field(default=30, metadata={"help": "latest items of a history that are read (released code: 30)"})
    encoding: str = field(
        default="exact", metadata={"help": "exact, or reference: every row padded to the full length; same results, more work"}
    )
    item_dropout: float = field(
        default=0.0, metadata={"help": "dropout of the item vectors that enter the decoder (not in the paper, which has none)"}
    )
    lora_r: int = field(default=16, metadata={"help": "rank of the LoRA adapters (Table 5, released code)"})
    lora_alpha: int = field(default=16, metadata={"help": "scale of the LoRA adapters (released code)"})
    lora_dropout: float = field(default=0.05, metadata={"help": "dropout before the LoRA adapters (released code)"})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["gate_proj", "up_proj", "down_proj"], metadata={"help": "layers that get adapters (Table 5)"}
    )

    def __post_init__(self):
        one_of("train_strategy", self.train_strategy, ("auto", "lora", "full"))
        one_of("targets", self.targets, ("last", "all"))
        one_of("encoding", self.encoding, ("exact", "reference"))
        share_below_one("item_dropout", self.item_dropout)
        if self.max_length < 1:
            raise InputError(f"--max_length {self.max_length}: must be at least 1")


@dataclass
class EllmInputs:
    """What the LLM stages read."""

    data: str = field(metadata={"help": "directory of the data stage"})
    embeddings: str = field(metadata={"help": "directory of item embeddings (extract_emb.py) of the same data"})


# The terms of Eq. 6, then those of other methods; each has a weight --lambda_<name>
DISTILLATION_TERMS = ("cos", "norm", "ms", "logits", "attention", "contrastive")


@dataclass
class DistillationArguments:
    """Teacher, blocks, weights of Eq. 6, and the terms that others use instead of the paper's (off by default)."""

    teacher: str | None = field(
        default=None, metadata={"help": "directory of a finished finetune.py run, or a checkpoint-N inside"}
    )
    online: bool = field(
        default=False, metadata={"help": "instead of --teacher: train an untrained teacher and the student together (RQ4)"}
    )
    teacher_layers: int | None = field(default=None, metadata={"help": "with --online: layers of that teacher; default 8"})
    num_blocks: int = field(default=4, metadata={"help": "B: teacher and student are compared at the end of each of B blocks"})
    teacher_cache: str | None = field(
        default=None,
        metadata={
            "help": "directory that keeps the teacher's states of every training row, for several epochs or a sweep over lambdas"
        },
    )
    lambda_cos: float = field(default=1.0, metadata={"help": "lambda 1, of the cosine term (Eq. 3; Table 6: 1.0)"})
    lambda_norm: float = field(default=0.1, metadata={"help": "lambda 2, of the squared distance (Eq. 4; Table 6: 0.1)"})
    lambda_ms: float = field(default=1.0, metadata={"help": "lambda 3, of multiple supervision (Eq. 5; Table 6: 0.01 to 1.0)"})
    distill_last_block: bool = field(
        default=True, metadata={"help": "compare the last block too, as Eq. 3 and 4 do (the text of Section 5.2 says otherwise)"}
    )
    protocol: str = field(
        default="paper", metadata={"help": "paper: Eq. 3 to 5; released: sums over blocks and the unsquared distance"}
    )
    project_states: bool = field(
        default=False,
        metadata={"help": "compare the student's states after a learned linear map, for a teacher of another width"},
    )
    lambda_logits: float = field(
        default=0.0,
        metadata={"help": "of the divergence between teacher's and student's scores of all items (Hinton et al. 2015)"},
    )
    temperature: float = field(default=2.0, metadata={"help": "that both scores are divided by in --lambda_logits"})
    lambda_attention: float = field(
        default=0.0, metadata={"help": "of the divergence between the last layers' attention weights (MiniLM, Wang et al. 2020)"}
    )
    lambda_contrastive: float = field(
        default=0.0,
        metadata={"help": "of InfoNCE between teacher's and student's block states in a batch (van den Oord et al. 2018)"},
    )
    contrastive_temperature: float = field(default=0.1, metadata={"help": "of the cosines in --lambda_contrastive"})

    def __post_init__(self):
        one_of("protocol", self.protocol, ("paper", "released"))
        for name in DISTILLATION_TERMS:
            if getattr(self, f"lambda_{name}") < 0:
                raise InputError(f"--lambda_{name} {getattr(self, f'lambda_{name}')}: must not be negative")
        if self.temperature <= 0 or self.contrastive_temperature <= 0:
            raise InputError("--temperature and --contrastive_temperature must be above 0")
        self._check_teacher()
        self._check_blocks()

    def _check_teacher(self) -> None:
        if (self.teacher is not None) == self.online:
            raise InputError("give either --teacher (a trained one) or --online (trained along with the student)")
        if self.teacher_layers is not None and not self.online:
            raise InputError("--teacher_layers is only for --online; a trained teacher has its own")
        if self.online and self.teacher_cache:
            raise InputError("--teacher_cache is for a trained teacher: with --online its states change at every step")
        if self.teacher_cache and self.lambda_attention:
            raise InputError("--teacher_cache holds states, not the attention weights that --lambda_attention compares")
        if self.online and self.teacher_layers is None:
            self.teacher_layers = 8

    def _check_blocks(self) -> None:
        features = self.lambda_cos or self.lambda_norm or self.lambda_contrastive
        if self.num_blocks == 1 and not self.distill_last_block and features:
            raise InputError("--num_blocks 1 --no_distill_last_block leaves no block whose states could be compared")
        if self.num_blocks == 1 and self.lambda_ms:
            raise InputError("--num_blocks 1 has no intermediate block to supervise (Eq. 5): give --lambda_ms 0")


@dataclass
class LlmTrainingArguments:
    """Optimisation of the LLM stages; the names are those of transformers.TrainingArguments, which receives them."""

    learning_rate: float = field(default=1e-3, metadata={"help": "peak learning rate of AdamW (Table 6: 0.001 to 0.003)"})
    num_train_epochs: float = field(default=3.0, metadata={"help": "passes over the training rows, unless --max_steps is given"})
    max_steps: int = field(default=-1, metadata={"help": "optimiser steps; -1 trains --num_train_epochs (Table 6)"})
    per_device_train_batch_size: int = field(default=256, metadata={"help": "rows per step and device (paper: 256)"})
    per_device_eval_batch_size: int = field(default=512, metadata={"help": "users per batch in validation (paper: 512)"})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "batches per optimiser step"})
    warmup_steps: int = field(default=50, metadata={"help": "steps of linear warm-up (Table 6: 50 or 100)"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "learning-rate schedule (Table 6: cosine)"})
    weight_decay: float = field(default=0.0, metadata={"help": "AdamW's weight decay (not in the paper; transformers' default)"})
    adam_beta1: float = field(default=0.9, metadata={"help": "Table 6"})
    adam_beta2: float = field(default=0.999, metadata={"help": "Table 6 (its 9.999 for Sport is a typo)"})
    adam_epsilon: float = field(default=1e-8, metadata={"help": "Table 6"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "gradient clipping (Table 6)"})
    logging_steps: int = field(default=1, metadata={"help": "steps between log lines (Table 6: 1)"})
    save_steps: int = field(default=100, metadata={"help": "steps between validations and checkpoints (Table 6: 50 or 100)"})
    save_total_limit: int = field(default=2, metadata={"help": "checkpoints that are kept; the best one always is"})
    seed: int = field(default=0, metadata={"help": "of new weights, row order and dropout"})
    candidates_seed: int = field(default=0, metadata={"help": "seed of the validation candidates"})
    num_candidates: int = field(default=999, metadata={"help": "validation candidates per user"})
    precision: str = field(default="auto", metadata={"help": "fp32, bf16 (mixed), or auto: bf16 where it was measured to pay"})
    device: str = field(default="auto", metadata={"help": "auto, cpu or cuda"})
    resume_from_checkpoint: str | None = field(
        default=None, metadata={"help": "start from this checkpoint-N; by default a killed run goes on from its last one"}
    )

    def __post_init__(self):
        one_of("precision", self.precision, ("auto", "fp32", "bf16"))
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        if self.max_steps == 0 or self.num_train_epochs <= 0:
            raise InputError("--max_steps and --num_train_epochs: nothing to train")


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


@dataclass
class EmbeddingArguments:
    """Where item embeddings come from."""

    encoder: str | None = field(default=None, metadata={"help": "directory of a trained conventional recommender"})
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


def share_below_one(name: str, value: float) -> None:
    """Raise InputError unless `value` is a probability of dropping that leaves something."""
    if not 0 <= value < 1:
        raise InputError(f"--{name} {value}: must be at least 0 and below 1")


def at_least(name: str, value: float | None, least: float) -> None:
    """Raise InputError when a number was given and is below `least`."""
    if value is not None and not value >= least:
        raise InputError(f"--{name} {value}: must be at least {least}")


BENCHMARK_PARTS = ("encoding", "models", "shares", "memory", "precision")


@dataclass
class BenchmarkArguments:
    """What `python -m slmrec.benchmark` measures, and at which size."""

    data: str | None = field(
        default=None, metadata={"help": "directory of the data stage whose users are read; default: invented ones"}
    )
    mean_length: float = field(default=9.0, metadata={"help": "without --data: mean actions per user (Table 1: 9.3 to 12.8)"})
    num_items: int = field(default=12_000, metadata={"help": "without --data: items of the catalogue"})
    parts: list[str] = field(
        default_factory=lambda: ["encoding", "models", "shares", "memory"],
        metadata={
            "help": "encoding (reference against exact), models (E4SRec against SLMRec), shares of time, memory, precision"
        },
    )
    hidden_size: int = field(default=256, metadata={"help": "width of the decoder (LLaMA-7B: 4096)"})
    intermediate_size: int | None = field(default=None, metadata={"help": "of its MLP; default: 2.6875 times (LLaMA-7B: 11008)"})
    num_heads: int = field(default=4, metadata={"help": "attention heads (LLaMA-7B: 32)"})
    vocab_size: int = field(default=170, metadata={"help": "token embeddings (LLaMA-7B: 32000)"})
    num_layers: int = field(default=8, metadata={"help": "decoder layers where reference and exact encoding are compared"})
    e4srec_layers: int = field(default=8, metadata={"help": "l of E4SRec_l (paper: 32)"})
    teacher_layers: int = field(default=8, metadata={"help": "of SLMRec's teacher (paper: 8)"})
    student_layers: int = field(default=4, metadata={"help": "of SLMRec (paper: 4)"})
    num_blocks: int = field(default=4, metadata={"help": "B of the distillation"})
    max_length: int = field(default=30, metadata={"help": "item slots per row (released code: 30)"})
    train_strategy: str = field(default="full", metadata={"help": "full, or lora: frozen backbone with adapters"})
    lora_r: int = field(default=16, metadata={"help": "rank of the adapters"})
    batch_size: int | None = field(default=None, metadata={"help": "sets both of the next two"})
    train_batch_size: int = field(default=256, metadata={"help": "rows per training step (paper: 256)"})
    infer_batch_size: int = field(default=512, metadata={"help": "rows per forward pass of inference (paper: 512)"})
    micro_batch_size: int | None = field(
        default=None, metadata={"help": "rows that a training step with reference encoding holds at once; default: all of them"}
    )
    precision: str = field(
        default="fp32", metadata={"help": "fp32, or bf16 (mixed precision); the part `precision` compares both"}
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})
    repeats: int = field(default=5, metadata={"help": "timed turns of each side; medians are reported"})
    seed: int = field(default=0, metadata={"help": "of weights and users"})
    json: str | None = field(default=None, metadata={"help": "file of the result"})
    plot: str | None = field(default=None, metadata={"help": "PNG file: tokens per row, reference against exact"})

    def __post_init__(self):
        for part in self.parts:
            one_of("parts", part, BENCHMARK_PARTS)
        one_of("train_strategy", self.train_strategy, ("full", "lora"))
        one_of("precision", self.precision, ("fp32", "bf16"))
        if self.batch_size is not None:
            self.train_batch_size = self.infer_batch_size = self.batch_size
        if self.intermediate_size is None:
            self.intermediate_size = self.hidden_size * 43 // 16
        if self.hidden_size % (2 * self.num_heads):
            raise InputError(
                f"--hidden_size {self.hidden_size}: rotary heads need an even share for each of {self.num_heads} heads"
            )
        for name in (
            "train_batch_size",
            "infer_batch_size",
            "micro_batch_size",
            "repeats",
            "num_layers",
            "e4srec_layers",
            "max_length",
        ):
            at_least(name, getattr(self, name), 1)
        for name in ("teacher_layers", "student_layers"):
            if getattr(self, name) % self.num_blocks:
                raise InputError(f"--num_blocks {self.num_blocks} does not divide --{name} {getattr(self, name)}")
        if not self.mean_length > 5:
            raise InputError(f"--mean_length {self.mean_length:g}: must be above 5, the fewest actions of a user")
