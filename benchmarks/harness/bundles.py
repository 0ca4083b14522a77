"""What each contestant runs on: its own bundle, made once and kept, and AWS's runtime client.

A Python bundle is what a user would upload: pinned wheels, bytecode that is taken without a
look at its source, nothing of the environment that runs the benchmark. Every Python function
runs in one bare virtual environment of the Python that runs this.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

from scripts import bundle

ROOT = Path(__file__).parents[2]
CONTESTANTS = ROOT / "benchmarks" / "contestants"
BUILT = ROOT / ".bench"

# AWS's client for Node is compiled on installation (curl and a C++ library, two minutes).
NODE_TOOLS = ("node", "npm", "autoconf", "automake", "libtoolize", "make", "g++")

RUNTIME = "runtime"
OWN = "asyncsync"


class CannotBuild(Exception):
    """A contestant's bundle cannot be made here; the message says why."""


def python() -> Path:
    """Return the Python that functions run on: this one's, with nothing installed."""
    folder = BUILT / _tag() / "python"
    found = folder / "bin" / "python"
    if not found.exists():
        venv.create(folder, with_pip=False, symlinks=True)
    return found


def python_bundle(name: str) -> Path:
    """Return the folder of requirements/contestant-NAME.txt installed, or of our own bundle.

    Raises CannotBuild where pip fails.
    """
    folder = BUILT / _tag() / name
    if name == OWN:
        sources = [*sorted(bundle.PACKAGE.glob("*.*")), ROOT / "requirements" / "lambda.txt"]
        make: Callable[[Path], None] = bundle.build
    else:
        pins = ROOT / "requirements" / f"contestant-{name}.txt"
        sources = [pins]

        def make(target: Path) -> None:
            _run(_pip(target, pins))
            _compile(target)

    _made_of(folder, sources, make)
    return folder


def handlers() -> Path:
    """Return the folder of the Python contestants' own files, compiled."""
    folder = BUILT / _tag() / "handlers"
    sources = sorted(CONTESTANTS.glob("*.py"))

    def make(target: Path) -> None:
        for source in sources:
            shutil.copy(source, target)
        _compile(target)

    _made_of(folder, sources, make)
    return folder


def node_bundle() -> Path:
    """Return the folder of the Node contestants with what they need.

    Raises CannotBuild where Node or what AWS's client is compiled with is missing.
    """
    missing = [tool for tool in NODE_TOOLS if shutil.which(tool) is None]
    if missing:
        raise CannotBuild(f"not on PATH: {', '.join(missing)}")
    folder = BUILT / "node"
    pins = CONTESTANTS / "node" / "package-lock.json"

    def make(target: Path) -> None:
        for source in (pins, pins.with_name("package.json")):
            shutil.copy(source, target)
        _run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], target)

    _made_of(folder, [pins], make)
    for source in sorted((CONTESTANTS / "node").glob("*.js")):
        shutil.copy(source, folder)
    return folder


def has_node_bundle() -> bool:
    """Whether the Node contestants could start at once."""
    return (BUILT / "node.made").exists()


def node_client(folder: Path) -> Path:
    """Return the program that runs AWS's Node client in a bundle."""
    return folder / "node_modules" / "aws-lambda-ric" / "bin" / "index.mjs"


def _tag() -> str:
    return f"python{'.'.join(map(str, sys.version_info[:3]))}"


def _made_of(folder: Path, sources: Sequence[Path], make: Callable[[Path], None]) -> None:
    """Make a folder anew where what it is made of has changed, or it never was finished."""
    digest = hashlib.sha256(str(folder).encode())  # which names the Python, where there is one
    for source in sources:
        digest.update(source.read_bytes())
    stamp = folder.with_name(f"{folder.name}.made")
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    stamp.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make(folder)
    stamp.write_text(digest.hexdigest())


def _pip(target: Path, pins: Path) -> list[str]:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    return [
        *pip,
        *("--no-compile", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *("--root-user-action", "ignore", "--target", str(target), "-r", str(pins)),
    ]


def _compile(folder: Path) -> None:
    _run([sys.executable, "-m", "compileall", "-qf", "--invalidation-mode", "unchecked-hash",
          str(folder)])  # fmt: skip


def _run(command: Sequence[str], folder: Path | None = None) -> None:
    # `make PYTHON=...` names the Python that is measured; node-gyp would take it for its own,
    # and needs one that has distutils.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    ended = subprocess.run(
        command,
        cwd=folder,
        env={**kept, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode:
        said = ended.stdout.strip().splitlines() or ["it said nothing"]
        telling = next((line for line in said if "Error: " in line), said[-1])
        raise CannotBuild(f"{' '.join(command[:4])} failed: {telling}")
