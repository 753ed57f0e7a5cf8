"""Every small input of the shared cases: what is read has the values of a second, plain reader; what is refused gets one line."""

import os
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest

from slmrec.data.jsonlines import JsonLines
from slmrec.data.meta import read_meta
from slmrec.data.meta_table import MetaColumns
from slmrec.errors import InputError
from tests.campaign.mutate_inputs import sequences_of
from tests.campaign.plain_reader import plain_sequences

SHARED = os.environ.get("SLMREC_SHARED")
CASES = Path(SHARED or "missing") / "cases"
pytestmark = pytest.mark.skipif(not SHARED, reason="SLMREC_SHARED names no folder with the shared cases")

NOT_DATA = {  # about flags, shells, directories and models
    "base_models", "flags", "late_flags", "no_sched_getaffinity", "os_errors", "resume", "shell_bash32", "symlinked_runs",
    "two_at_once", "venv_without_pip",
}  # fmt: skip
PLAIN = (24, 12, 192)

READ = {  # file -> (format, users, items, actions)
    **{
        f"{folder}/reviews.csv": ("csv", *PLAIN)
        for folder in (
            "baseline", "bom", "crlf", "empty_lines", "header_case", "header_index", "ids_case_blank", "ids_float_csv",
            "ids_huge", "ids_leading_zero", "ids_negative", "ids_newline", "ids_odd", "ids_zero", "implicit_ratings",
            "no_newline_end", "sep_tab", "time_date", "time_negative", "time_sci", "time_ties",
        )
    },
    **{
        f"{folder}/reviews.json": ("amazon", *PLAIN)
        for folder in (
            "baseline", "bom", "crlf", "empty_lines", "ids_case_blank", "ids_huge", "ids_leading_zero", "ids_negative",
            "ids_newline", "ids_number_json", "ids_odd", "ids_zero", "nested", "no_newline_end", "python_dicts", "steam",
        )
    },
    **{
        f"{folder}/x.inter": ("recbole", *PLAIN)
        for folder in (
            "baseline", "bom", "crlf", "csv_text", "empty_lines", "header_colon", "ids_huge", "ids_leading_zero", "ids_negative",
            "ids_odd", "ids_zero", "no_newline_end", "sep_comma",
        )
    },
    **{f"{folder}/seq.txt": ("sequences", *PLAIN) for folder in ("baseline", "crlf", "empty_lines")},
    **{f"{folder}/seq.json": ("sequences", *PLAIN) for folder in ("baseline", "bom")},
    "all_touched/reviews.csv": ("csv", 30, 6, 175),
    "amazon2023/rating_only.csv": ("csv", *PLAIN),
    "amazon2023/reviews.jsonl": ("amazon", *PLAIN),
    "csv_text/doubled_quotes.csv": ("csv", *PLAIN),
    "csv_text/inch_unquoted_end.csv": ("csv", *PLAIN),
    "csv_text/newline_in_text.csv": ("csv", *PLAIN),
    "dup_key/reviews.json": ("amazon", 24, 12, 191),  # the last of two values, as everywhere: an item that nobody else has
    "empty_lines/tail.csv": ("csv", *PLAIN),
    "empty_lines/tail.inter": ("recbole", *PLAIN),
    "gz_suffix/members.json.gz": ("amazon", *PLAIN),
    "gz_suffix/packed.json": ("amazon", *PLAIN),
    "gz_suffix/plain.json.gz": ("amazon", *PLAIN),
    "gz_suffix/trailing.json.gz": ("amazon", *PLAIN),
    "gz_suffix/twice.json.gz": ("amazon", *PLAIN),
    "ids_float_json/clean.json": ("amazon", 400, 60, 4000),
    "ids_float_json/one_bad_line.json": ("amazon", 400, 60, 4000),
    "ids_number_json/big_bad_line.json": ("amazon", *PLAIN),
    "ids_number_json/big_float_ids.json": ("amazon", *PLAIN),
    "ids_number_json/mixed.json": ("amazon", *PLAIN),
    "nanoseconds/ns.csv": ("csv", *PLAIN),
    "parsers/dup_key.json": ("amazon", 50, 6, 299),
    "parsers/float_ids.json": ("amazon", 50, 6, 298),
    "parsers/reviews.json": ("amazon", 50, 6, 300),
    "parsers/reviews.json.zst": ("amazon", 50, 6, 300),
    "parsers/seq.txt": ("sequences", 10, 6, 60),
    "recbole_list/empty.inter": ("recbole", 8, 8, 64),
    "seq_forms/floats.json": ("sequences", 8, 8, 64),
    "subsecond/float_seconds.csv": ("csv", *PLAIN),
    "subsecond/ms.csv": ("csv", *PLAIN),
    "tiny/fours.csv": ("csv", 24, 12, 96),
    "tiny/long_user.csv": ("csv", 25, 12, 108),
    "tiny/one_user.csv": ("csv", 1, 8, 8),
    "tiny/threes.csv": ("csv", 24, 12, 72),
    "tiny/two_users_two_items.csv": ("csv", 2, 4, 8),
    "yelp/review.json": ("amazon", *PLAIN),
}  # fmt: skip
NOT_IN_PLAIN_READER = ("gz_suffix/trailing", "parsers/reviews.json.zst", "python_dicts", "recbole_list", "sep_", "steam", "tiny")

