"""What the data stage reads, and which actions it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from slmrec.checks import at_least, check_choices, finite, seed_in_range
from slmrec.errors import InputError

COLUMNS = {  # what the four columns are called where no flag names them
    "csv": {"user_column": "reviewerID", "item_column": "asin", "rating_column": "overall", "time_column": "unixReviewTime"},
    "recbole": {"user_column": "user_id", "item_column": "item_id", "rating_column": "rating", "time_column": "timestamp"},
}


META_COLUMNS = {"meta_item_column": "Product ID", "meta_title_column": "Description"}


MAX_MALFORMED = 0.01


@dataclass
class DataArguments:
    """What the data stage reads, and which actions it keeps."""

    format: Literal["amazon", "csv", "sequences", "recbole"] = field(
        metadata={"help": "amazon: JSON lines; sequences: S3-Rec text or LC-Rec JSON; recbole: .inter"}
    )
    input: str = field(metadata={"help": "reviews, actions or sequences; may be gzip-compressed, like every file here"})
    meta: str | None = field(
        default=None,
        metadata={"help": "file of titles and categories: Amazon .json, .csv, or a RecBole atomic file (titles alone)"},
    )
    item_table: str | None = field(
        default=None, metadata={"help": "'source id TAB number' of each item, where --input holds numbers"}
    )
    user_table: str | None = field(default=None, metadata={"help": "'source id TAB number' of each user, likewise"})
    protocol: Literal["paper", "released"] = field(default="paper", metadata={"help": "whose rules: the paper's or the code's"})
    duplicates: Literal["first", "keep"] = field(
        default="first", metadata={"help": "first: of each (user, item) pair one action; keep: all"}
    )
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
        check_choices(self)
        at_least("k_core", self.k_core, 1)
        finite("min_rating", self.min_rating)
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
        seed_in_range("seed", self.seed)
        at_least("num_users", self.num_users, 20)
        at_least("num_items", self.num_items, 100)
