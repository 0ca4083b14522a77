"""The package's modules, as the rules about the code and the documents name them."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "asyncsync"

# What Lambda runs, in reading order; a module imports only those before it.
HOT = (
    "errors",
    "limits",
    "version",
    "model",
    "fence",
    "keys",
    "config",
    "senders",
    "decode",
    "collapse",
    "values",
    "shapes",
    "hashes",
    "documents",
    "formats",
    "encode",
    "plan",
    "metrics",
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

# The pure part of it: no await, clock, environment or logging.
CORE = (
    "fence",
    "decode",
    "collapse",
    "keys",
    "values",
    "shapes",
    "hashes",
    "documents",
    "formats",
    "encode",
    "plan",
    "metrics",
    "report",
)

# The floors, lowest first. What Lambda runs is asyncsync/*.py; the others are folders. A module
# imports its own floor and those below it.
FLOORS = ("what Lambda runs", "mapping", "copy", "aws", "reader", "testing", "tools", "lab", "cli")


def modules(folder: Path = PACKAGE) -> list[Path]:
    """Return every module in a folder and those inside it."""
    return sorted(folder.rglob("*.py"))


def label(path: Path) -> str:
    """Return a file's path inside the project."""
    return str(path.relative_to(ROOT))


def parse(path: Path) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path: Path) -> str:
    """Return a module's dotted name; a package's is its folder's."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Return the dotted name of every module that a module imports, in its functions too."""
    names: set[str] = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                names.add(name if _is_module(name) else node.module)
    return names


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def floor_of(name: str) -> int:
    """Return the floor of one of the package's modules, as an index of FLOORS."""
    _, *rest = name.split(".")
    if rest == ["__main__"]:
        return FLOORS.index("cli")
    return FLOORS.index(rest[0]) if rest and rest[0] in FLOORS else 0
