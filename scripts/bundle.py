"""The functions' bundles: a folder, or a zip of it, with what Lambda runs and nothing else.

One is the mirror's, one the operations function's. The same source and pins give the same
bytes. Dependencies are wheels with the hashes of requirements/; no container and no compiler.
Each module's bytecode is in it and is taken without a look at its source (PEP 552,
unchecked-hash), so a cold start compiles nothing: Lambda mounts the code read-only and could
not keep what it had compiled.
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

# Bytecode is of one minor version of Python: this one is the template's Runtime.
LAMBDA_PYTHON = (3, 13)

# Lambda's name of an architecture, and what pip calls it. Lambda's Python 3.13 runs on Amazon
# Linux 2023, whose glibc is 2.34; 2014's wheels ask for 2.17.
PLATFORMS = {"arm64": "manylinux2014_aarch64", "x86_64": "manylinux2014_x86_64"}

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "asyncsync"

# Where Lambda puts the code: tracebacks name files there, whatever folder it was built in.
_LAMBDA_FOLDER = "/var/task"

# Stubs are for type checkers; the rest says how and where pip installed.
_LEFT_OUT = ("*.pyi", "py.typed", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json")

# Of botocore's 400 services those that the tools open, and what is of none of them.
SERVICES = ("dynamodb", "dynamodbstreams", "s3", "lambda", "cloudwatch")
_DATA = Path("botocore", "data")

# What the operations function never runs.
_TOOLS_LEFT_OUT = ("get.py", "redis_client.py")


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the bundles: what it is called, what it holds, how large its zip may be.

    A cold start fetches and unpacks the zip. Lambda allows 50 MB; what makes one grow past its
    own bound is to be seen.
    """

    name: str
    archive_bytes_max: int
    folders: Sequence[str] = ()  # of the package, beside the hot path

    @property
    def requirements(self) -> Path:
        """Return the file with its pins."""
        return ROOT / "requirements" / f"{self.name}.txt"


MIRROR = Kind("lambda", 2_000_000)  # it has 0.85 MB
OPERATIONS = Kind(  # it has 8.9 MB, botocore and aiohttp half of it
    "operations",
    12_000_000,
    (
        "aws",
        "copy",
        "cli",
        "tools",
        "tools/backfill",
        "tools/audit",
        "tools/redrive",
        "tools/retire",
    ),
)
KINDS = (MIRROR, OPERATIONS)

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can say


def build(folder: Path, platform: str | None = None, kind: Kind = MIRROR) -> None:
    """Fill an empty folder with a bundle for a Lambda architecture, or for this Python here.

    Raises CommandRefused where it cannot be made here, CommandFailed where pip fails.
    """
    if not kind.requirements.exists():
        raise CommandRefused("a bundle is made in asyncsync's source tree, which has the pins")
    if platform is not None:
        _refuse_other_python(platform)
    if folder.exists() and any(folder.iterdir()):
        raise CommandRefused(f"{folder} is not empty")

    for name in ("", *kind.folders):
        _copy_modules(PACKAGE / name, folder / "asyncsync" / name)
    _run("pip", *_pip_arguments(folder, kind.requirements, platform))
    for pattern in _LEFT_OUT:
        for path in folder.rglob(pattern):
            path.unlink()
    _leave_other_services_out(folder / _DATA)
    _run("compileall", "-qfj0", "--invalidation-mode", "unchecked-hash",
         "-s", str(folder), "-p", _LAMBDA_FOLDER, str(folder))  # fmt: skip
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # Lambda runs it as another user


