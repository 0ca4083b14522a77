"""The template's cache users on a real server: their access rules, and what they write."""

from __future__ import annotations

from typing import Any

import redis

from asyncsync import Config, Mirror
from tests.support.events import FIRST, event, record
from tests.support.template.cloudformation import Resolver


def access(translated: Any, user: str, **parameters: str) -> list[str]:
    """Return the access string of one of the template's users, as words."""
    resources = Resolver(translated, parameters, known=True).resources()
    text: str = resources[user]["Properties"]["AccessString"]
    return text.split()


def set_user(client: redis.Redis, name: str, rules: list[str]) -> None:
    """Create a user as ElastiCache does; nopass replaces IAM, which no server here has."""
    client.execute_command("ACL", "SETUSER", name, "reset", "nopass", *rules)  # type: ignore[no-untyped-call]


def write(url: str, first: int = FIRST, **settings: Any) -> None:
    """Send everything that a mode writes: a new item, a change, a removal."""
    mirror = Mirror(Config(redis_url=url, key="Players:{@key}", metrics="off", **settings))
    try:
        for at in (0, 1):
            batch = [record(7, first + at), record(8, first + at, removed=True)]
            assert mirror.lambda_handler(event(batch)) == {"batchItemFailures": []}
    finally:
        mirror.close()
