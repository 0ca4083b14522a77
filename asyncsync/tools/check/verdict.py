"""What asyncsync check says: one line about one thing, and whether it is to be changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that was looked at; only fix is wrong, note is for a person to know."""

    state: Literal["ok", "note", "fix"]
    subject: str
    says: str

    def __str__(self) -> str:
        return f"{self.state:5} {self.subject:12} {self.says}"
