"""The template's state machine against a validator of the Amazon States Language."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.template.cloudformation import Resolver, tool


def definition_of(translated: Any) -> Any:
    resources = Resolver(translated, {"OperationsMap": "true"}, known=True).resources()
    return resources["OperationsMachine"]["Properties"]["Definition"]


def names(machine: Any) -> Iterator[str]:
    """The names of all states, those of inner machines included."""
    for name, state in machine["States"].items():
        yield name
        for inner in (state.get("ItemProcessor"), *state.get("Branches", [])):
            if inner:
                yield from names(inner)


def validate(machine: Any, folder: Path) -> str:
    """Return what statelint says against a definition."""
    path = folder / "machine.json"
    path.write_text(json.dumps(machine))
    ended = tool("python", "-m", "statelint", str(path))
    assert ended.returncode == 0 or ended.stdout, ended.stderr[-500:]
    return ended.stdout


def test_the_definition_is_valid_and_each_state_has_a_name_of_its_own(
    translated: Any, tmp_path: Path
) -> None:
    machine = definition_of(translated)
    found = [*names(machine)]

    assert validate(machine, tmp_path) == ""
    assert len(found) == len(set(found)) > 10


def test_the_validator_finds_what_aws_refuses(translated: Any, tmp_path: Path) -> None:
    inner = definition_of(translated)
    states = inner["States"]["Backfill"]["ItemProcessor"]["States"]
    states["Done"] = states.pop("Answered")  # which the outer machine has, too
    states["Slice"]["Next"] = "Done"

    assert '"Done"' in validate(inner, tmp_path)

    lost = definition_of(translated)
    lost["States"]["Lag"]["Next"] = "Nowhere"
    assert "Nowhere" in validate(lost, tmp_path)
