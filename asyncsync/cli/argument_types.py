"""What an argument may be: its text in, its value out; else one line says what is allowed."""

from __future__ import annotations

import argparse


def count(text: str) -> int:
    """Read a whole number of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def whole(text: str) -> int:
    """Read a whole number of 0 or more."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return number


def some(text: str) -> range:
    """Read one whole number, or the first and the last of some."""
    first, _, last = text.partition("-")
    numbers = range(whole(first), whole(last or first) + 1)
    if not numbers:
        raise argparse.ArgumentTypeError("must be a number, or the first and the last, as 0-7")
    return numbers


def records(text: str) -> int:
    """Read how many records a history of the small scope has."""
    number = int(text)
    if not 1 <= number <= 4:
        raise argparse.ArgumentTypeError("must be 1 to 4: with 5 there are a million")
    return number


def more_than_0(text: str) -> float:
    """Read a number greater than 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return number
