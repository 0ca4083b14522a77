"""The result of one check of `asyncsync check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["ok", "note", "fix"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check's result: `ok`, `note` (for information) or `fix` (wrong)."""

    state: Severity
    subject: str
    message: str

    def __str__(self) -> str:
        return f"{self.state:5} {self.subject:12} {self.message}"
