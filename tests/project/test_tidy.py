"""Rules about the code itself, so that a review need not repeat them."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project.package import PACKAGE, ROOT, label, modules, parse

CODE = ("asyncsync", "benchmarks", "scripts", "tests")

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
HOT_LINES_MAX = 4_695  # grows only on purpose: what Lambda runs is read in an hour

FOLDER_MODULES_MAX = 20
LARGER_FOLDERS = {"asyncsync", "asyncsync/lab/simulation"}  # what Lambda runs, and the simulator

BANNED_NAMES = re.compile(r"(?:^|_)(?:utils?|helpers?|managers?)(?:_|$)", re.IGNORECASE)

# A name says what a thing is, so a participle or a pronoun names no module, function or argument.
NOT_NAMES = re.compile(
    r"_?(?:asked|begun|brought|chosen|found|given|gone|heard|held|kept|left|lost|made|meant|named"
    r"|said|seen|settled?|shown|standing|taken|told|wanted"
    r"|each|few|it|some|that|them|these|this|those|what|who|whose)_?"
)

# The project names no registry, no mirror and no folder of one machine. The patterns do not match
# this file itself.
BANNED_TEXT = re.compile(
    r"pypi[.]org|python[h]osted|registry[.]npmjs|deb[.]debian|ghcr[.]io|docker[.]io"
    r"|(?<![\w.])/(?:root|work|home|Users)/\w"
    r"|[.]pyenv"
)
TEXT_SUFFIXES = {".py", ".lua", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".cfg", ""}


def project_files() -> Iterator[Path]:
    """Return every text file of the project; works without git."""
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT).parts
        skipped = any(
            (part.startswith(".") and part != ".ci") or part in ("__pycache__", "dist", "build")
            for part in inside
        )
        if path.is_file() and not skipped and path.suffix in TEXT_SUFFIXES:
            yield path


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


@pytest.mark.parametrize("path", [p for part in CODE for p in modules(ROOT / part)], ids=label)
def test_a_module_says_what_it_is(path: Path) -> None:
    tree = parse(path)

    # An empty __init__.py says it by its folder's name.
    assert ast.get_docstring(tree) or (path.name == "__init__.py" and not tree.body)


def test_no_folder_holds_more_modules_than_one_can_look_through() -> None:
    folders = Counter(label(path.parent) for part in CODE for path in modules(ROOT / part))
    large = {folder for folder, count in folders.items() if count > FOLDER_MODULES_MAX}

    assert large <= LARGER_FOLDERS


def test_a_public_class_name_is_defined_once() -> None:
    names = Counter(
        node.name
        for path in modules()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )

    assert not {name for name, count in names.items() if count > 1}


def test_no_module_function_or_argument_is_named_by_a_participle_or_a_pronoun() -> None:
    for path in modules():
        names = {path.stem}
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.arg):
                names.add(node.arg)

        assert not {name for name in names if NOT_NAMES.fullmatch(name)}, label(path)


@pytest.mark.parametrize("path", modules(), ids=label)
def test_names_say_something(path: Path) -> None:
    names = {path.stem}
    for node in ast.walk(parse(path)):
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
            continue  # a separate environment, whose pins must differ
        for name, rest in re.findall(r"^([\w.-]+)==(\S+ ?[^\\]*)", path.read_text(), re.MULTILINE):
            # The marker (a Python, a system) may differ from file to file.
            pins.setdefault(f"{name} {path.name}", set()).add(rest.split(";")[0].strip())
    by_name: dict[str, list[set[str]]] = {}
    for key, versions in pins.items():
        by_name.setdefault(key.split()[0], []).append(versions)

    assert {name for name, all_ in by_name.items() if any(v != all_[0] for v in all_)} == set()
