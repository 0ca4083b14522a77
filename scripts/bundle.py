"""Builds the two functions' bundles: a folder, or a zip of it, with what Lambda runs.

One bundle is the mirror's, the other the operations function's. The same source and pins give
the same bytes. Dependencies are wheels with the hashes of requirements/; this needs no container
and no compiler. Each module comes with its bytecode, which Python uses without reading the
source (PEP 552, unchecked-hash). So a cold start compiles nothing: Lambda mounts the code
read-only and could not save bytecode.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from asyncsync.cli.exit_codes import exit_code_of
from asyncsync.tools.errors import CommandFailed, CommandRefused

# Bytecode works on one minor version of Python. These are the template's runtimes, its default
# first.
RUNTIMES = ((3, 13), (3, 14))
LAMBDA_PYTHON = RUNTIMES[0]

# Lambda's name of an architecture, and pip's. Lambda's Pythons from 3.12 on run on Amazon Linux
# 2023, whose glibc is 2.34; wheels for manylinux2014 need 2.17.
PLATFORMS = {"arm64": "manylinux2014_aarch64", "x86_64": "manylinux2014_x86_64"}

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "asyncsync"

# Where Lambda puts the code: tracebacks name files there, not in the folder of the build.
_LAMBDA_FOLDER = "/var/task"

# Stubs are for type checkers; the rest records how and where pip installed.
_LEFT_OUT = ("*.pyi", "py.typed", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json")

# The services that the tools open, of the 400 that botocore describes.
SERVICES = ("dynamodb", "dynamodbstreams", "s3", "lambda", "cloudwatch", "elasticache")
_DATA = Path("botocore", "data")


Version = tuple[int, int]  # of Python: major, minor


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the bundles: its name, its folders, the largest size of its zip.

    A cold start fetches and unpacks the zip. Lambda allows 50 MB; the bound is far lower, so
    that a bundle never grows unnoticed.
    """

    name: str
    archive_bytes_max: int
    folders: Sequence[str] = ()  # of the package, beside what Lambda runs

    @property
    def requirements(self) -> Path:
        """Return the file with its pins."""
        return ROOT / "requirements" / f"{self.name}.txt"


MIRROR = Kind("lambda", 2_000_000)  # 0.85 MB today
OPERATIONS = Kind(  # 8.9 MB today, half of it botocore and aiohttp
    "operations",
    12_000_000,
    (
        "mapping",
        "aws",
        "copy",
        "cli",
        "tools",
        "tools/backfill",
        "tools/audit",
        "tools/redrive",
        "tools/retire",
        "tools/check",
        "tools/index",
        "tools/estimate",  # whose options the parser lists
    ),
)
KINDS = (MIRROR, OPERATIONS)

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold


def build(
    folder: Path,
    platform: str | None = None,
    kind: Kind = MIRROR,
    python: Version = LAMBDA_PYTHON,
) -> None:
    """Fill an empty folder with a bundle for a Lambda architecture and its Python.

    The default is a bundle for this machine and for the Python that runs this. Raises
    CommandRefused where this machine or folder cannot build it, CommandFailed where pip fails.
    """
    if not kind.requirements.exists():
        raise CommandRefused("a bundle needs asyncsync's source tree, which has requirements/")
    if platform is not None and platform not in PLATFORMS:
        raise CommandRefused(
            f"{platform!r} is no Lambda architecture: use {' or '.join(PLATFORMS)}"
        )
    interpreter = sys.executable if platform is None else find_python(python)
    if folder.exists() and any(folder.iterdir()):
        raise CommandRefused(f"{folder} is not empty")

    for name in ("", *kind.folders):
        _copy_modules(PACKAGE / name, folder / "asyncsync" / name)
    install(folder, kind.requirements, platform, python)
    for pattern in _LEFT_OUT:
        for path in folder.rglob(pattern):
            path.unlink()
    _leave_other_services_out(folder / _DATA)
    compile_modules(folder, "-s", str(folder), "-p", _LAMBDA_FOLDER, interpreter=interpreter)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # Lambda runs it as another user


