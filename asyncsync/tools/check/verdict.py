"""The result of one check of `asyncsync check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["ok", "note", "fix", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check's result: `ok`, `note` (for information), `fix` (wrong) or `unknown`.

    Unknown is what could not be looked at, though it was asked for. It is not ok.
    """

    state: Severity
    subject: str
    message: str

    def __str__(self) -> str:
        return (
            f"{'?' if self.state == 'unknown' else self.state:5} {self.subject:12} {self.message}"
        )


def unknown(subject: str, why: str) -> Verdict:
    """Return the verdict on something that could not be looked at."""
    return Verdict("unknown", subject, f"could not look: {why}")
