"""Runs a state machine's definition: as much of Amazon States Language as the template uses.

Raises LookupError at anything else, so that the template cannot use more without a test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# States that one run may enter: more means that the definition never ends.
STATES_MAX = 1_000

# What a Task calls: takes its parameters, returns its result, raises as Lambda would fail.
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
    """Runs a definition with functions instead of the resources that its tasks call."""

    resources: Mapping[str, Resource]
    entered: list[str] = field(default_factory=list)  # states, in order

    def run(self, machine: Any, input_: Any, context: Any = None) -> Any:
        """Run to the end and return the output. Raises Failed."""
        name, value = machine["StartAt"], json.loads(json.dumps(input_))
        while True:
            state = machine["States"][name]
            unknown = state.keys() - _KNOWN[state["Type"]] - {"Type"}
            if unknown:
                raise LookupError(f"{name}: {unknown} of {state['Type']}")
            self.entered.append(name)
            if len(self.entered) > STATES_MAX:
                raise LookupError("the definition never ends")
            value, next_name = getattr(self, "_" + state["Type"].lower())(state, value, context)
            if next_name is None:
                return value
            name = next_name

    def _pass(self, state: Any, value: Any, context: Any) -> tuple[Any, str | None]:
        value = _path(state.get("InputPath", "$"), value, context)
        if "Parameters" in state:
            value = _fill(state["Parameters"], value, context)
        return value, state.get("Next")

    def _task(self, state: Any, value: Any, context: Any) -> tuple[Any, str]:
        parameters = _fill(state["Parameters"], value, context)
        result = self._call(state, parameters)
        if "ResultSelector" in state:
            result = _fill(state["ResultSelector"], result, context)
        if "ResultPath" in state:
            value[state["ResultPath"].removeprefix("$.")] = result
            result = value
        return _path(state.get("OutputPath", "$"), result, context), state["Next"]

    def _call(self, state: Any, parameters: Any) -> Any:
        retries = sum(rule["MaxAttempts"] for rule in state.get("Retry", []))
        for remaining in range(retries, -1, -1):
            try:
                return self.resources[state["Resource"].rpartition(":::")[2]](parameters)
            except Exception:
                if not remaining:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _choice(self, state: Any, value: Any, context: Any) -> tuple[Any, str]:
        for rule in state["Choices"]:
            if _matches(rule, value):
                return value, rule["Next"]
        return value, state["Default"]

    def _map(self, state: Any, value: Any, context: Any) -> tuple[Any, str]:
        results = []
        for at, item in enumerate(_path(state["ItemsPath"], value, context)):
            inner = {"Map": {"Item": {"Value": item, "Index": at}}}
            item_input = _fill(state["ItemSelector"], value, inner)
            results.append(self.run(state["ItemProcessor"], item_input))
        return _fill(state["ResultSelector"], results, context), state["Next"]

    def _fail(self, state: Any, value: Any, context: Any) -> tuple[Any, None]:
        cause = _path(state["CausePath"], value, context) if "CausePath" in state else ""
        raise Failed(state["Error"], state.get("Cause", cause))

    def _succeed(self, state: Any, value: Any, context: Any) -> tuple[Any, None]:
        return value, None


def _matches(rule: Any, value: Any) -> bool:
    if "And" in rule:
        return all(_matches(part, value) for part in rule["And"])
    if "Not" in rule:
        return not _matches(rule["Not"], value)
    actual = _path(rule["Variable"], value, None)
    ((_, expected),) = [
        (k, v) for k, v in rule.items() if re.search("(String|Numeric|Boolean)E", k)
    ]
    return bool(actual == expected and type(actual) is type(expected))


def _fill(template: Any, value: Any, context: Any) -> Any:
    if isinstance(template, dict):
        return {
            name.removesuffix(".$"): (
                _evaluate(each, value, context)
                if name.endswith(".$")
                else _fill(each, value, context)
            )
            for name, each in template.items()
        }
    return template


def _evaluate(text: str, value: Any, context: Any) -> Any:
    """Evaluate a path, a literal, or an intrinsic function."""
    call = re.fullmatch(r"States\.(\w+)\((.*)\)", text)
    if call is None:
        if re.fullmatch(r"-?\d+", text):
            return int(text)
        return text[1:-1] if text.startswith("'") else _path(text, value, context)
    arguments = [_evaluate(each, value, context) for each in _split(call[2])]
    return _INTRINSICS[call[1]](*arguments)


_INTRINSICS: Mapping[str, Callable[..., Any]] = {
    "Array": lambda *them: [*them],
    "ArrayContains": lambda array, value: value in array,
    "ArrayRange": lambda first, last, step: [*range(first, last + 1, step)],
    "Format": lambda form, *them: form.replace("{}", "%s") % them,
    "MathAdd": lambda one, other: one + other,
}


def _split(arguments: str) -> list[str]:
    """Split at the commas outside of parentheses."""
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
