"""Let the aws and sam commands' own parsers read command lines: run by requirements/template.txt.

Reads a JSON list of command lines, each a list of words, from standard input; ends at the first
that is no command. What aws would then send it cannot: the endpoint is a closed port.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from importlib import import_module

# Only in the second version of aws, which the package index does not have.
_SECOND_VERSION = ["--cli-binary-format", "raw-in-base64-out"]
_NOWHERE = ["--endpoint-url", "http://127.0.0.1:9", "--no-sign-request"]


def parse_aws(words: list[str]) -> str:
    """Return what aws has against a command; a command that is one cannot connect."""
    clidriver = import_module("awscli.clidriver")
    if _SECOND_VERSION[0] in words:
        at = words.index(_SECOND_VERSION[0])
        assert words[at : at + 2] == _SECOND_VERSION
        words = words[:at] + words[at + 2 :]
    said = io.StringIO()
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        contextlib.suppress(SystemExit),  # what argparse has against it has been said
    ):
        clidriver.create_clidriver().main([*words, *_NOWHERE])
    return "" if "Could not connect to the endpoint" in said.getvalue() else said.getvalue()


def parse_sam(words: list[str]) -> str:
    """Return what sam has against a command; it is parsed and not run."""
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
        refused = {"aws": parse_aws, "sam": parse_sam}[line[0]](line[1:])
        if refused:
            raise SystemExit(f"{' '.join(line)}: {refused}")