REFUSED = {  # file -> (format, what the message says)
    "cr_only/reviews.csv": ("csv", "carriage returns alone"),
    "csv_text/backslash_end.csv": ("csv", "row 1 after the header: its quotes do not pair"),
    "csv_text/backslash_middle.csv": ("csv", "row 11 after the header: its quotes do not pair"),
    "csv_text/backslash_one_end.csv": ("csv", "row 1 after the header: its quotes do not pair"),
    "csv_text/backslash_two.csv": ("csv", "row 11 after the header: its quotes do not pair"),
    "csv_text/open_quote_two.csv": ("csv", "row 11 after the header: its quotes do not pair"),
    "csv_text/quote_starts_unquoted.csv": ("csv", "row 11 after the header: its quotes do not pair"),
    "gz_suffix/garbage.json.gz": ("amazon", "truncated gzip file (its end is missing, or bytes of something else follow it)"),
    "gz_suffix/html.json.gz": ("amazon", "1 of 1 lines do not parse (line 1;"),
    "gz_suffix/reviews.zip": ("amazon", "a zip archive or an Excel file; unpack it"),
    "header_dup/reviews.csv": ("csv", "2 of its columns are called 'overall'"),
    "header_missing/reviews.csv": ("csv", "its first row holds a number and no names; --no_header"),
    "header_missing/x.inter": ("recbole", "its first row holds a number and no names; --no_header"),
    "ids_empty/reviews.json": ("amazon", "line 6: reviewerID is missing"),
    "ids_nan/many.csv": ("csv", "row 6 after the header: reviewerID is 'nan', which is no id"),
    "ids_nan/reviews.csv": ("csv", "row 6 after the header: reviewerID is 'NaN', which is no id"),
    "ids_newline/x.inter": ("recbole", "row 1 after the header"),
    "ids_number_json/bool.json": ("amazon", "line 1: overall is true, not a number"),
    "ids_number_json/other_types.json": ("amazon", "line 1: reviewerID is a list, which is no id"),
    "json_array/pretty.json": ("amazon", "one JSON array"),
    "json_array/reviews.json": ("amazon", "one JSON array"),
    "json_pandas/reviews.json": ("amazon", "one JSON object holds the whole file"),
    "json_trailing/reviews.json": ("amazon", "line 1: a comma follows the object"),
    "latin1/reviews.csv": ("csv", "line 2: not UTF-8 text; --encoding"),
    "latin1/reviews.json": ("amazon", "192 of 192 lines do not parse (line 1, 2, 3, 4, 5, ...; the first: not UTF-8 text)"),
    "latin1/x.inter": ("recbole", "line 2: not UTF-8 text; --encoding"),
    "nul_bytes/reviews.csv": ("csv", "row 13 after the header: reviewerID is 'AX\\x00003', which is no id"),
    "nul_bytes/reviews.json": ("amazon", "2 of 193 lines do not parse (line 25, 26;"),
    "parsers/huge_int.json": ("amazon", "line 4: overall is 1000"),
    "parsers/lone_surrogate_id.json": ("amazon", "line 4: reviewerID is 'u0\\ud83d', which is no id"),
    "parsers/reviews_truncated.json.zst": ("amazon", "truncated zstd file"),
    "parsers/seq_deep.json": ("sequences", "not one JSON object (nested too deeply)"),
    "parsers/seq_huge_int.json": ("sequences", "user 'x' has 1 actions"),
    "parsers/seq_surrogate.json": ("sequences", "user '\\ud83d': no id"),
    "parsers/seq_vt.txt": ("sequences", "line 10: '2\\x0bu10' is no id"),
    "parsers/surrogate_and_broken_line.json": ("amazon", "line 4: reviewerID is 'u0\\ud83d', which is no id"),
    "quotes/reviews_quote_id.csv": ("csv", "row 13 after the header: its quotes do not pair"),
    "rating_comma/reviews.csv": ("csv", "row 1 after the header: overall is '5,0', not a number"),
    "rating_missing/reviews.json": ("amazon", "line 51: the field 'overall' is missing"),
    "rating_nan/reviews.csv": ("csv", "row 4 after the header: overall is 'NaN', not a number"),
    "rating_text/one.json": ("amazon", "line 10: overall is '5.0', not a number"),
    "rating_text/reviews.json": ("amazon", "line 1: overall is '5.0', not a number"),
    "rating_text/times.json": ("amazon", "line 1: unixReviewTime is '1500006000', neither a number nor an ISO date"),
    "recbole_list/comma.inter": ("recbole", "row 1 after the header: 'i0,i1,i2,i3,i4,i5,i6' is no id"),
    "sep_space/x.inter": ("recbole", "between its columns are no tabs, commas, semicolons or bars; perhaps blanks"),
    "seq_forms/blank_item.json": ("sequences", "user '0': item is missing"),
    "seq_forms/colon.txt": ("sequences", "line 1: '0:' is no id"),
    "seq_forms/commas.txt": ("sequences", "line 1: '0,0,1,2,3,4,5,6,7' is no id"),
    "seq_forms/dict_items.json": ("sequences", "user '0': an object where a list of items is needed"),
    "seq_forms/jsonlines.json": ("sequences", "line 2: not one JSON object"),
    "seq_forms/list_of_lists.json": ("sequences", "one JSON array; wanted is an object {user: [items]}"),
    "seq_forms/nested.json": ("sequences", "user '0': a list among the items is no id"),
    "seq_forms/nulls.json": ("sequences", "user '0': null among the items is no id"),
    "seq_forms/space_commas.txt": ("sequences", "line 1: '0,' is no id"),
    "seq_forms/strings.json": ("sequences", "user '0': '0 1 2 3 4 5 6 7' where a list of items is needed"),
    "surrogate/one_bad_line.json": ("amazon", "line 13: reviewerID is 'AX\\ud83d03', which is no id"),
    "surrogate/reviews.json": ("amazon", "line 13: reviewerID is 'AX\\ud83d03', which is no id"),
    "time_missing/reviews.json": ("amazon", "none of its columns is called like a time"),
    "tiny/one_item.csv": ("csv", "user 'AX0000' has 1 actions (and 23 more users have too few)"),
    "utf16/reviews.csv": ("csv", "UTF-16 text where UTF-8 is needed; --encoding utf-16"),
    "utf16/reviews.json": ("amazon", "UTF-16 text where UTF-8 is needed; --encoding utf-16"),
}
TABLES = {  # item tables -> None, or what the message says
    "baseline/item2index": None,
    "bom/item2index": None,
    "crlf/item2index": None,
    "empty_lines/item2index": None,
    "id_table/header": "line 1: not 'source id TAB number'",
    "id_table/item2id.json": "line 1: not 'source id TAB number'",
    "id_table/space": "line 1: not 'source id TAB number'",
    "id_table/swapped": "line 1: not 'source id TAB number'",
    "id_table/three_columns": "line 1: not 'source id TAB number'",
    "parsers/table_empty.tsv": "line 3: not 'source id TAB number'",
}
TWELVE, THREE = 12 * [True], ["Toy"] * 3
META = {  # meta files -> the first titles, or what the message says
    "amazon2023/meta.jsonl": ["Thing B00000", "Thing B00001"],
    "latin1/meta.csv": "line 2: not UTF-8 text; --encoding",
    "meta_mix/META.JSON": ["t", "t"],
    "meta_mix/lcrec.item.json": ["", ""],
    "meta_mix/lcrec_oneline.item.json": ["", ""],
    "meta_mix/meta_noext": ["t", "t"],
    "meta_mix/movies.csv": ["T0, The (1999)", "T1, The (1999)"],
    "meta_mix/movies.dat": "line 1: not UTF-8 text; --encoding",
    "meta_mix/numeric_asin.json": ["", ""],
    "meta_mix/other_items.json": ["", ""],
    "meta_mix/title_html.json": ["", "Tom & Jerry <b>x</b> y"],
    "meta_mix/title_list.json": ["", ""],
    "meta_mix/title_missing.json": ["", ""],
    "meta_mix/u.item": ["T0 (1995)", "T1 (1995)"],
    "meta_surrogate/meta.json": [*THREE, "Toy \ufffd"],
    "meta_surrogate/meta_2014.json": [*THREE, "Toy \ufffd"],
    "meta_surrogate/meta_no_asin.json": "line 4: the field 'asin' is missing",
    "meta_surrogate/meta_null_category_item.json": THREE,
    "parsers/meta_bytes.json": ["t0", "t1", "t2", "t3", "t4", ""],
    "parsers/meta_surrogate.json": ["t0", "t1", "t2", "t3", "t4", "\ufffd"],
    "quotes/meta.csv": "row 2 after the header: its quotes do not pair",
    "quotes/meta.item": ['12" monitor', '"Best" cable'],
    "quotes/unclosed.csv": "row 2 after the header: its quotes do not pair",
}
ELSEWHERE = {"movielens/make.sh", "parsers/tensor_larger_than_its_storage.pkl"}


