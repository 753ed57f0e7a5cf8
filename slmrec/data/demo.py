"""Seeded synthetic reviews in the Amazon 2018 layout: a raw file and a meta file, so that every stage has real work on them.

    python -m slmrec.data.demo --output_dir datasets/raw/demo --seed 0

A shopper's next item comes from one of four sources (`SOURCES`), so that each kind of recommender has something to find:
popularity, taste, the last two items together, and the last three together. Nothing measured on this data says anything about
real shoppers; the manifest beside the files is what the data stage reads to label it as synthetic.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from slmrec.arguments import OutputArguments
from slmrec.artifacts import Stage
from slmrec.command_line import parse_arguments
from slmrec.data.arguments import DemoArguments
from slmrec.manifest import MANIFEST, parse_manifest
from slmrec.ownership import stage_of
from slmrec.runtime import run_main

REVIEWS, META = "reviews.json.gz", "meta.json.gz"

STYLES = 3  # an item's style picks which follow-up of the next item is bought
FOLLOWUPS = STYLES  # follow-ups that an item has
MEAN_CATEGORY = 50  # items per category
SOURCES = {"followup": 0.62, "detour": 0.14, "taste": 0.14, "popular": 0.10}  # chance of each source of the next item
FOLLOWS_STYLE = 0.85  # otherwise a random follow-up of the last item
ACROSS = 0.25  # share of follow-ups that lie in another category

SAME_DAY = 0.12  # chance that the next action is on the same day
LOW_RATINGS = 0.12  # low ratings per positive action; their items are unrelated to the shopper's path
DUPLICATES = 0.02  # repeated (user, item) pairs per action
CASUAL_USERS = 0.35  # further users with one to four actions, per user
RARE_ITEMS = 0.15  # further items that hardly anybody touches, per item
FIRST_DAY, LAST_DAY = 15_000, 17_700  # days since 1970: early 2011 to mid 2018
SECONDS_A_DAY = 86_400

NOUNS = (
    "Guitar Strings",
    "Drum Sticks",
    "Microphone",
    "Capo",
    "Tuner",
    "Cable",
    "Pedal",
    "Amplifier",
    "Violin Bow",
    "Music Stand",
)
STYLE_NAMES = ("Classic", "Studio", "Stage")
BRANDS = ("Alder", "Birchline", "Corvid & Sons", "Dunmore", "Eastgate", "Fernhill")
TEXTS = (
    "Works as it should.",
    "Exactly what I was looking for, and it came early.",
    "Bought a second one for my daughter.",
    "Not what the picture shows.",
    "Holds up well after a month of daily use; I would buy it again.",
)


class Shop:
    """The items of the demo and how one leads to the next.

    Attributes:
        category, style: int [N].
        followups: int [N, FOLLOWUPS], what may be bought after an item.
        popularity: float [N], sums to 1.
        detour: int [categories, categories], the category that two categories in a row lead to.
    """

    def __init__(self, num_items: int, rng: np.random.Generator):
        self.rng, self.num_items = rng, num_items
        self.num_categories = max(2, num_items // MEAN_CATEGORY)
        self.category = rng.permutation(num_items) % self.num_categories
        self.style = rng.integers(STYLES, size=num_items)
        weights = 1.0 / (12 + rng.permutation(num_items))
        self.popularity = weights / weights.sum()
        self.members = [np.flatnonzero(self.category == number) for number in range(self.num_categories)]
        self.detour = rng.integers(self.num_categories, size=(self.num_categories, self.num_categories))
        self.followups = np.array([[self._followup(item) for _ in range(FOLLOWUPS)] for item in range(num_items)])

    def _followup(self, item: int) -> int:
        inside = self.rng.random() >= ACROSS
        return self.popular_item(self.category[item]) if inside else int(self.rng.integers(self.num_items))

    def popular_item(self, category: int) -> int:
        members = self.members[category]
        weights = self.popularity[members]
        return members[np.searchsorted(np.cumsum(weights), self.rng.random() * weights.sum())]

    def next_item(self, path: list[int], taste: np.ndarray) -> int:
        """Draw what follows the items of `path` for a user who likes the categories `taste`."""
        rng, last, before = self.rng, path[-1], path[-2]
        source = rng.choice(list(SOURCES), p=list(SOURCES.values()))
        if source == "followup":  # the style of the item before the last picks among the follow-ups of the last
            chosen = self.style[before] if rng.random() < FOLLOWS_STYLE else rng.integers(FOLLOWUPS)
            return self.followups[last, chosen]
        if source == "detour":  # the last two categories pick the next, the third last item the style
            members = self.members[self.detour[self.category[last], self.category[before]]]
            alike = members[self.style[members] == self.style[path[-3]]] if len(path) > 2 else members
            return rng.choice(alike if len(alike) else members)
        if source == "taste":
            return self.popular_item(rng.choice(taste))
        return rng.choice(self.num_items, p=self.popularity)

    def path(self, length: int) -> list[int]:
        """One user's items, each of them once."""
        taste = self.rng.integers(self.num_categories, size=2)
        path = [self.popular_item(taste[0]), self.popular_item(taste[1])]
        for _ in range(20 * length):
            if len(path) >= length:
                break
            item = self.next_item(path, taste)
            if item not in path:
                path.append(int(item))
        return path[:length]


def draw_days(length: int, rng: np.random.Generator) -> np.ndarray:
    """Days of one user's actions since 1970, non-decreasing, int [length]."""
    gaps = np.where(rng.random(length) < SAME_DAY, 0, 1 + rng.geometric(1 / 30, size=length))
    days = np.cumsum(gaps)
    return days - days[0] + rng.integers(FIRST_DAY, max(FIRST_DAY + 1, LAST_DAY - int(days[-1] - days[0])))


