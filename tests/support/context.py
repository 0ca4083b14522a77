"""Lambda's context object with a real deadline."""

from __future__ import annotations

import time


class Context:
    """The part of Lambda's context that the handler uses; its time runs from now on."""

    aws_request_id = "8f2a"

    def __init__(self, remaining_ms: int = 30_000) -> None:
        self._end_s = time.monotonic() + remaining_ms / 1_000

    def get_remaining_time_in_millis(self) -> int:
        return int((self._end_s - time.monotonic()) * 1_000)
