"""A second reader of actions, as plain as can be: the standard library, one value after the other, nothing of the data stage.

What it refuses the data stage has to refuse, and what both read has to be the same. It knows the layouts of the shared cases.
"""

import gzip
import json
import re
import unicodedata
import zlib
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

NAMES = {
    "user": ("reviewerid", "userid", "username"),
    "item": ("parentasin", "asin", "itemid", "productid", "businessid", "movieid"),
    "rating": ("overall", "rating", "stars"),
    "time": ("unixreviewtime", "timestamp", "date"),
}
NO_ID = {"", "nan", "none", "null", "<na>", "nat", "\\n"}
PUNCTUATION = set("[](){}\"',;:")


class Refused(Exception):
    """The input is not one of ours."""


def plain_sequences(path, kind, item_table=None):
    """{user: [items in order]} that the paper's rules leave."""
    content = unpacked(path.read_bytes())
    ready = kind == "sequences"
    readers = {"amazon": json_actions, "csv": csv_actions, "recbole": atomic_actions, "sequences": sequence_actions}
    actions = readers[kind](content)
    if item_table:
        names = plain_table(unpacked(item_table.read_bytes()))
        if any(item not in names for _, item, _, _ in actions):
            raise Refused("an item without an entry")
        actions = [(user, names[item], rating, time) for user, item, rating, time in actions]
    actions = actions if ready else filtered(actions)
    sequences = {}
    for user, item, _, _ in actions:
        sequences.setdefault(user, []).append(item)
    if not sequences or min(map(len, sequences.values())) < 3:
        raise Refused("nothing, or too little, is left")
    return sequences


def unpacked(content):
    while content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise Refused("damaged gzip data") from error
    return content


def as_text(content):
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused("not UTF-8") from error
    if "\r" in text and "\n" not in text:
        raise Refused("old Mac line ends")
    return text


# -- values -------------------------------------------------------------------------------------------------------------------


def plain_id(value):
    if isinstance(value, Decimal):
        if not value.is_finite() or value.adjusted() > 5000 or value != value.to_integral_value():
            raise Refused("a number with a fraction is no id")
        return str(int(value))
    if not isinstance(value, str):
        raise Refused("no id")
    value = value.strip()
    strange = any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\r\t" or c == "\ufeff" for c in value)
    if value.lower() in NO_ID or strange:
        raise Refused("no id")
    return value


def plain_number(value):
    try:
        number = Decimal(value.strip()) if isinstance(value, str) else value
    except InvalidOperation as error:
        raise Refused("not a number") from error
    if not isinstance(number, Decimal) or not number.is_finite() or number.adjusted() > 308:
        raise Refused("not a number")
    return number


def plain_time(value, in_quotes=False):
    """(kind, time)"""
    text = value.strip() if isinstance(value, str) else ""
    if re.match(r"\d{4}-\d\d-\d\d", text):
        try:
            moment = datetime.fromisoformat(text[:26].rstrip("Z"))
        except ValueError as error:
            raise Refused("not a date") from error
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return "date", Decimal(moment.timestamp())
    if in_quotes and isinstance(value, str):
        raise Refused("a number in quotes")
    number = plain_number(value)
    if not -(2**63) <= number < 2**63:
        raise Refused("not a time")
    return "number", number


# -- formats ------------------------------------------------------------------------------------------------------------------


def json_actions(content):
    content = content.removeprefix(b"\xef\xbb\xbf")
    records, malformed = [], 0
    for line in content.split(b"\n"):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8"), parse_int=Decimal, parse_float=Decimal, parse_constant=Decimal)
        except (ValueError, RecursionError):
            record = None
        malformed += not isinstance(record, dict)
        records += [record] if isinstance(record, dict) else []
    if malformed > 0.01 * (len(records) + malformed):
        raise Refused("too many lines do not parse")
    found = columns(list(dict.fromkeys(name for record in records for name in record)))
    if any(record.get(name) is None for record in records for name in found.values() if name):
        raise Refused("a field is missing")
    kinds = [plain_time(record[found["time"]], in_quotes=True) for record in records]
    numbers = [record[found["rating"]] for record in records] if found["rating"] else [None] * len(records)
    if any(number is not None and not isinstance(number, Decimal) for number in numbers):
        raise Refused("a rating is no number")
    return joined(
        [plain_id(record[found["user"]]) for record in records],
        [plain_id(record[found["item"]]) for record in records],
        [None if number is None else plain_number(number) for number in numbers],
        kinds,
    )


def columns(names):
    """{role: name}; a rating may be missing."""
    letters = {"".join(c for c in name.lower() if c.isalnum()): name for name in reversed(names)}
    found = {role: next((letters[known] for known in NAMES[role] if known in letters), None) for role in NAMES}
    if not (found["user"] and found["item"] and found["time"]):
        raise Refused("columns are missing")
    if any(names.count(name) > 1 for name in found.values() if name):
        raise Refused("a column stands in it twice")
    return found


def joined(users, items, ratings, times):
    if not users or len({kind for kind, _ in times}) > 1:
        raise Refused("nothing, or dates beside numbers")
    return list(zip(users, items, ratings, [time for _, time in times]))


