"""What can go wrong from outside, as one line for the user."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that says what and where."""