def _copy_modules(source: Path, target: Path) -> None:
    """Copy the modules and scripts of one folder of the package, not of those inside it."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix in (".py", ".lua") and path.name != "__main__.py":
            shutil.copyfile(path, target / path.name)


def _leave_other_services_out(data: Path) -> None:
    for path in data.iterdir() if data.exists() else ():
        if path.is_dir() and path.name not in SERVICES:
            shutil.rmtree(path)


def find_python(version: Version) -> str:
    """Return an interpreter of a version of Python. Raises CommandRefused."""
    if sys.version_info[:2] == version:
        return sys.executable
    name = f"python{dotted(version)}"
    found = shutil.which(name)
    if found is not None and _runs(found, version):  # a version manager's shim may not
        return found
    state = "is not on PATH" if found is None else f"on PATH ({found}) does not run"
    raise CommandRefused(
        f"{name} {state}, and only it can compile bytecode for the function's "
        f"Python {dotted(version)}. Install it, then try again"
    )


def _runs(interpreter: str, version: Version) -> bool:
    command = [interpreter, "-c", "import sys; print(*sys.version_info[:2])"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.stdout.split() == [str(number) for number in version]


def dotted(version: Version) -> str:
    """Return a version as Python's names have it: 3.13."""
    return ".".join(map(str, version))


def install(
    folder: Path,
    requirements: Path,
    platform: str | None = None,
    python: Version = LAMBDA_PYTHON,
) -> None:
    """Install pinned wheels into a folder, for a Lambda architecture and its Python.

    The default is for this machine and for the Python that runs this. Raises CommandFailed.
    """
    arguments = ["install", "--quiet", "--no-compile", "--no-deps", "--require-hashes"]
    arguments += ["--only-binary", ":all:", "--target", str(folder), "-r", str(requirements)]
    arguments += ["--disable-pip-version-check", "--root-user-action", "ignore"]
    if platform is not None:
        version = "".join(map(str, python))
        arguments += ["--platform", PLATFORMS[platform], "--implementation", "cp"]
        arguments += ["--python-version", version, "--abi", f"cp{version}"]
    _run(sys.executable, "pip", *arguments)


def compile_modules(folder: Path, *options: str, interpreter: str = sys.executable) -> None:
    """Write bytecode that Python uses without reading the source. Raises CommandFailed."""
    options = ("-qfj0", "--invalidation-mode", "unchecked-hash", *options, str(folder))
    _run(interpreter, "compileall", *options)


def _run(interpreter: str, module: str, *arguments: str) -> None:
    # In another process, whose hashes are not random: the same bytecode each time.
    process = subprocess.run(
        [interpreter, "-m", module, *arguments],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if process.returncode:
        lines = process.stdout.strip().splitlines() or ["no output"]
        raise CommandFailed(f"{module} failed: {lines[-1]}")


def pack(folder: Path, archive: Path, kind: Kind = MIRROR) -> str:
    """Zip a bundle and return the zip's SHA-256; the same content gives the same zip.

    Raises CommandFailed where the zip is larger than its bound.
    """
    with zipfile.ZipFile(archive, "w") as file:
        for path in _files(folder):
            member = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EPOCH)
            member.create_system = 3  # Unix, whose modes these are
            member.external_attr = 0o100644 << 16
            file.writestr(member, path.read_bytes(), zipfile.ZIP_DEFLATED, 9)
    size_bytes = archive.stat().st_size
    if size_bytes > kind.archive_bytes_max:
        archive.unlink()
        raise CommandFailed(
            f"{archive.name} has {size_bytes:,} bytes; {kind.archive_bytes_max:,} are allowed"
        )
    return sha256(archive.read_bytes()).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def main(argv: list[str] | None, write_line: Callable[[str], None] = print) -> int:
    """Build both bundles for each architecture; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bundle")
    parser.add_argument("--zip", action="store_true", help="write zips with their SHA-256 too")
    parser.add_argument(
        "--into", type=Path, default=Path("dist"), help="folder of the bundles (default: dist)"
    )
    arguments = parser.parse_args(argv)
    try:
        for kind in KINDS:
            for platform in PLATFORMS:
                _write(kind, platform, arguments.into, write_line, zipped=arguments.zip)
    except CommandFailed as exc:
        print(f"asyncsync: {exc}", file=sys.stderr)
        return exit_code_of(exc)
    return 0


def _write(
    kind: Kind, platform: str, into: Path, write_line: Callable[[str], None], *, zipped: bool
) -> None:
    folder = into / f"{kind.name}-{platform}"
    shutil.rmtree(folder, ignore_errors=True)
    build(folder, platform, kind, LAMBDA_PYTHON)
    write_line(f"{folder}: {sum(path.stat().st_size for path in _files(folder)):,} bytes")
    if zipped:
        archive = into / f"asyncsync-{kind.name}-{platform}.zip"
        digest = pack(folder, archive, kind)
        archive.with_suffix(".zip.sha256").write_text(f"{digest}  {archive.name}\n")
        write_line(f"{archive}: {archive.stat().st_size:,} bytes, SHA-256 {digest}")


if __name__ == "__main__":
    raise SystemExit(main(None))