def csv_actions(content):
    text = as_text(content)
    return table_actions(csv_rows(text) if '"' in text else cut_rows(text, ","))


def atomic_actions(content):
    rows = [row for row in cut_rows(as_text(content), "\t") if any(cell.strip() for cell in row)]
    return table_actions([[cell.split(":")[0] for cell in rows[0]], *rows[1:]] if rows else rows)


def table_actions(rows):
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if len(rows) < 2:
        raise Refused("no rows")
    header = [cell.strip() for cell in rows[0]]
    found = columns(header)
    if any(len(row) > len(header) for row in rows):
        raise Refused("a long row")
    cells = {
        role: [row[header.index(name)] if header.index(name) < len(row) else "" for row in rows[1:]]
        for role, name in found.items()
        if name
    }
    return joined(
        [plain_id(cell) for cell in cells["user"]],
        [plain_id(cell) for cell in cells["item"]],
        [plain_number(cell) for cell in cells["rating"]] if "rating" in cells else [None] * (len(rows) - 1),
        [plain_time(cell) for cell in cells["time"]],
    )


def cut_rows(text, separator):
    return [line.removesuffix("\r").split(separator) for line in text.split("\n")]


def csv_rows(text):
    """RFC 4180, one character after the other; a quote inside a cell that does not begin with one stands for itself."""
    rows, row, cell, state = [], [], "", "start"
    for character in [*text.replace("\r\n", "\n"), "end"]:
        ends_row, ends_cell = character in ("\n", "end"), character in (",", "\n", "end")
        if state == "quoted" and character != "end":
            state, cell = ("closed", cell) if character == '"' else (state, cell + character)
        elif state == "quoted":
            raise Refused("a quote is never closed")
        elif state == "start" and character == '"':
            state = "quoted"
        elif state == "closed" and character == '"':
            state, cell = "quoted", cell + '"'
        elif ends_cell:
            row.append(cell)
            cell, state = "", "start"
            if ends_row:
                rows.append(row)
                row = []
        elif state == "closed":
            raise Refused("text behind a closing quote")
        else:
            state, cell = "plain", cell + character
    return rows


def sequence_actions(content):
    text = as_text(content)
    histories = json_histories(text) if text.lstrip().startswith("{") else line_histories(text)
    actions = [(user, plain_id(item), None, None) for user, items in histories for item in items]
    if not actions:
        raise Refused("holds nothing")
    return actions


def json_histories(text):
    def unique(pairs):
        if len({key for key, _ in pairs}) != len(pairs):
            raise Refused("a key twice")
        return dict(pairs)

    try:
        content = json.loads(text, object_pairs_hook=unique, parse_int=Decimal, parse_float=Decimal, parse_constant=Decimal)
    except (ValueError, RecursionError) as error:
        raise Refused("not JSON") from error
    if not isinstance(content, dict) or not all(isinstance(items, list) and items for items in content.values()):
        raise Refused("no object of lists")
    return [(plain_id(user), items) for user, items in content.items()]


def line_histories(text):
    lines = [re.split(r"[ \t]+", line.strip(" \t\r")) for line in text.split("\n") if line.strip(" \t\r")]
    for token in (token for line in lines for token in line):
        strange = any(unicodedata.category(character)[0] in "CZ" for character in token)
        if strange or {token[0], token[-1]} & PUNCTUATION or set(token) & set(",;") or token.lower() in ("true", "false"):
            raise Refused("no id")
    pairs = all(len(line) == 2 for line in lines)
    users = [plain_id(line[0]) for line in lines]
    if any(len(line) < 2 for line in lines) or not pairs and len(set(users)) != len(users):
        raise Refused("a user without items, or with two lines")
    return [(user, line[1:]) for user, line in zip(users, lines)]


def plain_table(content):
    """{number: source id}"""
    entries = [line.split("\t") for line in as_text(content).split("\n") if line.strip()]
    entries = [[cell.strip() for cell in entry] for entry in entries]
    if not entries or any(len(entry) != 2 or not entry[0] or not entry[1].isdecimal() for entry in entries):
        raise Refused("not 'source id TAB number'")
    names, numbers = zip(*entries)
    if len(set(names)) != len(names) or len(set(numbers)) != len(numbers):
        raise Refused("one of them twice")
    return {number: plain_id(name) for name, number in entries}


# -- the paper's rules --------------------------------------------------------------------------------------------------------


def filtered(actions):
    """Ratings above 3, by time, each pair once, users and items with five actions."""
    ratings = {rating for _, _, rating, _ in actions}
    if ratings not in ({None}, {Decimal(1)}):
        actions = [action for action in actions if action[2] > 3]
    kept = {}
    for action in sorted(actions, key=lambda action: action[3]):
        kept.setdefault(action[:2], action)
    actions, before = list(kept.values()), None
    while before != len(actions):
        before = len(actions)
        for side in (0, 1):
            counts = Counter(action[side] for action in actions)
            actions = [action for action in actions if counts[action[side]] >= 5]
    return actions
