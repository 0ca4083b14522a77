"""The parser of a command's arguments: errors of one line with a hint, numbers with bounds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn


class CommandParser(argparse.ArgumentParser):
    """Parses a command's arguments; the command line itself is one, too.

    `any_of` are options of which one must be given.
    """

    def __init__(self, *, any_of: Sequence[str] = (), **options: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
            **options,
        )
        self._any_of = any_of

    def commands(self) -> Mapping[str, CommandParser]:
        """Return the parser of each command by name; none for a command itself."""
        for action in self._actions:
            if isinstance(action.choices, Mapping):
                return action.choices
        return {}

    def error(self, message: str) -> NoReturn:
        """Print one line that says what to do, and exit with 2."""
        end = "" if message.endswith("?") else "."
        reason = message.removeprefix("argument ")
        self.exit(2, f"{self.prog}: error: {reason}{end} See {self.prog} --help\n")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, after a look for words that are mistyped."""
        words = sys.argv[1:] if args is None else [*args]
        self._refuse_unknown(words)
        arguments, rest = super().parse_known_args(words, namespace)
        if rest:
            self.error(f"unexpected argument {rest[0]}")
        if self._any_of and all(getattr(arguments, _dest(name)) is None for name in self._any_of):
            self.error(f"give {' or '.join(self._any_of)}")
        return arguments, rest

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        options = {name for action in self._actions for name in action.option_strings}
        commands = self.commands()
        for word in words:
            if word == "--":
                return
            if word.startswith("--"):
                name = word.partition("=")[0]
                if name not in options:
                    self.error(f"there is no option {name}{nearest(name, options)}")
            elif commands and not word.startswith("-"):
                if word not in commands:
                    self.error(f"there is no command {word}{nearest(word, commands)}")
                return


def _dest(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a question that names the nearest known word; empty if none is near."""
    close = get_close_matches(word, [*known], n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


# --- values -----------------------------------------------------------------------------------


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a function that parses a whole number within these bounds."""

    def parse(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {low:,} to {high:,}, not {text}"
            )
        return number

    return parse


def above_zero(high: int) -> Callable[[str], float]:
    """Return a function that parses a number above 0, up to a bound."""

    def parse(text: str) -> float:
        number = _number(text)
        if not 0 < number <= high:
            raise argparse.ArgumentTypeError(
                f"must be a number above 0, at most {high:,}, not {text}"
            )
        return number

    return parse


def from_zero(high: int) -> Callable[[str], float]:
    """Return a function that parses 0 or a number above it, up to a bound."""

    def parse(text: str) -> float:
        number = _number(text)
        if not 0 <= number <= high:
            raise argparse.ArgumentTypeError(f"must be a number from 0 to {high:,}, not {text}")
        return number

    return parse


def _number(text: str) -> float:
    """Return a number, or one that no bound allows."""
    try:
        return float(text) if text.isascii() else -1.0
    except ValueError:
        return -1.0


def segments(high: int) -> Callable[[str], range]:
    """Return a function that parses one number, or a first and a last: "7" or "0-7"."""
    parse_number = whole(0, high - 1)

    def parse(text: str) -> range:
        first, _, last = text.partition("-")
        numbers = range(parse_number(first), parse_number(last or first) + 1)
        if not numbers:
            raise argparse.ArgumentTypeError(f"must be a number or a range as 0-7, not {text}")
        return numbers

    return parse
