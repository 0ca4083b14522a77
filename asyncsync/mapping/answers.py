"""What a function's answer means to the event source mapping that invoked it.

AWS takes an answer without batchItemFailures for success, and one that names no record of the
batch for a failure of the whole batch (recorded by LocalStack against AWS, 2025-11-25). Where
no recording exists, a failure of the whole batch is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Returned:
    """The function returned an answer that JSON can express."""

    answer: object


@dataclass(frozen=True, slots=True)
class FunctionError:
    """The function raised, ran out of time, or returned what JSON cannot express."""

    error: str = "Unhandled"


@dataclass(frozen=True, slots=True)
class InvocationThrottled:
    """Lambda did not run the function; this counts as no attempt."""


Answer: TypeAlias = Returned | FunctionError | InvocationThrottled


def first_failed(identifiers: Sequence[str], answer: object) -> int:
    """Return the index of the first record to retry; the batch's length if all succeeded."""
    failures = answer.get("batchItemFailures") if isinstance(answer, dict) else None
    if failures is None or failures == []:
        return len(identifiers)
    if not isinstance(failures, list):
        return 0  # assumed
    failed = []
    for failure in failures:
        identifier = failure.get("itemIdentifier") if isinstance(failure, dict) else None
        if not isinstance(identifier, str) or identifier not in identifiers:
            return 0  # even if others of the list are good: assumed
        failed.append(identifier)
    return identifiers.index(min(failed, key=int))