def core_of(name):
    """Where users are few, or rows are sequences, nothing is dropped."""
    return 1 if name.startswith(("tiny", "seq_forms", "recbole_list")) else None


def one_line(message, name):
    return "\n" not in message and len(message) < len(str(CASES)) + 250 and Path(name).name in message


@pytest.fixture
def path(request, monkeypatch):
    """How JSON lines are read."""
    if request.param == "line by line":
        monkeypatch.setattr(JsonLines, "_read_strictly", lambda self, block: None)


def both_paths(expected):
    """(file, how it is read) pairs: JSON lines in both ways."""
    return [(name, path) for name in expected for path in ("whole", "line by line")[: 1 + (expected[name][0] == "amazon")]]


def other_files():
    """Files of the shared cases that stand in none of the lists: new ones."""
    known = READ.keys() | REFUSED.keys() | TABLES.keys() | META.keys() | ELSEWHERE
    files = {str(path.relative_to(CASES)) for path in CASES.glob("*/*") if path.is_file() and path.name != "README"}
    return sorted(name for name in files - known if name.split("/")[0] not in NOT_DATA)


def test_other_files_are_read_or_refused_in_one_line():
    for name in other_files():
        try:
            sequences_of(CASES / name, "auto", k_core=1)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < len(str(CASES)) + 250, name


