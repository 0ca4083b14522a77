"""An Output that keeps what a command writes, for tests that run it in this process."""

from __future__ import annotations

import io
import json
from typing import Any

from asyncsync.tools.output import Output


class RecordedOutput(Output):
    """Keeps answers, notes and progress apart; `interval_s` as in Output, here no wait."""

    def __init__(self, interval_s: float = 0) -> None:
        super().__init__(io.StringIO(), io.StringIO(), interval_s=interval_s)
        self.lines: list[str] = []
        self.notes: list[str] = []
        self.progress_lines: list[str] = []

    def line(self, text: str) -> None:
        """Keep a line of the answer."""
        self.lines.append(text)

    def warn(self, text: str) -> None:
        """Keep a note."""
        self.notes.append(text)

    def _write_progress(self, text: str) -> None:
        self.progress_lines.append(text)

    @property
    def documents(self) -> list[dict[str, Any]]:
        """Return the answer's lines that are JSON objects."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]
