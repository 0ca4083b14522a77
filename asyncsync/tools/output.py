"""Where a command writes: answers to one stream, notes and progress to another."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import orjson

# Between two lines of progress: somebody watches a terminal, a log is paid for by its size.
TERMINAL_INTERVAL_S = 1.0
INTERVAL_S = 10.0


class Output:
    """Writes answers to `out`; writes notes and progress to `err`.

    Time counts from the moment the object is made. `interval_s` is the least time between two
    lines of progress; the default depends on whether `err` is a terminal.
    """

    def __init__(
        self,
        out: TextIO,
        err: TextIO,
        *,
        interval_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if interval_s is None:
            interval_s = TERMINAL_INTERVAL_S if err.isatty() else INTERVAL_S
        self._out = out
        self._err = err
        self._interval_s = interval_s
        self._clock = clock
        self._began_s = self._progress_s = clock()

    def line(self, text: str) -> None:
        """Write one line of the answer."""
        print(text, file=self._out, flush=True)

    def document(self, document: Mapping[str, Any]) -> None:
        """Write one JSON object on one line of the answer."""
        self.line(orjson.dumps(document).decode())

    def note(self, text: str) -> None:
        """Write something that is not part of the answer."""
        print(text, file=self._err, flush=True)

    def progress(self, text: str) -> bool:
        """Write how far the command is, with the time it took; return whether it was due."""
        now_s = self._clock()
        if now_s - self._progress_s < self._interval_s:
            return False
        self._progress_s = now_s
        self._write_progress(self.timed(text))
        return True

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since the object was made."""
        return self._clock() - self._began_s

    def timed(self, text: str) -> str:
        """Return the text with the elapsed seconds in front."""
        return f"{self.elapsed_s:7.1f} s  {text}"

    def _write_progress(self, text: str) -> None:
        self.note(text)


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Return a count with its noun; `nouns` is the plural where an s does not make it."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


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
