"""Faults put into data files: bytes and spans, lines, cells, compression."""

import gzip
import re

BYTES = [
    bytes([number]) for number in (*b"\"'\\,;:\t\r\n {}[]()0179.-+eEaZ|#", 0, 7, 11, 12, 28, 31, 127, 133, 160, 195, 233, 255)
]
TOKENS = [
    text.encode()
    for text in (
        '"', '""', '\\"', '""""', '"a""b"', '"a\\"b"', "nan", "NaN", "null", "None", "true", "[7]", '{"a": 1}', "", "  ", " x ",
        "1e400", "-0", "7.0", "1e3", "0x10", "1_0", "9" * 25, "9" * 400, "5,0", "5.5", '"5.0"', "1500000000.25", "1500000000000",
        "1500000000000000001", "-5", "2017-07-14", "2017-07-14 02:40:00", "2017-07-14T02:40:00Z", "2017-13-40", "Infinity",
        "\x00", "\ufeff", "\u2028", "\x85", "\x0b", "\x0c", "\u00a0", "\u00e9", "\\ud83d", '"\\ud83d"', "\\u0000", "é", "😀",
        "::", ",,",
        "\t\t", "<NA>", "\\N", "a b", '{"asin": "x"}', "0", "00", "+5", ".5", "5.", "٥", "7,", "[7", "'7'", "7:",
    )
]  # fmt: skip


def mutated(content, rng):
    """The content with one to three faults."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(FAULTS)(content, rng)
    return content


def byte_inserted(content, rng):
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice(BYTES) + content[at:]


def byte_replaced(content, rng):
    at = rng.randrange(len(content) or 1)
    return content[:at] + rng.choice(BYTES) + content[at + 1 :]


def byte_dropped(content, rng):
    at = rng.randrange(len(content) or 1)
    return content[:at] + content[at + 1 :]


def cell_replaced(content, rng):
    """One cell, value or token becomes another; quotes around it go with it, or stay."""
    cells = list(re.finditer(rb'"[^"\n]*"|[^\s,:{}"\[\]]+', content))
    if not cells:
        return content
    cell = rng.choice(cells)
    token = rng.choice(TOKENS)
    if cell.group().startswith(b'"') and rng.random() < 0.5:
        token = b'"' + token + b'"'
    return content[: cell.start()] + token + content[cell.end() :]


def token_inserted(content, rng):
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice(TOKENS) + content[at:]


def span_dropped(content, rng):
    at = rng.randrange(len(content) or 1)
    return content[:at] + content[at + rng.randrange(1, 60) :]


def span_repeated(content, rng):
    at = rng.randrange(len(content) or 1)
    span = content[at : at + rng.randrange(1, 60)]
    return content[:at] + span + content[at:]


def cut(content, rng):
    return content[: rng.randrange(len(content) or 1)]


def line_changed(content, rng):
    """A line is dropped, repeated, moved, emptied, joined with the next, or gets something at one of its ends."""
    lines = content.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    what = rng.randrange(7)
    if what == 0:
        del lines[at]
    elif what == 1:
        lines.insert(other, lines[at])
    elif what == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif what == 3:
        lines.insert(at, b"")
    elif what == 4 and at + 1 < len(lines):
        lines[at : at + 2] = [lines[at] + lines[at + 1]]
    elif what == 5:
        lines[at] += rng.choice((b",", b"\r", b" ", b"}", b"x", b"\t", b",x", b"\x00"))
    else:
        lines[at] = rng.choice((b" ", b"{", b'"', b"[", b"#", b"\xef\xbb\xbf")) + lines[at]
    return b"\n".join(lines)


def ends_changed(content, rng):
    return rng.choice(
        (
            lambda: content.replace(b"\n", b"\r\n"),
            lambda: content.replace(b"\n", b"\r"),
            lambda: content.rstrip(b"\n"),
            lambda: content + b"\n \n\n",
            lambda: b"\xef\xbb\xbf" + content,
            lambda: b"\n\n" + content,
            lambda: content + content,
            lambda: b"",
        )
    )()


def packed(content, rng):
    """Compressed, and then perhaps cut or damaged."""
    data = gzip.compress(content, compresslevel=1, mtime=0)
    what = rng.randrange(5)
    at = rng.randrange(12, len(data))
    if what == 0:
        return data[:at]
    if what == 1:
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if what == 2:
        return data + b"garbage" * 3
    return gzip.compress(data, mtime=0) if what == 3 else data


FAULTS = (
    byte_inserted, byte_replaced, byte_dropped, cell_replaced, cell_replaced, cell_replaced, token_inserted, span_dropped,
    span_repeated, cut, line_changed, line_changed, ends_changed, packed,
)  # fmt: skip
