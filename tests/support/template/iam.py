"""Decides what a policy of the template allows, as AWS's IAM does for one request.

A request is an action on a resource, with the context keys that AWS sends. The resource is a
literal string: a check on `bucket/*` is met only by a pattern that covers the star itself. What
this does not know, such as another condition operator, raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

_CONTEXT: Mapping[str, str] = {}


def is_allowed(
    statements: Iterable[Any], action: str, resource: str, context: Mapping[str, str] = _CONTEXT
) -> bool:
    """Whether an Allow covers the request and no Deny does."""
    effects = {
        statement["Effect"]
        for statement in statements
        if _covers(statement, action, resource) and _holds(statement, context)
    }
    return effects == {"Allow"}


def statements_of(role: Any, *policies: Any) -> list[Any]:
    """Return a role's statements, with those of separate policies."""
    documents = [each["PolicyDocument"] for each in role["Properties"].get("Policies", [])]
    documents += [each["Properties"]["PolicyDocument"] for each in policies]
    return [statement for document in documents for statement in document["Statement"]]


def listed(value: Any) -> list[Any]:
    """Return a list of what may be one value or a list."""
    return value if isinstance(value, list) else [value]


def matches(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    """Whether a pattern of IAM's, with * and ?, covers a whole string."""
    return _compiled(pattern, ignore_case).fullmatch(text) is not None


@cache
def _compiled(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    parts = [{"*": ".*", "?": "."}.get(each, re.escape(each)) for each in pattern]
    return re.compile("".join(parts), re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def _covers(statement: Any, action: str, resource: str) -> bool:
    unknown = statement.keys() - {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
    if unknown:
        raise LookupError(f"{unknown} of a statement")
    actions, resources = listed(statement["Action"]), listed(statement["Resource"])
    return any(matches(each, action, ignore_case=True) for each in actions) and any(
        matches(each, resource) for each in resources
    )


def _holds(statement: Any, context: Mapping[str, str]) -> bool:
    for operator, wanted in statement.get("Condition", {}).items():
        if operator not in ("StringEquals", "ArnLike"):
            raise LookupError(f"{operator} of a condition")
        for key, values in wanted.items():
            given = context.get(key)  # a key that AWS does not send matches nothing
            if given is None or not any(
                matches(each, given) if operator == "ArnLike" else each == given
                for each in listed(values)
            ):
                return False
    return True
