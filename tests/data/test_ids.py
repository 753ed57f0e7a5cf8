"""What is an id: one rule for every kind of file, and what a sequence file refuses beyond it."""

import json

import pytest

from slmrec.data.jsonlines import JsonLines
from slmrec.errors import InputError
from tests.campaign.mutate_inputs import sequences_of

USERS = ("u1", "u2")
LAYOUTS = {  # file -> (--format, its head, a row of a user and an item)
    "x.csv": ("csv", "user,item,time\n", '%s,"%s",1\n'),
    "x.inter": ("recbole", "user_id:token\titem_id:token\ttimestamp:float\n", "%s\t%s\t1\n"),
    "x.json": ("amazon", "", '{"reviewerID": "%s", "asin": %s, "unixReviewTime": 1}\n'),
}
KEPT = ["True", "false", "[7", "7,", "7]", "{7", "'7'", "7:", "7|8", "007", "7.0", "B 7", "Ж7"]
REFUSED = ["", "nan", "NaN", "None", "null", "<NA>", "\ufeff7", "7\x0b8", "7\x0c8", "7\x858", "7\u20288", "7\x008"]
OTHER_NOTATION = ["True", "false", "[7", "7,", "7]", "{7", "'7'", "7:", "B\u00a07"]
NOT_TEXT = ["true", "false", "NaN", "Infinity", "7.5", "1e400", "[7]", "{}"]
NUMBERS = {"7": "7", "7.0": "7", "1e3": "1000", "-0.0": "0", "123456789012345678901": "123456789012345678901"}


def file_with(folder, name, last):
    """A file in which each of two users has the items a, b, c and `last`, which JSON takes as it stands."""
    path = folder / name
    if name == "seq.txt":
        path.write_text("".join(f"{user} a b c {last}\n" for user in USERS), encoding="utf-8")
        return path, "sequences"
    if name == "seq.json":
        histories = ", ".join(f'"{user}": ["a", "b", "c", {last}]' for user in USERS)
        path.write_text("{" + histories + "}", encoding="utf-8")
        return path, "sequences"
    kind, head, row = LAYOUTS[name]
    items = ['"a"', '"b"', '"c"', last] if name == "x.json" else ["a", "b", "c", last]
    path.write_text(head + "".join(row % (user, item) for user in USERS for item in items), encoding="utf-8")
    return path, kind


def last_item(path, kind):
    sequences, _ = sequences_of(path, kind, k_core=1)
    return {items[3] for items in sequences.values()}


@pytest.fixture(params=["whole", "line by line"])
def both_ways(request, monkeypatch):
    if request.param == "line by line":
        monkeypatch.setattr(JsonLines, "_read_strictly", lambda self, block: None)


@pytest.mark.parametrize("name", ["x.csv", "x.inter", "x.json", "seq.json"])
def test_text_is_an_id_as_it_stands(tmp_path, name, both_ways):
    for text in KEPT:
        assert last_item(*file_with(tmp_path, name, json.dumps(text) if "json" in name else text)) == {text}


@pytest.mark.parametrize("name", ["x.csv", "x.inter", "x.json", "seq.json", "seq.txt"])
@pytest.mark.parametrize("text", REFUSED, ids=ascii)
def test_what_no_file_may_hold(tmp_path, name, text, both_ways):
    if (name, text) == ("seq.txt", ""):
        return  # a line with blanks at its end
    where = {"x.json": "x.json, line 4: ", "seq.json": "seq.json, user 'u1': ", "seq.txt": "seq.txt, line 1: "}
    with pytest.raises(InputError) as error:
        last_item(*file_with(tmp_path, name, json.dumps(text) if "json" in name else text))
    assert where.get(name, f"{name}, row 4 after the header: ") in str(error.value)
    assert "no id" in str(error.value) or text == "" and "is missing" in str(error.value)


@pytest.mark.parametrize("text", OTHER_NOTATION, ids=ascii)
def test_between_blanks_other_notation_is_refused(tmp_path, text):
    with pytest.raises(
        InputError, match="seq.txt, line 1: .* is no id; ids are numbers or names, with blanks alone between them"
    ):
        last_item(*file_with(tmp_path, "seq.txt", text))


@pytest.mark.parametrize("name", ["x.json", "seq.json"])
def test_values_of_json(tmp_path, name, both_ways):
    for value in NOT_TEXT:
        with pytest.raises(InputError, match="line 4: asin is .*, which is no id|user 'u1': .* among the items is no id"):
            last_item(*file_with(tmp_path, name, value))
    for value, text in NUMBERS.items():
        assert last_item(*file_with(tmp_path, name, value)) == {text}