@pytest.mark.parametrize("name, path", both_paths(READ), indirect=["path"])
def test_what_is_read(name, path):
    """With its format named and guessed; JSON also line by line, which is what one broken line elsewhere brings about."""
    kind, *counts = READ[name]
    sequences, source = sequences_of(CASES / name, "auto", k_core=core_of(name))
    items = [item for sequence in sequences.values() for item in sequence]
    assert (source.format, len(sequences), len(set(items)), len(items)) == (kind, *counts)
    assert sequences == sequences_of(CASES / name, kind, k_core=core_of(name))[0]
    if not name.startswith(NOT_IN_PLAIN_READER):
        assert sequences == plain_sequences(CASES / name, kind)


@pytest.mark.parametrize("name, path", both_paths(REFUSED), indirect=["path"])
def test_what_is_refused(name, path):
    kind, what = REFUSED[name]
    with pytest.raises(InputError) as error:
        sequences_of(CASES / name, kind, k_core=core_of(name))
    message = str(error.value)
    assert what in message
    assert one_line(message, name) or message.startswith("user "), message  # a user of the result has no file


@pytest.mark.parametrize("name", TABLES)
def test_item_tables(name):
    flags = {"kind": "sequences", "item_table": str(CASES / name)}
    if TABLES[name] is None:
        sequences, _ = sequences_of(CASES / "baseline/seq.json", **flags)
        assert sequences == plain_sequences(CASES / "baseline/seq.json", "sequences", CASES / "baseline/item2index")
        return
    with pytest.raises(InputError) as error:
        sequences_of(CASES / "baseline/seq.json", **flags)
    assert TABLES[name] in str(error.value) and one_line(str(error.value), name)


