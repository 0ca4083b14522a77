"""asyncsync with redis-py imported besides: what its own connection saves of a cold start."""

from __future__ import annotations

import redis.asyncio  # noqa: F401

from asyncsync.handler import lambda_handler as lambda_handler
