"""A state machine's definition, walked here: as much of Amazon's language as the template uses.

Raises LookupError at what it does not know, so that a definition cannot use more unseen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# States that one walk may enter: a definition that never ends is found out.
STATES_MAX = 1_000

# What a Task's resource does, from its parameters to its result; raises what Lambda would say.
Resource = Callable[[Any], Any]

_KNOWN = {
    "Pass": {"InputPath", "Parameters", "Next", "End"},
    "Task": {
        *("Resource", "Parameters", "ResultSelector", "ResultPath", "OutputPath"),
        *("TimeoutSeconds", "Retry", "Next"),
    },
    "Choice": {"Choices", "Default"},
    "Map": {
        *("ItemsPath", "ItemSelector", "MaxConcurrency", "ItemProcessor"),
        *("ResultSelector", "Next"),
    },
    "Fail": {"Error", "Cause", "CausePath"},
    "Succeed": set(),
}


class Failed(Exception):
    """An execution ended in a Fail state."""


@dataclass
class Walk:
    """Runs a definition, with functions in place of what its tasks call."""

    resources: Mapping[str, Resource]
    seen: list[str] = field(default_factory=list)  # each state, as it was entered

    def run(self, machine: Any, given: Any, context: Any = None) -> Any:
        """Walk to the end and return the output. Raises Failed."""
        name, value = machine["StartAt"], json.loads(json.dumps(given))
        while True:
            state = machine["States"][name]
            unknown = state.keys() - _KNOWN[state["Type"]] - {"Type"}
            if unknown:
                raise LookupError(f"{name}: {unknown} of {state['Type']}")
            self.seen.append(name)
            if len(self.seen) > STATES_MAX:
                raise LookupError("it goes round and round")
            value, following = getattr(self, "_" + state["Type"].lower())(state, value, context)
            if following is None:
                return value
            name = following

    def _pass(self, state: Any, value: Any, context: Any) -> tuple[Any, str | None]:
        value = _path(state.get("InputPath", "$"), value, context)
        if "Parameters" in state:
            value = _filled(state["Parameters"], value, context)
        return value, state.get("Next")

    def _task(self, state: Any, value: Any, context: Any) -> tuple[Any, str]:
        given = _filled(state["Parameters"], value, context)
        result = self._tried(state, given)
        if "ResultSelector" in state:
            result = _filled(state["ResultSelector"], result, context)
        if "ResultPath" in state:
            value[state["ResultPath"].removeprefix("$.")] = result
            result = value
        return _path(state.get("OutputPath", "$"), result, context), state["Next"]

    def _tried(self, state: Any, given: Any) -> Any:
        attempts = sum(each["MaxAttempts"] for each in state.get("Retry", []))
        for left in range(attempts, -1, -1):
            try:
                return self.resources[state["Resource"].rpartition(":::")[2]](given)
            except Exception:
                if not left:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _choice(self, state: Any, value: Any, context: Any) -> tuple[Any, str]:
        for rule in state["Choices"]:
            if _holds(rule, value):
                return value, rule["Next"]
        return value, state["Default"]

    def _map(self, state: Any, value: Any, context: Any) -> tuple[Any, str]:
        results = []
        for at, item in enumerate(_path(state["ItemsPath"], value, context)):
            inner = {"Map": {"Item": {"Value": item, "Index": at}}}
            given = _filled(state["ItemSelector"], value, inner)
            results.append(self.run(state["ItemProcessor"], given))
        return _filled(state["ResultSelector"], results, context), state["Next"]

    def _fail(self, state: Any, value: Any, context: Any) -> tuple[Any, None]:
        cause = _path(state["CausePath"], value, context) if "CausePath" in state else ""
        raise Failed(state["Error"], state.get("Cause", cause))

    def _succeed(self, state: Any, value: Any, context: Any) -> tuple[Any, None]:
        return value, None


def _holds(rule: Any, value: Any) -> bool:
    if "And" in rule:
        return all(_holds(each, value) for each in rule["And"])
    if "Not" in rule:
        return not _holds(rule["Not"], value)
    held = _path(rule["Variable"], value, None)
    ((_, wanted),) = [(k, v) for k, v in rule.items() if re.search("(String|Numeric|Boolean)E", k)]
    return bool(held == wanted and type(held) is type(wanted))


def _filled(template: Any, value: Any, context: Any) -> Any:
    if isinstance(template, dict):
        return {
            name.removesuffix(".$"): (
                _evaluated(each, value, context)
                if name.endswith(".$")
                else _filled(each, value, context)
            )
            for name, each in template.items()
        }
    return template


def _evaluated(text: str, value: Any, context: Any) -> Any:
    """A path, a literal, or one of the intrinsic functions."""
    call = re.fullmatch(r"States\.(\w+)\((.*)\)", text)
    if call is None:
        if re.fullmatch(r"-?\d+", text):
            return int(text)
        return text[1:-1] if text.startswith("'") else _path(text, value, context)
    arguments = [_evaluated(each, value, context) for each in _split(call[2])]
    return _INTRINSICS[call[1]](*arguments)


_INTRINSICS: Mapping[str, Callable[..., Any]] = {
    "Array": lambda *them: [*them],
    "ArrayContains": lambda array, wanted: wanted in array,
    "ArrayRange": lambda first, last, step: [*range(first, last + 1, step)],
    "Format": lambda form, *them: form.replace("{}", "%s") % them,
    "MathAdd": lambda one, other: one + other,
}


def _split(arguments: str) -> list[str]:
    """At the commas that no parenthesis is around."""
    parts, depth = [""], 0
    for character in arguments:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [each.strip() for each in parts]


def _path(path: str, value: Any, context: Any) -> Any:
    if path.startswith("$$"):
        return _path(path[1:], context, None)
    for step in re.findall(r"\.(\w+)|\[(\d+|\*)\]", path):
        name, index = step
        if index == "*":
            rest = path.split("[*]", 1)[1]
            return [_path("$" + rest, each, context) for each in value]
        value = value[name] if name else value[int(index)]
    return value
