"""Builds what each contestant runs on: its own bundle, and AWS's runtime client.

A Python bundle is what a user would upload: pinned wheels with their bytecode, and nothing of
the environment that runs the benchmark. Every Python function runs in one empty virtual
environment of the Python that runs this. A bundle is built once, and again when its sources
change.
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

from asyncsync.tools.errors import CommandFailed
from scripts import bundle

ROOT = Path(__file__).parents[2]
CONTESTANTS = ROOT / "benchmarks" / "contestants"
BUILT = ROOT / ".bench"

# npm compiles AWS's client for Node (curl and a C++ library, two minutes).
NODE_TOOLS = ("node", "npm", "autoconf", "automake", "libtoolize", "make", "g++")

RUNTIME = "runtime"
OWN = "asyncsync"


class CannotBuild(Exception):
    """A contestant's bundle cannot be built here; the message says why."""


def python() -> Path:
    """Return the Python that functions run on: this one, with nothing installed."""
    folder = BUILT / _tag() / "python"
    program = folder / "bin" / "python"
    if not program.exists():
        venv.create(folder, with_pip=False, symlinks=True)
    return program


def python_bundle(name: str) -> Path:
    """Return a folder with requirements/contestant-NAME.txt installed, or with our own bundle.

    Raises CannotBuild.
    """
    folder = BUILT / _tag() / name
    if name == OWN:
        sources = [*sorted(bundle.PACKAGE.glob("*.*")), ROOT / "requirements" / "lambda.txt"]
        build: Callable[[Path], None] = bundle.build
    else:
        pins = ROOT / "requirements" / f"contestant-{name}.txt"
        sources = [pins]

        def build(target: Path) -> None:
            bundle.install(target, pins)
            bundle.compile_modules(target)

    _build_once(folder, sources, build)
    return folder


def handlers() -> Path:
    """Return a folder with the Python contestants' own files, compiled. Raises CannotBuild."""
    folder = BUILT / _tag() / "handlers"
    sources = sorted(CONTESTANTS.glob("*.py"))

    def build(target: Path) -> None:
        for source in sources:
            shutil.copy(source, target)
        bundle.compile_modules(target)

    _build_once(folder, sources, build)
    return folder


def node_bundle() -> Path:
    """Return a folder with the Node contestants and their dependencies.

    Raises CannotBuild where Node or a tool that compiles AWS's client is missing.
    """
    missing = [tool for tool in NODE_TOOLS if shutil.which(tool) is None]
    if missing:
        raise CannotBuild(f"not on PATH: {', '.join(missing)}")
    folder = BUILT / "node"
    pins = CONTESTANTS / "node" / "package-lock.json"

    def build(target: Path) -> None:
        for source in (pins, pins.with_name("package.json")):
            shutil.copy(source, target)
        _npm_ci(target)

    _build_once(folder, [pins], build)
    for source in sorted((CONTESTANTS / "node").glob("*.js")):
        shutil.copy(source, folder)
    return folder


def has_node_bundle() -> bool:
    """Whether the Node contestants can start without a build."""
    return (BUILT / "node.built").exists()


def node_client(folder: Path) -> Path:
    """Return the program that runs AWS's Node client in a bundle."""
    return folder / "node_modules" / "aws-lambda-ric" / "bin" / "index.mjs"


def _tag() -> str:
    return f"python{'.'.join(map(str, sys.version_info[:3]))}"


def _build_once(folder: Path, sources: Sequence[Path], build: Callable[[Path], None]) -> None:
    """Build a folder unless a finished build of these very sources is there.

    Raises CannotBuild.
    """
    digest = hashlib.sha256(str(folder).encode())  # which names the Python, where there is one
    for source in sources:
        digest.update(source.read_bytes())
    stamp = folder.with_name(f"{folder.name}.built")
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    stamp.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        build(folder)
    except CommandFailed as exc:
        raise CannotBuild(str(exc)) from exc
    stamp.write_text(digest.hexdigest())


def _npm_ci(folder: Path) -> None:
    # `make PYTHON=...` names the Python that is measured. node-gyp would use it as its own, and
    # needs one that has distutils.
    process = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHON"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if process.returncode:
        lines = process.stdout.strip().splitlines() or ["no output"]
        error = next((line for line in lines if "Error: " in line), lines[-1])
        raise CannotBuild(f"npm ci failed: {error}")