def user_rows(shop: Shop, user: str, length: int) -> list[tuple]:
    """One user's reviews as (user, item, rating, day): the path, and around it low ratings and repeats."""
    rng = shop.rng
    items, days = shop.path(length), draw_days(length, rng)
    rows = [(user, item, float(rng.choice([4, 5, 5])), int(day)) for item, day in zip(items, days)]
    for position in np.flatnonzero(rng.random(len(rows)) < LOW_RATINGS):
        rows.append((user, int(rng.integers(shop.num_items)), float(rng.choice([1, 2, 3])), rows[position][3]))
    for position in np.flatnonzero(rng.random(len(items)) < DUPLICATES):
        rows.append((user, items[position], 5.0, rows[position][3] + int(rng.integers(2))))
    return rows


def rare_rows(shop: Shop, users: list[str]) -> list[tuple]:
    """One to three reviews for each item that stays below the 5-core; their numbers start at shop.num_items."""
    rng = shop.rng
    numbers = range(shop.num_items, shop.num_items + int(RARE_ITEMS * shop.num_items))
    return [
        (str(rng.choice(users)), item, 5.0, int(rng.integers(FIRST_DAY, LAST_DAY)))
        for item in numbers
        for _ in range(rng.integers(1, 4))
    ]


def draw_ids(prefix: str, length: int, count: int, rng: np.random.Generator) -> list[str]:
    """Distinct ids that look like Amazon's, in random order."""
    alphabet = np.array(list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    drawn = {prefix + "".join(row) for row in rng.choice(alphabet, size=(2 * count, length))}
    return list(rng.permutation(sorted(drawn))[:count])


def draw_rows(shop: Shop, num_users: int) -> list[tuple]:
    rng = shop.rng
    names = draw_ids("A", 13, num_users + int(CASUAL_USERS * num_users), rng)
    lengths = 5 + rng.geometric(1 / 5, size=num_users)
    casual = rng.integers(1, 5, size=len(names) - num_users)
    rows = []
    for name, length in zip(names, np.concatenate([lengths, casual])):
        rows += user_rows(shop, name, int(min(length, 50)))
    return rows + rare_rows(shop, names)


def review(row: tuple, asins: list[str], rng: np.random.Generator) -> dict:
    """One line of a 2018 review file."""
    user, item, rating, day = row
    date = datetime.fromtimestamp(day * SECONDS_A_DAY, UTC)
    return {
        "overall": rating,
        "verified": bool(rng.random() < 0.9),
        "reviewTime": f"{date.month:02d} {date.day}, {date.year}",
        "reviewerID": user,
        "asin": asins[item],
        "reviewerName": f"Shopper {user[-4:]}",
        "reviewText": str(rng.choice(TEXTS)),
        "summary": f"{int(rating)} Stars",
        "unixReviewTime": day * SECONDS_A_DAY,
    }


def item_meta(item: int, asins: list[str], shop: Shop) -> dict:
    """One line of a 2018 meta file; the rare items have no category of their own."""
    known = item < shop.num_items
    category, style = (shop.category[item], shop.style[item]) if known else (0, 0)
    noun, brand = NOUNS[category % len(NOUNS)], BRANDS[item % len(BRANDS)]
    title = f"{brand} {STYLE_NAMES[style]} {noun} No. {category + 1}-{item}".replace("&", "&amp;")
    return {"category": ["Synthetic", f"{noun} {category + 1}"], "title": title, "brand": brand, "asin": asins[item]}


def write_lines(path: Path, records: list[dict]) -> None:
    """JSON lines, gzip-compressed without a time stamp, so that the same seed gives the same bytes."""
    with open(path, "wb") as file, gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as stream:
        for record in records:
            stream.write(json.dumps(record).encode() + b"\n")


def write_demo(directory: Path, seed: int, num_users: int, num_items: int) -> None:
    """Write the review file, sorted by item id as the real raw files are, and the meta file."""
    rng = np.random.default_rng(seed)
    shop = Shop(num_items, rng)
    rows = draw_rows(shop, num_users)
    total_items = 1 + max(row[1] for row in rows)
    asins = draw_ids("B0", 8, total_items, rng)
    rows.sort(key=lambda row: (asins[row[1]], row[3], row[0]))
    write_lines(directory / REVIEWS, [review(row, asins, rng) for row in rows])
    write_lines(directory / META, [item_meta(item, asins, shop) for item in np.argsort(asins)])


def is_synthetic(path: str, digest: str) -> bool:
    """Whether the manifest beside a file says that a demo stage made these very bytes.

    Raises InputError when a stage made the directory and its manifest is missing or damaged.
    """
    directory = Path(path).parent
    if stage_of(directory) != "demo":
        return False
    return digest in [output["sha256"] for output in parse_manifest(directory / MANIFEST)["outputs"].values()]


def main(argv: list[str] | None = None) -> None:
    args, output = parse_arguments((DemoArguments, OutputArguments), argv, description=__doc__)
    stage = Stage("demo", output.output_dir, asdict(args), {}, overwrite=output.overwrite_output_dir, seed=args.seed)
    if stage.up_to_date:
        return
    with stage:
        write_demo(stage.path, args.seed, args.num_users, args.num_items)
        stage.result = f"synthetic: {REVIEWS}, {META}"


if __name__ == "__main__":
    run_main(main)