def _copy_modules(source: Path, target: Path) -> None:
    """Copy what stands in one folder of the package, and not in those below it."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix in (".py", ".lua") and path.name not in ("__main__.py", *_TOOLS_LEFT_OUT):
            shutil.copyfile(path, target / path.name)


def _leave_other_services_out(data: Path) -> None:
    for path in data.iterdir() if data.exists() else ():
        if path.is_dir() and path.name not in SERVICES:
            shutil.rmtree(path)


def _refuse_other_python(platform: str) -> None:
    if platform not in PLATFORMS:
        raise CommandRefused(f"no Lambda architecture is {platform!r}: {' or '.join(PLATFORMS)}")
    wanted, running = (
        ".".join(map(str, version)) for version in (LAMBDA_PYTHON, sys.version_info[:2])
    )
    if wanted != running:
        raise CommandRefused(
            f"the function runs Python {wanted} and this is {running}, whose bytecode is another: "
            f"make build VENV=.venv-{wanted} PYTHON=python{wanted}"
        )


def _pip_arguments(folder: Path, requirements: Path, platform: str | None) -> list[str]:
    arguments = ["install", "--quiet", "--no-compile", "--no-deps", "--require-hashes"]
    arguments += ["--only-binary", ":all:", "--target", str(folder), "-r", str(requirements)]
    arguments += ["--disable-pip-version-check", "--root-user-action", "ignore"]
    if platform is not None:
        version = "".join(map(str, LAMBDA_PYTHON))
        arguments += ["--platform", PLATFORMS[platform], "--implementation", "cp"]
        arguments += ["--python-version", version, "--abi", f"cp{version}"]
    return arguments


def _run(module: str, *arguments: str) -> None:
    # A process of its own, whose hashes are not random: the same bytecode each time.
    ended = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode:
        said = ended.stdout.strip().splitlines() or ["it said nothing"]
        raise CommandFailed(f"{module} failed: {said[-1]}")


def pack(folder: Path, archive: Path, kind: Kind = MIRROR) -> str:
    """Zip a bundle and return the zip's SHA-256; one folder's content has one zip.

    Raises CommandFailed where it is larger than a bundle should be.
    """
    with zipfile.ZipFile(archive, "w") as made:
        for path in _files(folder):
            member = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EPOCH)
            member.create_system = 3  # Unix, whose modes these are
            member.external_attr = 0o100644 << 16
            made.writestr(member, path.read_bytes(), zipfile.ZIP_DEFLATED, 9)
    size_bytes = archive.stat().st_size
    if size_bytes > kind.archive_bytes_max:
        archive.unlink()
        raise CommandFailed(
            f"the bundle has {size_bytes:_} bytes, {kind.archive_bytes_max:_} are allowed"
        )
    return sha256(archive.read_bytes()).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def main(argv: list[str] | None, say: Callable[[str], None] = print) -> int:
    """Build both bundles of each architecture under a folder, and zip them where that is asked."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bundle")
    parser.add_argument("--zip", action="store_true", help="make the zips too, with SHA-256")
    parser.add_argument("--into", type=Path, default=Path("dist"), help="where to (dist)")
    arguments = parser.parse_args(argv)
    try:
        for kind in KINDS:
            for platform in PLATFORMS:
                _make(kind, platform, arguments.into, say, zipped=arguments.zip)
    except CommandFailed as exc:
        print(f"asyncsync: {exc}", file=sys.stderr)
        return exit_code_of(exc)
    return 0


def _make(
    kind: Kind, platform: str, into: Path, say: Callable[[str], None], *, zipped: bool
) -> None:
    folder = into / f"{kind.name}-{platform}"
    shutil.rmtree(folder, ignore_errors=True)
    build(folder, platform, kind)
    say(f"{folder}: {sum(path.stat().st_size for path in _files(folder)):,} bytes")
    if zipped:
        archive = into / f"asyncsync-{kind.name}-{platform}.zip"
        digest = pack(folder, archive, kind)
        archive.with_suffix(".zip.sha256").write_text(f"{digest}  {archive.name}\n")
        say(f"{archive}: {archive.stat().st_size:,} bytes, SHA-256 {digest}")


if __name__ == "__main__":
    raise SystemExit(main(None))
