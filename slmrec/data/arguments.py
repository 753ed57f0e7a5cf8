"""What the data stage reads, and which actions it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from slmrec.checks import at_least, check_choices, finite, seed_in_range
from slmrec.errors import InputError

MAX_MALFORMED = 0.01
DEFAULT_CORE = 5  # Section 5.1
FILES = ("input", "meta", "item_table", "user_table", "update_from")  # what lies somewhere, and is an input with a digest


@dataclass
class DataArguments:
    """What the data stage reads, and which actions it keeps."""

    input: list[str] = field(
        metadata={"help": "reviews, actions or sequences: files, patterns or folders; may be compressed, like every file here"}
    )
    format: Literal["auto", "amazon", "csv", "sequences", "recbole", "parquet"] = field(
        default="auto",
        metadata={
            "help": "auto: what it looks like; amazon: JSON lines; csv: any table; sequences: S3-Rec text or LC-Rec JSON; "
            "recbole: .inter"
        },
    )
    meta: str | None = field(
        default=None, metadata={"help": "file of titles and categories: JSON lines, a table, or a RecBole atomic file"}
    )
    item_table: str | None = field(
        default=None, metadata={"help": "'source id TAB number' of each item, where --input holds numbers"}
    )
    user_table: str | None = field(default=None, metadata={"help": "'source id TAB number' of each user, likewise"})
    protocol: Literal["paper", "released"] = field(default="paper", metadata={"help": "whose rules: the paper's or the code's"})
    duplicates: Literal["first", "keep"] | None = field(
        default=None,
        metadata={
            "help": "first: of each (user, item) pair one action; keep: all; default: keep for ready-made sequences, else first"
        },
    )
    min_rating: float | None = field(
        default=None, metadata={"help": "keep ratings of at least this; default: above 3 (paper), at least 3 (released)"}
    )
    k_core: int | None = field(
        default=None,
        metadata={
            "help": "fewest actions of users and items (paper), of users (released, whose items need 20); default: 5, "
            "none for ready-made sequences under the paper's protocol"
        },
    )
    max_malformed: float | None = field(
        default=None, metadata={"help": f"share of JSON lines that may fail to parse; default {MAX_MALFORMED:g}"}
    )
    no_header: bool = field(
        default=False, metadata={"help": "the table begins with a row: user, item, rating, time; columns are called 1, 2, 3, 4"}
    )
    encoding: str = field(default="utf-8", metadata={"help": "of text files, for example latin1"})
    user_column: str | None = field(default=None, metadata={"help": "default: what is called like a user"})
    item_column: str | None = field(default=None, metadata={"help": "default: what is called like an item"})
    rating_column: str | None = field(
        default=None, metadata={"help": "default: what is called like a rating, if anything; none where it is no rating"}
    )
    time_column: str | None = field(
        default=None,
        metadata={"help": "Unix time in any unit, or ISO dates; default: what is called like a time; none: rows are in order"},
    )
    meta_item_column: str | None = field(default=None, metadata={"help": "item ids in --meta, default: what is called like them"})
    meta_title_column: str | None = field(default=None, metadata={"help": "titles in --meta, likewise"})
    meta_category_column: str | None = field(default=None, metadata={"help": "categories in --meta, in a table one to a cell"})
    update_from: str | None = field(
        default=None,
        metadata={"help": "directory of the data stage that --input goes on from: its users and items keep their numbers"},
    )

    def __post_init__(self):
        check_choices(self)
        at_least("k_core", self.k_core, 1)
        finite("min_rating", self.min_rating)
        if self.max_malformed is not None and not 0 <= self.max_malformed <= 1:
            raise InputError(f"--max_malformed {self.max_malformed}: must be a share from 0 to 1")
        if not self.meta:
            self._only(("meta_item_column", "meta_title_column", "meta_category_column"), "where there is a --meta")
        if self.format != "auto":
            self.check_format(self.format)

    def check_format(self, found: str) -> None:
        """Raise InputError for a flag that a source of this format has no use for, rather than ignore it."""
        if found == "sequences":
            self._only([f"{role}_column" for role in self.columns()], "for files with columns, not for sequences")
        if found != "amazon" and not self.meta:
            self._only(["max_malformed"], "for JSON lines")
        if found == "parquet" and not self.meta and self.encoding.lower() not in ("utf-8", "utf8"):
            raise InputError(f"--encoding {self.encoding} is only for text, not for parquet")
        if found not in ("csv", "recbole"):
            self._only(["no_header"], "for tables: --format csv or recbole")
        if found not in ("sequences", "recbole"):
            self._only(["item_table", "user_table"], "for --format sequences or recbole")

    def _only(self, names, where: str) -> None:
        for name in names:
            if getattr(self, name) not in (None, False):
                raise InputError(f"--{name} is only {where}")

    def columns(self) -> dict[str, str | None]:
        """What the flags say about the columns of actions."""
        return {role: getattr(self, f"{role}_column") for role in ("user", "item", "rating", "time")}

    def malformed_limit(self) -> float:
        return MAX_MALFORMED if self.max_malformed is None else self.max_malformed

    def defaults(self, ready: bool) -> dict:
        """What the rules that no flag names are; ready-made sequences are kept as they are under the paper's protocol."""
        keep = ready and self.protocol == "paper"
        return {
            "duplicates": self.duplicates or ("keep" if keep else "first"),
            "k_core": self.k_core or (1 if keep else DEFAULT_CORE),
            "max_malformed": self.malformed_limit(),
        }

    def rules(self) -> dict:
        """Everything but the files that determines the result."""
        return {name: value for name, value in vars(self).items() if name not in FILES}


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
