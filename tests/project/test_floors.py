"""Which module may import which: the floors of ARCHITECTURE.md, and what stays on one of them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.project.package import (
    CORE,
    HOT,
    PACKAGE,
    ROOT,
    floor_of,
    imports_of,
    label,
    modules,
    name_of,
    parse,
)

CORE_MAY_IMPORT = {
    "__future__",
    "base64",
    "binascii",
    "collections.abc",
    "dataclasses",
    "datetime",
    "decimal",
    "functools",
    "hashlib",
    "itertools",
    "json",
    "msgspec",
    "operator",
    "orjson",
    "re",
    "typing",
}
AWS_CLIENTS = {"aioboto3", "aiobotocore", "botocore"}
OTHER_CLIENTS = {"anyio", "fakeredis", "lupa", "pytest", "redis", "rich"}

# For a user's own programs and tests: two methods of Mirror, and the reader. Lambda never asks for
# them, so what they need is not in the function's bundle.
UPWARD = {("asyncsync.mirror", "asyncsync.copy.plain"), ("asyncsync", "asyncsync.reader")}

IMPORTS = {name_of(path): imports_of(path) for path in modules()}
OWN_IMPORTS = {
    name: {other for other in imported if other.split(".")[0] == "asyncsync"}
    for name, imported in IMPORTS.items()
}


def command_of(name: str) -> str | None:
    """The command that a module of tools/ belongs to: its folder, or get; None: it is shared."""
    room, *rest = name.split(".")[1:] or [""]
    if room != "tools" or not rest:
        return None
    return rest[0] if rest[0] == "get" or (PACKAGE / "tools" / rest[0]).is_dir() else None


def test_a_module_imports_its_own_floor_and_those_below_it() -> None:
    upward = {
        (name, other)
        for name, imported in OWN_IMPORTS.items()
        for other in imported
        if floor_of(other) > floor_of(name)
    }

    assert upward == UPWARD


def test_what_goes_upward_is_imported_only_when_a_caller_asks() -> None:
    for name, other in UPWARD:
        path = PACKAGE / f"{name.partition('.')[2] or '__init__'}.py"
        at_import = {node.module for node in parse(path).body if isinstance(node, ast.ImportFrom)}

        assert other in IMPORTS[name]
        assert other not in at_import


def test_no_other_floor_imports_what_is_for_users_tests() -> None:
    importers = {
        name
        for name, imported in OWN_IMPORTS.items()
        if not name.startswith("asyncsync.testing")
        and any(other.startswith("asyncsync.testing") for other in imported)
    }

    assert not importers


def test_no_command_imports_another() -> None:
    between = {
        (name, other)
        for name, imported in OWN_IMPORTS.items()
        for other in imported
        if name.startswith("asyncsync.tools") and command_of(other) not in (None, command_of(name))
    }

    assert not between


def test_no_module_imports_itself_by_way_of_others() -> None:
    imports = dict(OWN_IMPORTS)
    # Take out what imports nothing that is left, again and again: a cycle is what remains.
    while leaves := [name for name, imported in imports.items() if not imported & imports.keys()]:
        for name in leaves:
            del imports[name]

    assert not imports


def test_what_lambda_runs_is_this_list_and_nothing_else() -> None:
    names = {path.stem for path in PACKAGE.glob("*.py")}

    assert names - {"__init__", "__main__"} == set(HOT)


@pytest.mark.parametrize("name", HOT)
def test_what_lambda_runs_imports_up_the_list_only(name: str) -> None:
    above = {f"asyncsync.{other}" for other in HOT[: HOT.index(name)]}

    upward = {other for importer, other in UPWARD if importer == f"asyncsync.{name}"}

    assert OWN_IMPORTS[f"asyncsync.{name}"] - upward <= above


@pytest.mark.parametrize("name", CORE)
def test_the_core_waits_for_nothing_and_looks_at_nothing(name: str) -> None:
    foreign = {
        other for other in IMPORTS[f"asyncsync.{name}"] if not other.startswith("asyncsync")
    }
    waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)

    assert foreign <= CORE_MAY_IMPORT
    assert not any(isinstance(node, waits) for node in ast.walk(parse(PACKAGE / f"{name}.py")))


def test_only_the_handler_and_the_command_line_read_the_environment() -> None:
    words = {"environ", "environb", "getenv"}
    readers = set()
    for path in modules():
        nodes = list(ast.walk(parse(path)))
        names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        names |= {node.name for node in nodes if isinstance(node, ast.alias)}
        if names & words:
            readers.add(name_of(path))

    assert {name for name in readers if not name.startswith("asyncsync.cli.")} <= {
        "asyncsync.handler"
    }


@pytest.mark.parametrize("path", modules(), ids=label)
def test_clients_stay_where_they_belong(path: Path) -> None:
    name = name_of(path)
    packages = {other.split(".")[0] for other in IMPORTS[name]}

    assert floor_of(name) > 1 or not packages & OTHER_CLIENTS
    assert not {(name, client) for client in packages & AWS_CLIENTS if ".aws." not in name}
    assert "boto3" not in packages, "its TypeDeserializer raises on legal numbers"


def test_no_test_imports_a_test() -> None:
    between = {
        (name_of(path), other)
        for path in modules(ROOT / "tests")
        for other in imports_of(path)
        if other.startswith("tests.") and other.split(".")[-1].startswith(("test_", "conftest"))
    }

    assert not between
