"""Every error that users see, by who can fix it. The message says what to do."""

from __future__ import annotations


class AsyncsyncError(Exception):
    """Base of all errors of this package."""


class ConfigError(AsyncsyncError):
    """A setting, a template or a stream view is wrong: change it, a retry does not help."""


class EventError(AsyncsyncError):
    """The event does not come from a DynamoDB stream, or a record in it cannot be named."""


class StoreRefused(AsyncsyncError):
    """Redis refused the credentials or a permission: change the server's users."""


class StoreUnavailable(AsyncsyncError):
    """Redis could not be reached or did not answer; a retry may help."""

    def __init__(self, error: str, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(f"{error}: {reason}")
        self.error = error
        self.reason = reason
        self.timed_out = timed_out


class BatchFailed(AsyncsyncError):
    """Part of a batch failed and ASYNCSYNC_ON_FAILURE=raise asks to fail the invocation."""


class RecordError(AsyncsyncError):
    """An item cannot be named or encoded; in the handler it becomes a reject.

    `path` leads to the attribute. Mirror.redis_key and redis_value raise it.
    """

    def __init__(self, reason: str, *path: str) -> None:
        super().__init__(f"{'.'.join(path)}: {reason}" if path else reason)
        self.reason = reason
        self.path = path

    def inside(self, name: str) -> RecordError:
        """Return this error with one more name in front of its path."""
        return RecordError(self.reason, name, *self.path)
