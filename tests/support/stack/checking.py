"""Runs asyncsync check; a mapping that is right in everything, as Lambda describes it."""

from __future__ import annotations

from typing import Any

import pytest

from asyncsync import Config
from asyncsync.cli.main import main
from tests.support.events import arn

CONFIG = Config(redis_url="redis://unused")
GOOD: dict[str, Any] = {
    "UUID": "51af3dc0",
    "State": "Enabled",
    "BatchSize": 1000,
    "EventSourceArn": arn(),
    "FunctionArn": "arn:aws:lambda:us-east-1:111122223333:function:mirror",
    "FunctionResponseTypes": ["ReportBatchItemFailures"],
    "BisectBatchOnFunctionError": True,
    "MaximumRetryAttempts": 200,
    "MaximumRecordAgeInSeconds": 82_800,
    "StartingPosition": "TRIM_HORIZON",
    "LastProcessingResult": "OK",
    "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:s3:::bucket"}},
}


def checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, str]]:
    """Run check; return its exit code, and state and message by subject."""
    code = main(["check", *arguments, "--quiet"])
    captured = capsys.readouterr()
    assert captured.err == ""
    verdicts = [
        (line[6:18].strip(), line[:6].strip(), line[19:]) for line in captured.out.splitlines()
    ]
    return code, {subject: f"{state} {message}" for subject, state, message in verdicts}
