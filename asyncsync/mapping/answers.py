"""What a function's answer means to the event source mapping that invoked it.

AWS reads an answer without the word batchItemFailures as success, and one that names no record
of the batch as failure of all (recorded by LocalStack against AWS, 2025-11-25). Where nobody
has recorded what AWS does, the whole batch failed is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Returned:
    """The function returned, and its answer could be written as JSON."""

    answer: object


@dataclass(frozen=True, slots=True)
class FunctionError:
    """The function raised, ran out of time, or returned what is not JSON."""

    error: str = "Unhandled"


@dataclass(frozen=True, slots=True)
class InvocationThrottled:
    """Lambda did not run the function: no attempt is counted."""


Answer: TypeAlias = Returned | FunctionError | InvocationThrottled


def first_failed(identifiers: Sequence[str], answer: object) -> int:
    """Return where in a batch Lambda goes on; the batch's length where all succeeded."""
    failures = answer.get("batchItemFailures") if isinstance(answer, dict) else None
    if failures is None or failures == []:
        return len(identifiers)
    if not isinstance(failures, list):
        return 0  # assumed
    found = []
    for failure in failures:
        identifier = failure.get("itemIdentifier") if isinstance(failure, dict) else None
        if not isinstance(identifier, str) or identifier not in identifiers:
            return 0  # where others of the list are good: assumed
        found.append(identifier)
    return identifiers.index(min(found, key=int))
