"""What a prompt says around a user's items, for the two tasks of OpenP5; wordings of our own.

Ten templates a task are trained on, one is kept for ranking, so that a model is never asked in words that it learnt by heart.
`{history}` is the user's latest items, oldest first, and `{user}` is "the user", or with --user_ids "user" and a number.
"""

from __future__ import annotations

import re

SEEN = {
    "sequential": (
        "So far {user} has bought {history} . Next, {user} buys",
        "The purchases of {user} in order of time: {history} . What follows is",
        "After {history} , {user} will want",
        "Continue the list of {user} : {history} ,",
        "History of {user} : {history} . Recommended item:",
        "{history} were chosen by {user} . The next choice is",
        "Having taken {history} , {user} takes",
        "Predict what {user} needs now. Before: {history} . Now:",
        "We know that {user} had {history} and suggest",
        "A shop sold {history} to {user} . It should now offer",
    ),
    "straightforward": (
        "A good item for {user} is",
        "Recommend something to {user} :",
        "What {user} will buy is",
        "If {user} came to the shop today, we would show",
        "The item that suits {user} best:",
        "Which item does {user} want? It is",
        "Choose for {user} :",
        "One item that {user} has not seen yet and will like is",
        "The next purchase of {user} is",
        "Our offer to {user} :",
    ),
}
UNSEEN = {
    "sequential": "Given {history} in the past, the following item of {user} is",
    "straightforward": "Something that {user} would pick is",
}
HISTORY, USER = "{history}", "{user}"
SEPARATOR = ","  # between the items of a history


def parts(template: str) -> list[str]:
    """A template cut at its placeholders, which are among the parts; text keeps the blank before it, as tokenizers expect, and
    none after it."""
    return [part for part in re.split(r"\s*(\{history\}|\{user\})", template) if part]
