"""Resolves a translated template for given parameters, as CloudFormation does.

Conditions and parameters have their values, and resources without their condition are left out.
A value that only AWS knows stays a CloudFormation function (for cfn-lint), or becomes an example.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
TOOLS = ROOT / ".venv-template" / "bin"

_ACCOUNT = "us-east-1:111122223333"

PSEUDO = {
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::AccountId": "111122223333",
    "AWS::StackName": "players",
    "AWS::StackId": f"arn:aws:cloudformation:{_ACCOUNT}:stack/players/51af3dc0-da77-11e4",
}

# AWS's values, where an assertion reads them; every other one is "${Resource.Attribute}".
EXAMPLES = {
    "ServerlessCache": "asyncsync-51af3dc0",
    "ServerlessCache.Endpoint.Address": "a-51af3dc0.serverless.use1.cache.amazonaws.com",
    "ServerlessCache.Endpoint.Port": "6379",
    "ServerlessCache.ARN": f"arn:aws:elasticache:{_ACCOUNT}:serverlesscache:asyncsync-51af3dc0",
    "NodeCache": "players-nodecache-x1",
    "NodeCache.PrimaryEndPoint.Address": "master.players-nodecache-x1.use1.cache.amazonaws.com",
    "NodeCache.PrimaryEndPoint.Port": "6379",
    "NodeCache.ConfigurationEndPoint.Address": "clustercfg.x1.use1.cache.amazonaws.com",
    "NodeCache.ConfigurationEndPoint.Port": "6379",
    "MirrorUser": "asyncsync-51af3dc0",
    "MirrorUser.Arn": "arn:aws:elasticache:us-east-1:111122223333:user:asyncsync-51af3dc0",
    "OperationsUser": "asyncsync-operations-51af3dc0",
    "OperationsUser.Arn": f"arn:aws:elasticache:{_ACCOUNT}:user:asyncsync-operations-51af3dc0",
    "LookUser": "asyncsync-look-51af3dc0",
    "LookUser.Arn": "arn:aws:elasticache:us-east-1:111122223333:user:asyncsync-look-51af3dc0",
    "Players": "players-Players-X1",
    "Players.Arn": "arn:aws:dynamodb:us-east-1:111122223333:table/players-Players-X1",
    "Players.StreamArn": "arn:aws:dynamodb:us-east-1:111122223333:table/players-Players-X1"
    "/stream/2026-01-01T00:00:00.000",
}

_NOTHING = object()  # AWS::NoValue


def tool(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a tool of the template's environment."""
    return subprocess.run(
        [str(TOOLS / command[0]), *command[1:]],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "AWS_DEFAULT_REGION": "us-east-1", "SAM_CLI_TELEMETRY": "0"},
    )


def translate(template: Path) -> subprocess.CompletedProcess[str]:
    """Translate a template into what CloudFormation gets, on standard output."""
    return tool("python", str(ROOT / "scripts/translate.py"), str(template))


