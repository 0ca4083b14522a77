"""Builds a release: files that the aws command alone deploys.

One folder holds the zips of both functions for each architecture and Python, the template as
CloudFormation takes it, deploy.sh, and the files' SHA-256. The same source, pins and Pythons give
the same bytes. A zip's name carries the start of its SHA-256 and the template names the zips, so
a deployment changes a function's code exactly where its zip has changed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

from asyncsync.cli.exit_codes import exit_code_of
from asyncsync.tools.errors import CommandFailed, CommandRefused
from asyncsync.version import __version__
from scripts.bundle import (
    KINDS,
    PLATFORMS,
    ROOT,
    RUNTIMES,
    Kind,
    Version,
    build,
    dotted,
    find_python,
    pack,
)

NAME = f"asyncsync-{__version__}"
TEMPLATE = "template.json"
SCRIPT = "deploy.sh"
CHECKSUMS = "SHA256SUMS"

# CloudFormation's limit for a template that it reads from a bucket.
TEMPLATE_BYTES_MAX = 1_000_000
DIGITS = 12  # of a zip's SHA-256, in its name

# The zips' names, by kind of bundle, runtime and architecture.
Archives = dict[str, dict[str, dict[str, str]]]

_OTHER = "CodeForX86"  # the condition that chooses between the two architectures

_PARAMETERS = {
    "CodeBucket": {
        "Type": "String",
        "Description": "The bucket that holds the functions' zips, in the stack's Region",
        "AllowedPattern": "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        "ConstraintDescription": "the name of a bucket, without s3://",
    },
    "CodeKey": {
        "Type": "String",
        "Default": "asyncsync",
        "Description": "The prefix in that bucket under which the zips lie",
        "AllowedPattern": r"^[\w.-]+(/[\w.-]+)*$",
        "ConstraintDescription": "a prefix without a slash at its ends",
    },
}


def translated(python: Path) -> dict[str, Any]:
    """Return the template as CloudFormation takes it. Raises CommandRefused, CommandFailed.

    `python` is that of the environment with the template's tools.
    """
    if not python.exists():
        raise CommandRefused(f"{python} does not exist; make template installs it")
    command = [str(python), str(ROOT / "scripts" / "translate.py"), str(ROOT / "template.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or ["no output"]
        raise CommandFailed(f"the template cannot be translated: {lines[-1]}")
    template: dict[str, Any] = json.loads(ended.stdout)
    return template


def released(template: dict[str, Any], archives: Archives) -> dict[str, Any]:
    """Return a translated template that takes its code from a release's zips."""
    interface = template["Metadata"]["AWS::CloudFormation::Interface"]
    group = {"Label": {"default": "The release"}, "Parameters": [*_PARAMETERS]}
    resources = {name: _with_code(body) for name, body in template["Resources"].items()}
    return {
        **template,
        "Metadata": {
            **template["Metadata"],
            "AWS::CloudFormation::Interface": {
                **interface,
                "ParameterGroups": [group, *interface["ParameterGroups"]],
            },
        },
        "Parameters": {**_PARAMETERS, **_limited(template["Parameters"], archives)},
        "Mappings": {**template.get("Mappings", {}), **_mappings(archives)},
        "Conditions": {
            **template["Conditions"],
            _OTHER: {"Fn::Equals": [_platform(template), "x86_64"]},
        },
        "Resources": resources,
    }


def _mappings(archives: Archives) -> dict[str, Any]:
    return {
        _mapping(kind): {
            runtime: {_column(platform): name for platform, name in names.items()}
            for runtime, names in files.items()
        }
        for kind, files in archives.items()
    }


def _mapping(kind: str) -> str:
    return f"{kind.capitalize()}Code"


def _column(platform: str) -> str:
    return platform.replace("_", "")  # a mapping's columns are letters and digits


def _platform(template: dict[str, Any]) -> Any:
    """Return the architecture of the template's functions: a parameter, or a word."""
    first, *others = (
        body["Properties"]["Architectures"]
        for body in template["Resources"].values()
        if body["Type"] == "AWS::Lambda::Function"
    )
    assert all(each == first for each in others)
    return first[0]


