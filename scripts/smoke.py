"""Settles on your account what no machine without AWS can show: make smoke STACK=name.

It writes a few items to the stack's table, looks at them in the copy, and removes them. Each
line says `ok`, or what AWS said instead. It needs boto3 and your credentials; it runs from
anywhere.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, TextIO

from asyncsync.cli.exit_codes import COULD_NOT_RUN, DONE, INTERRUPTED, LEFT_WORK, WRONG_ARGUMENTS
from scripts.smoke_lines import LINES, Line, alarms
from scripts.smoke_stack import NoStack, NotDeployed, Pace, Stack, Unexpected


def smoke(stack: Stack, out: TextIO, only: Sequence[str] = ()) -> int:
    """Walk the lines; clean up, whatever happens; return the exit code."""
    try:
        stack.read()
    except Exception as exc:
        print(f"smoke: {' '.join(str(exc).split())}", file=sys.stderr)
        return COULD_NOT_RUN
    code = DONE
    try:
        for line in _lines(stack):
            if not only or line.name.split(" ")[0] in only:
                code = max(code, _walk(line, stack, out))
    except KeyboardInterrupt:
        print("smoke: interrupted, cleaning up", file=sys.stderr)
        code = INTERRUPTED
    left = stack.clean_up()
    for each in left:
        print(f"fail  {'clean-up':27} {each}", file=out, flush=True)
    return code if code == INTERRUPTED or not left else LEFT_WORK


def _lines(stack: Stack) -> Iterator[Line]:
    yield from LINES
    yield from alarms(stack)


def _walk(line: Line, stack: Stack, out: TextIO) -> int:
    try:
        state, text = "ok", line.run(stack)
    except NotDeployed as exc:
        state, text = "skip", str(exc)
    except Unexpected as exc:
        state, text = "fail", str(exc)
    except Exception as exc:
        state, text = "fail", f"{type(exc).__name__}: {exc}"
    print(f"{state:5} {line.name:27} {' '.join(text.split())}", file=out, flush=True)
    return LEFT_WORK if state == "fail" else DONE


def _clients(region: str | None, profile: str | None) -> Callable[[str], Any]:
    """Return what makes a client of a service. Raises NoStack without a Region or boto3."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as exc:
        raise NoStack("it needs boto3: pip install boto3") from exc
    # An invocation lasts up to 15 minutes, and must not be begun twice.
    waits = Config(read_timeout=910, connect_timeout=10, retries={"total_max_attempts": 1})
    try:
        session = boto3.Session(region_name=region, profile_name=profile)
    except BotoCoreError as exc:
        raise NoStack(str(exc)) from exc
    if session.region_name is None:
        raise NoStack("no AWS Region is set: pass --region, or set AWS_DEFAULT_REGION")
    if session.get_credentials() is None:
        raise NoStack("no AWS credentials are set: pass --profile, or sign in")

    @cache
    def client(service: str) -> Any:
        return session.client(service, config=waits if service == "lambda" else None)

    return client


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make smoke STACK=name", description="Settle what only AWS can show."
    )
    parser.add_argument("stack", help="the stack's name")
    parser.add_argument("--region", help="Region (default: the environment's or the profile's)")
    parser.add_argument("--profile", help="profile (default: $AWS_PROFILE)")
    parser.add_argument(
        "--wait", type=float, default=Pace().wait_s, help="seconds to wait for AWS (default: 300)"
    )
    parser.add_argument("--only", nargs="+", default=[], help="walk only these lines")
    arguments = parser.parse_args(argv)
    known = {line.name for line in LINES} | {"alarm"}
    unknown = [name for name in arguments.only if name not in known]
    if not arguments.stack or unknown:
        parser.error(f"there is no line {unknown[0]}" if unknown else "STACK is empty")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the smoke test on a stack; return the exit code."""
    try:
        arguments = _parse(argv)
    except SystemExit as exc:
        return WRONG_ARGUMENTS if exc.code else DONE
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        client = _clients(arguments.region, arguments.profile)
    except NoStack as exc:
        print(f"smoke: {exc}", file=sys.stderr)
        return COULD_NOT_RUN
    stack = Stack(arguments.stack, client, Pace(wait_s=arguments.wait))
    return smoke(stack, sys.stdout, arguments.only)


if __name__ == "__main__":
    sys.exit(main())