class Resolver:
    """One template with one set of parameters; `known` replaces functions by examples."""

    def __init__(
        self, template: Mapping[str, Any], parameters: Mapping[str, str], *, known: bool
    ) -> None:
        declared = template["Parameters"]
        assert set(parameters) <= set(declared), "an undeclared parameter"
        for name, value in parameters.items():
            allowed = declared[name].get("AllowedPattern")
            assert allowed is None or re.search(allowed, value), f"{name}: {value}"
            assert value in map(str, declared[name].get("AllowedValues", [value])), name
        self._values = {n: parameters.get(n, body.get("Default")) for n, body in declared.items()}
        self._template = template
        self._known = known
        self.conditions = {name: self._is_true(name) for name in template["Conditions"]}
        self._present = {
            name
            for name, body in template["Resources"].items()
            if "Condition" not in body or self.conditions[body["Condition"]]
        }

    def _is_true(self, name: str) -> bool:
        value = self.value(self._template["Conditions"][name])
        assert isinstance(value, bool), name
        return value

    def broken_rules(self) -> list[str]:
        """Return what the template's rules say against these parameters."""
        messages = []
        for rule in self._template["Rules"].values():
            if self.value(rule["RuleCondition"]):
                messages += [
                    assertion["AssertDescription"]
                    for assertion in rule["Assertions"]
                    if not self.value(assertion["Assert"])
                ]
        return messages

    def resources(self) -> dict[str, Any]:
        """Return the resources that exist with these parameters, resolved."""
        return {
            name: {key: self.value(part) for key, part in body.items() if key != "Condition"}
            for name, body in self._template["Resources"].items()
            if name in self._present
        }

    def outputs(self) -> dict[str, Any]:
        """Return the outputs that exist with these parameters, resolved."""
        return {
            name: self.value(body["Value"])
            for name, body in self._template["Outputs"].items()
            if "Condition" not in body or self.conditions[body["Condition"]]
        }

    def template(self) -> dict[str, Any]:
        """Return the resolved template, for cfn-lint."""
        return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": self.resources()}

    def value(self, node: Any) -> Any:
        """Resolve a part of the template."""
        if isinstance(node, list):
            members = [self.value(member) for member in node]
            return [member for member in members if member is not _NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((name, argument),) = node.items()
            function = getattr(self, "_" + name.removeprefix("Fn::").lower(), None)
            if (name == "Ref" or name == "Condition" or name.startswith("Fn::")) and function:
                return function(argument)
            assert not name.startswith("Fn::") or name == "Fn::GetAZs", name
        pairs = {key: self.value(member) for key, member in node.items()}
        return {key: member for key, member in pairs.items() if member is not _NOTHING}

    # --- CloudFormation's functions ------------------------------------------------------------

    def _ref(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return _NOTHING
        if name in PSEUDO:
            return PSEUDO[name]
        if name in self._values:
            return self._values[name]
        return self._of_resource(name, {"Ref": name})

    def _getatt(self, argument: Sequence[str]) -> Any:
        return self._of_resource(".".join(argument), {"Fn::GetAtt": argument})

    def _of_resource(self, name: str, function: object) -> Any:
        assert name.split(".")[0] in self._present, f"{name} does not exist with these parameters"
        return EXAMPLES.get(name, "${" + name + "}") if self._known else function

    def _sub(self, argument: Any) -> Any:
        text, names = argument if isinstance(argument, list) else (argument, {})
        is_partial = False

        def replacement(match: re.Match[str]) -> str:
            nonlocal is_partial
            name = match[1]
            value = self.value(names[name]) if name in names else None
            if value is None:
                reference = {"Fn::GetAtt": name.split(".", 1)} if "." in name else {"Ref": name}
                value = self.value(reference)
            if isinstance(value, str | int):
                return str(value)
            is_partial = True
            ((function, inner),) = value.items()
            if function == "Fn::Sub":
                return str(inner)
            return "${" + (inner if function == "Ref" else ".".join(inner)) + "}"

        result = re.sub(r"\$\{([\w:.]+)\}", replacement, text)
        return {"Fn::Sub": result} if is_partial else result

    def _if(self, argument: Sequence[Any]) -> Any:
        condition, then, otherwise = argument
        return self.value(then if self.conditions[condition] else otherwise)

    def _findinmap(self, argument: Sequence[Any]) -> Any:
        name, row, column = (self.value(part) for part in argument)
        return self._template["Mappings"][name][row][column]

    def _condition(self, name: str) -> bool:
        return self._is_true(name)

    def _equals(self, argument: Sequence[Any]) -> bool:
        left, right = (self.value(part) for part in argument)
        return str(left) == str(right)  # a parameter's value is text, a number's too

    def _contains(self, argument: Sequence[Any]) -> bool:
        values, value = (self.value(part) for part in argument)
        return value in values

    def _not(self, argument: Sequence[Any]) -> bool:
        return not self.value(argument[0])

    def _and(self, argument: Sequence[Any]) -> bool:
        return all(self.value(part) for part in argument)

    def _or(self, argument: Sequence[Any]) -> bool:
        return any(self.value(part) for part in argument)

    def _join(self, argument: Sequence[Any]) -> Any:
        separator, values = argument[0], self.value(argument[1])
        if all(isinstance(value, str) for value in values):
            return separator.join(values)
        return {"Fn::Join": [separator, values]}

    def _split(self, argument: Sequence[Any]) -> Any:
        text = self.value(argument[1])
        return (
            text.split(argument[0])
            if isinstance(text, str)
            else {"Fn::Split": [argument[0], text]}
        )

    def _select(self, argument: Sequence[Any]) -> Any:
        values = self.value(argument[1])
        if isinstance(values, dict):  # zones and addresses, which only AWS knows
            return {"Fn::Select": [argument[0], values]}
        return values[int(argument[0])]

    def _cidr(self, argument: Sequence[Any]) -> Any:
        return {"Fn::Cidr": self.value(argument)}


def pair_cover(conditions_of: Mapping[str, Mapping[str, bool]]) -> Iterator[str]:
    """Choose cases until they show every pair of conditions with all values that a case has."""
    pairs = {
        case: set(itertools.combinations(sorted(conditions.items()), 2))
        for case, conditions in conditions_of.items()
    }
    missing = set().union(*pairs.values())
    while missing:
        best = max(pairs, key=lambda case: len(pairs[case] & missing))
        missing -= pairs[best]
        yield best
