"""Where a command writes: answers to one stream, notes and progress to another."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from textwrap import wrap
from typing import Any, Literal, TextIO, TypeAlias

import orjson

# Between two lines of progress: somebody watches a terminal, a log is paid for by its size.
TERMINAL_INTERVAL_S = 1.0
INTERVAL_S = 10.0

# Characters of a terminal's bar. A terminal that is too narrow for bar and text has no bar.
BAR_CHARACTERS = 20

# The version of every JSON object that a command writes (docs/command-line.md). It changes when
# a field changes its meaning or goes; a new field does not change it.
FORMAT = 1

Colour: TypeAlias = Literal["green", "yellow", "red"]
_COLOURS: Mapping[Colour, str] = {"green": "32", "yellow": "33", "red": "31"}

_CLEAR = "\r\x1b[K"  # to the start of the line, and erase it


class Output:
    """Writes answers to `out`; writes notes and progress to `err`.

    Time counts from the moment the object is made. `interval_s` is the least time between two
    lines of progress; the default depends on whether `err` is a terminal. On a terminal one
    line with a bar is updated. `is_quiet` leaves out notes and progress, never warnings and
    errors.
    """

    def __init__(
        self,
        out: TextIO,
        err: TextIO,
        *,
        interval_s: float | None = None,
        is_quiet: bool = False,
        has_colour: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._updates = interval_s is None and err.isatty()
        if interval_s is None:
            interval_s = TERMINAL_INTERVAL_S if self._updates else INTERVAL_S
        self._out = out
        self._err = err
        self._interval_s = interval_s
        self.is_quiet = is_quiet
        self._has_colour = has_colour and out.isatty()
        self._clock = clock
        self._began_s = self._progress_s = clock()
        self._text = ""  # of the progress, which the ticker repeats
        self._share: float | None = None
        self._is_shown = False  # the terminal's last line is a line of progress
        self._turn = threading.RLock()

    def line(self, text: str) -> None:
        """Write one line of the answer."""
        with self._turn:
            self._clear()
            print(text, file=self._out, flush=True)

    def paragraph(self, text: str, indent: int = 0) -> None:
        """Write a line of the answer; on a terminal that is too narrow, as several lines."""
        if not self._out.isatty():
            self.line(text)
            return
        width = _columns(self._out)
        for part in wrap(text, max(width, indent + 20), subsequent_indent=" " * indent):
            self.line(part)

    def document(self, document: Mapping[str, Any]) -> None:
        """Write one JSON object on one line of the answer, with its format's version."""
        self.line(json_line(document))

    def note(self, text: str) -> None:
        """Write something that is not part of the answer."""
        if not self.is_quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Write something that must be seen, even with --quiet."""
        with self._turn:
            self._clear()
            print(text, file=self._err, flush=True)

    def painted(self, text: str, colour: Colour) -> str:
        """Return the text in a colour, where the answer goes to a terminal that wants it."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._has_colour else text

    # --- progress -----------------------------------------------------------------------------

    def progress(self, text: str, share: float | None = None) -> bool:
        """Write how far the command is, with the time it took; return whether it was due.

        `share` is the part that is done, from 0 to 1, if that is known.
        """
        with self._turn:
            self._text, self._share = text, share
            now_s = self._clock()
            if now_s - self._progress_s < self._interval_s:
                return False
            self._progress_s = now_s
            if not self.is_quiet:
                percent = "" if share is None else f"{int(share * 100):>2} %  "
                self._write_progress(self.timed(f"{percent}{text}"))
            return True

    def waits_for(self, text: str) -> None:
        """Say what the command waits for, if it takes long: the ticker writes it."""
        self._text, self._share = f"waiting for {text}", None

    @contextmanager
    def ticking(self) -> Iterator[None]:
        """Repeat the last progress when it is due, until the block ends: silence is no news."""
        ended = threading.Event()

        def tick() -> None:
            while not ended.wait(self._interval_s):
                if self._text:
                    self.progress(self._text, self._share)

        thread = threading.Thread(target=tick, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with self._turn:
                self._clear()

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since the object was made."""
        return self._clock() - self._began_s

    def timed(self, text: str) -> str:
        """Return the text with the elapsed seconds in front."""
        return f"{self.elapsed_s:7.1f} s  {text}"

    def _write_progress(self, text: str) -> None:
        if not self._updates:
            print(text, file=self._err, flush=True)
            return
        width = _columns(self._err) - 1
        if self._share is not None and len(text) + BAR_CHARACTERS + 3 <= width:
            text = f"{_bar(self._share)} {text}"
        print(f"{_CLEAR}{text[:width]}", end="", file=self._err, flush=True)
        self._is_shown = True

    def _clear(self) -> None:
        if self._is_shown:
            print(_CLEAR, end="", file=self._err, flush=True)
            self._is_shown = False


def _columns(stream: TextIO) -> int:
    """Return the width of a terminal; stdout may be another than stderr, or a file."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return columns or shutil.get_terminal_size().columns


def _bar(share: float) -> str:
    done = int(share * BAR_CHARACTERS)
    return f"[{'#' * done}{'-' * (BAR_CHARACTERS - done)}]"


def json_line(document: Mapping[str, Any]) -> str:
    """Return one JSON object as a line, with its format's version."""
    return orjson.dumps({"format": FORMAT, **document}).decode()


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Return a count with its noun; `nouns` is the plural where an s does not make it."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def share_of(done: int, expected: int) -> float | None:
    """Return the part that is done; None if more is done than was expected, or none was."""
    return done / expected if 0 <= done < expected else None


def rate_and_left(done: int, expected: int, took_s: float) -> str:
    """Return the rate of a work and how long its rest may take; `expected` 0 is unknown."""
    rate = done / took_s if took_s > 0 else 0.0
    if not rate or expected <= done:
        return f"{rate:,.0f}/s"
    return f"{rate:,.0f}/s, about {_duration((expected - done) / rate)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
