"""Parses command lines with the real aws and sam; runs in the environment of the template.

Reads a JSON list of command lines, each a list of words, from standard input; ends at the first
wrong one. aws cannot send anything: the endpoint is a closed port.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from importlib import import_module

# Exists only in aws version 2, which is not a Python package.
_SECOND_VERSION = ["--cli-binary-format", "raw-in-base64-out"]
_NOWHERE = ["--endpoint-url", "http://127.0.0.1:9", "--no-sign-request"]


def parse_aws(words: list[str]) -> str:
    """Return aws's objection to a command; a right one fails to connect."""
    clidriver = import_module("awscli.clidriver")
    if _SECOND_VERSION[0] in words:
        at = words.index(_SECOND_VERSION[0])
        assert words[at : at + 2] == _SECOND_VERSION
        words = words[:at] + words[at + 2 :]
    output = io.StringIO()
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
        contextlib.suppress(SystemExit),  # argparse has printed its objection
    ):
        clidriver.create_clidriver().main([*words, *_NOWHERE])
    return "" if "Could not connect to the endpoint" in output.getvalue() else output.getvalue()


def parse_sam(words: list[str]) -> str:
    """Return sam's objection to a command; this parses it and does not run it."""
    click = import_module("click")
    command = import_module(f"samcli.commands.{words[0]}.command").cli
    try:
        command.make_context(words[0], words[1:])
    except click.ClickException as exc:
        return str(exc.format_message())
    return ""


if __name__ == "__main__":
    os.environ |= {"AWS_MAX_ATTEMPTS": "1", "NO_PROXY": "127.0.0.1"}
    for line in json.load(sys.stdin):
        objection = {"aws": parse_aws, "sam": parse_sam}[line[0]](line[1:])
        if objection:
            raise SystemExit(f"{' '.join(line)}: {objection}")