@pytest.mark.parametrize("path", ["whole", "line by line"], indirect=True)
@pytest.mark.parametrize("name", META)
def test_meta_files(name, path):
    items = [f"i{number}" for number in range(6)] if name.startswith("parsers") else [f"B{number:05d}" for number in range(12)]
    arguments = str(CASES / name), pl.Series(items), MetaColumns(), 0.01
    if isinstance(META[name], str):
        with pytest.raises(InputError) as error:
            read_meta(*arguments)
        assert META[name] in str(error.value) and one_line(str(error.value), name)
        return
    meta = read_meta(*arguments)
    assert meta.titles.to_list()[: len(META[name])] == META[name]
    strangers = ("lcrec", "numeric_asin", "other_items")
    assert meta.matched == (0 if Path(name).name.startswith(strangers) else len(items))
    if name == "meta_mix/movies.csv":
        assert meta.attributes.of(1) == ["A", "B"]


def test_numbered_meta_belongs_to_numbered_items():
    """LC-Rec's item file has the numbers of its sequence file for keys."""
    meta = read_meta(str(CASES / "meta_mix/lcrec.item.json"), pl.Series(["0", "1", "99"]), MetaColumns(), 0.01)
    assert (meta.titles.to_list(), meta.matched) == (["T0", "T1", ""], 2)
    assert meta.attributes.of(1) == ["b"]


def test_encodings_by_flag():
    for name in ("latin1/reviews.csv", "latin1/reviews.json", "latin1/x.inter"):
        sequences, _ = sequences_of(CASES / name, "auto", encoding="latin1")
        assert len(sequences) == 24 and "Ué0006" in sequences
    expected, _ = sequences_of(CASES / "baseline/reviews.csv", "csv")
    for name in ("utf16/reviews.csv", "utf16/reviews.json"):
        assert sequences_of(CASES / name, "auto", encoding="utf-16")[0] == expected
    meta = read_meta(str(CASES / "meta_mix/movies.dat"), pl.Series(["B00000"]), MetaColumns(), 0.01, "latin1")
    assert meta.titles.to_list() == ["T0 Café (1999)"] and meta.attributes.of(1) == ["A", "B"]


def test_headerless_files_by_flag():
    expected, _ = sequences_of(CASES / "baseline/reviews.csv", "csv")
    for name in ("header_missing/reviews.csv", "header_missing/x.inter"):
        assert sequences_of(CASES / name, "auto", no_header=True)[0] == expected


def test_subsecond_times_keep_their_order():
    assert sequences_of(CASES / "subsecond/ms.csv", "csv")[0] == sequences_of(CASES / "subsecond/float_seconds.csv", "csv")[0]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_movielens_layouts(tmp_path):
    subprocess.run(["bash", CASES / "movielens/make.sh", CASES / "baseline/x.inter", tmp_path], check=True)
    expected, _ = sequences_of(CASES / "baseline/x.inter", "recbole")
    assert sequences_of(tmp_path / "ratings.csv", "auto")[0] == expected
    assert sequences_of(tmp_path / "ratings.dat", "auto")[0] == expected
    assert sequences_of(tmp_path / "u.data", "auto", no_header=True)[0] == expected
    pairs, source = sequences_of(tmp_path / "ml-100k.txt", "auto")
    lines = [line.split() for line in (tmp_path / "ml-100k.txt").read_text().splitlines()]
    assert source.format == "sequences"
    assert pairs == {user: [item for other, item in lines if other == user] for user, _ in lines}
