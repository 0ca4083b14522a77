"""Parses command lines with the real aws, version 1; runs in the environment of the template.

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

_NOWHERE = ["--endpoint-url", "http://127.0.0.1:9", "--no-sign-request"]


def parse_aws(words: list[str]) -> str:
    """Return aws's objection to a command; a right one fails to connect."""
    clidriver = import_module("awscli.clidriver")
    output = io.StringIO()
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
        contextlib.suppress(SystemExit),  # argparse has printed its objection
    ):
        clidriver.create_clidriver().main([*words, *_NOWHERE])
    return "" if "Could not connect to the endpoint" in output.getvalue() else output.getvalue()


if __name__ == "__main__":
    os.environ |= {"AWS_MAX_ATTEMPTS": "1", "NO_PROXY": "127.0.0.1"}
    for line in json.load(sys.stdin):
        assert line[0] == "aws"
        objection = parse_aws(line[1:])
        if objection:
            raise SystemExit(f"{' '.join(line)}: {objection}")
