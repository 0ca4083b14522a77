"""Rules about the code itself, so that review need not repeat them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "asyncsync"

# The reading order of what Lambda runs; imports point up the list only.
HOT = (
    "errors",
    "limits",
    "version",
    "model",
    "fence",
    "keys",
    "config",
    "decode",
    "collapse",
    "values",
    "shapes",
    "formats",
    "encode",
    "plan",
    "report",
    "iam",
    "connection",
    "transport",
    "transport_asyncio",
    "store",
    "cluster",
    "runtime",
    "mirror",
    "handler",
)
CORE = (
    "fence",
    "decode",
    "collapse",
    "keys",
    "values",
    "shapes",
    "formats",
    "encode",
    "plan",
    "report",
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
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
HOT_LINES_MAX = 3_670  # grows only on purpose: what Lambda runs is read in an hour

BANNED_NAMES = re.compile(r"(?:^|_)(?:utils?|helpers?|managers?)(?:_|$)", re.IGNORECASE)

# A registry's or a mirror's host, and places of one machine, have no business in the project.
# The patterns are written so that this file does not match itself.
BANNED_TEXT = re.compile(
    r"pypi[.]org|python[h]osted|registry[.]npmjs|deb[.]debian|ghcr[.]io|docker[.]io"
    r"|(?<![\w.])/(?:root|work|home|Users)/\w"
    r"|[.]pyenv"
)
TEXT_SUFFIXES = {".py", ".lua", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".cfg", ""}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(tree: ast.AST) -> set[str]:
    """Every module named by an import anywhere in the tree, in a function too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module or "")
            if node.module == "asyncsync":
                names |= {f"asyncsync.{alias.name}" for alias in node.names}
    return names


def packages(tree: ast.AST) -> set[str]:
    return {name.split(".")[0] for name in imported(tree)}


def modules(folder: Path = PACKAGE) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def project_files() -> Iterator[Path]:
    """Every text file of the project, also where there is no git to ask."""
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT).parts
        skipped = any(
            (part.startswith(".") and part != ".ci") or part in ("__pycache__", "dist", "build")
            for part in inside
        )
        if path.is_file() and not skipped and path.suffix in TEXT_SUFFIXES:
            yield path


# --- layout -----------------------------------------------------------------------------------


def test_what_lambda_runs_is_this_list_and_nothing_else() -> None:
    found = {path.stem for path in PACKAGE.glob("*.py")}

    assert found - {"__init__", "__main__"} == set(HOT)


@pytest.mark.parametrize("name", HOT)
def test_imports_point_up_the_list_only(name: str) -> None:
    above = {f"asyncsync.{other}" for other in HOT[: HOT.index(name)]}
    found = {n for n in imported(tree_of(PACKAGE / f"{name}.py")) if n.startswith("asyncsync")}

    assert found <= above


@pytest.mark.parametrize("name", CORE)
def test_the_core_waits_for_nothing_and_looks_at_nothing(name: str) -> None:
    tree = tree_of(PACKAGE / f"{name}.py")
    foreign = {n for n in imported(tree) if not n.startswith("asyncsync")}
    waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)

    assert foreign <= CORE_MAY_IMPORT
    assert not any(isinstance(node, waits) for node in ast.walk(tree))


@pytest.mark.parametrize("path", modules(), ids=label)
def test_only_the_entry_points_read_the_environment(path: Path) -> None:
    words = {"environ", "environb", "getenv"}
    tree = tree_of(path)
    reads = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    reads |= {node.name for node in ast.walk(tree) if isinstance(node, ast.alias)}
    entry_point = path.name == "handler.py" or "cli" in path.parts

    assert entry_point or not reads & words


@pytest.mark.parametrize("path", modules(), ids=label)
def test_clients_stay_where_they_belong(path: Path) -> None:
    found = packages(tree_of(path))
    folder = path.relative_to(PACKAGE).parts[0]

    outside = folder in ("copy", "aws", "cli", "tools", "lab")
    assert outside or not found & {"redis", "anyio", "rich", "fakeredis"}
    assert folder == "aws" or not found & {"aioboto3", "aiobotocore", "botocore"}
    assert "boto3" not in found, "its TypeDeserializer raises on legal numbers"


# --- size and words ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", modules(), ids=label)
def test_a_module_is_read_in_one_sitting_and_a_function_on_one_screen(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    }

    assert len(source.splitlines()) <= MODULE_LINES_MAX
    assert not long


def test_what_lambda_runs_stays_small() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in PACKAGE.glob("*.py"))

    assert lines <= HOT_LINES_MAX


@pytest.mark.parametrize(
    "path", [*modules(), *modules(ROOT / "tests"), *modules(ROOT / "benchmarks")], ids=label
)
def test_a_module_says_what_it_is(path: Path) -> None:
    tree = tree_of(path)

    # An empty __init__.py says it by its folder's name.
    assert ast.get_docstring(tree) or (path.name == "__init__.py" and not tree.body)


@pytest.mark.parametrize("path", modules(), ids=label)
def test_names_say_something(path: Path) -> None:
    names = {path.stem}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            # JobManager is job_manager, to compare in one way
            names.add(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", node.name))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    banned = {name for name in names if BANNED_NAMES.search(name)} - {"contextmanager"}

    assert not banned


def test_nothing_names_a_registry_or_a_place_of_one_machine() -> None:
    found = [
        f"{label(path)}:{number}: {line.strip()[:80]}"
        for path in project_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if BANNED_TEXT.search(line)
    ]

    assert not found


def test_requirements_are_pinned_with_hashes_and_without_addresses() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        blocks = re.split(r"\n(?=[a-z0-9])", path.read_text().split("\n", 2)[2])
        unpinned = [b for b in blocks if not re.match(r"[\w.-]+(\[[\w,]+\])?==\S", b)]
        unhashed = [b for b in blocks if "--hash=sha256:" not in b]

        assert blocks
        assert not unpinned
        assert not unhashed
        assert "://" not in path.read_text()


def test_what_is_pinned_in_two_files_is_pinned_alike() -> None:
    pins: dict[str, set[str]] = {}
    for path in (ROOT / "requirements").glob("*.txt"):
        if path.name == "template.txt":
            continue  # an environment of its own, because it cannot be alike
        for name, rest in re.findall(r"^([\w.-]+)==(\S+ ?[^\\]*)", path.read_text(), re.MULTILINE):
            # What marks it (a Python, a system) is the file's own affair.
            pins.setdefault(f"{name} {path.name}", set()).add(rest.split(";")[0].strip())
    by_name: dict[str, list[set[str]]] = {}
    for key, versions in pins.items():
        by_name.setdefault(key.split()[0], []).append(versions)

    assert {name for name, all_ in by_name.items() if any(v != all_[0] for v in all_)} == set()