def _limited(parameters: dict[str, Any], archives: Archives) -> dict[str, Any]:
    """Return the parameters, of whose runtimes only those are allowed that have zips."""
    if "Runtime" not in parameters:
        return parameters
    runtimes = {runtime for files in archives.values() for runtime in files}
    allowed = [each for each in parameters["Runtime"]["AllowedValues"] if each in runtimes]
    default = parameters["Runtime"]["Default"]
    limited = {"AllowedValues": allowed, "Default": default if default in allowed else allowed[0]}
    return {**parameters, "Runtime": {**parameters["Runtime"], **limited}}


def _with_code(resource: dict[str, Any]) -> dict[str, Any]:
    properties = resource.get("Properties", {})
    code = properties.get("Code", {})
    if resource["Type"] != "AWS::Lambda::Function" or "S3Key" not in code:
        return resource  # its code is in the template
    kind = re.fullmatch(r"asyncsync-([a-z]+)-.*\.zip", code["S3Key"])
    assert kind is not None, code
    way = [_mapping(kind[1]), properties["Runtime"]]
    first, other = ({"Fn::FindInMap": [*way, _column(each)]} for each in PLATFORMS)
    archive = {"Fn::If": [_OTHER, other, first]}
    key = {"Fn::Sub": ["${CodeKey}/${Archive}", {"Archive": archive}]}
    new = {"S3Bucket": {"Ref": "CodeBucket"}, "S3Key": key}
    return {**resource, "Properties": {**properties, "Code": new}}


def write(
    into: Path,
    template: dict[str, Any],
    pythons: Sequence[Version] = RUNTIMES,
    write_line: Callable[[str], None] = print,
) -> None:
    """Write a release into a folder and replace what is there. Raises as a bundle's build does."""
    for version in pythons:
        find_python(version)  # before anything is built
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    archives: Archives = {}
    for version, kind, platform in product(pythons, KINDS, PLATFORMS):
        archive = _archive(into, version, kind, platform)
        write_line(f"{archive}: {archive.stat().st_size:,} bytes")
        files = archives.setdefault(kind.name, {}).setdefault(f"python{dotted(version)}", {})
        files[platform] = archive.name
    text = json.dumps(released(template, archives), indent=1) + "\n"
    assert len(text) <= TEMPLATE_BYTES_MAX
    (into / TEMPLATE).write_text(text)
    shutil.copyfile(ROOT / "scripts" / SCRIPT, into / SCRIPT)
    lines = [f"{_digest(each)}  {each.name}" for each in sorted(into.iterdir())]
    (into / CHECKSUMS).write_text("\n".join(lines) + "\n")
    write_line(f"{into / TEMPLATE}: {len(text):,} bytes")


def _archive(into: Path, version: Version, kind: Kind, platform: str) -> Path:
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), platform, kind, version)
        archive = into / f"asyncsync-{kind.name}-{platform}-python{dotted(version)}.zip"
        digest = pack(Path(folder), archive, kind)
    return archive.rename(archive.with_name(f"{archive.stem}-{digest[:DIGITS]}.zip"))


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def main(argv: list[str] | None) -> int:
    """Build the release; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.release")
    parser.add_argument(
        "--tools",
        type=Path,
        default=Path(".venv-template/bin/python"),
        help="Python that has the template's tools (default: .venv-template/bin/python)",
    )
    parser.add_argument(
        "--python",
        type=_version,
        action="append",
        help="a Python of Lambda's, once for each (default: all, which "
        f"are {' and '.join(map(dotted, RUNTIMES))})",
    )
    parser.add_argument(
        "--into", type=Path, default=Path("dist") / NAME, help=f"folder (default: dist/{NAME})"
    )
    arguments = parser.parse_args(argv)
    try:
        write(arguments.into, translated(arguments.tools), arguments.python or RUNTIMES)
    except CommandFailed as exc:
        print(f"asyncsync: {exc}", file=sys.stderr)
        return exit_code_of(exc)
    return 0


def _version(text: str) -> Version:
    for version in RUNTIMES:
        if dotted(version) == text:
            return version
    raise argparse.ArgumentTypeError(f"use {' or '.join(map(dotted, RUNTIMES))}")


if __name__ == "__main__":
    raise SystemExit(main(None))
