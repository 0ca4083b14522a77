"""Every error we raise, by whose fault it is. The message says what to do."""

from __future__ import annotations


class AsyncsyncError(Exception):
    """Base of all errors of this package."""


class ConfigError(AsyncsyncError):
    """A setting, a template or a stream view is wrong; yours to change, no retry helps."""


class EventError(AsyncsyncError):
    """The event is not one of a DynamoDB stream, or holds a record that cannot be named."""


class StoreRefused(AsyncsyncError):
    """Redis answered and said no: credentials or permissions; look at the server."""


class StoreUnavailable(AsyncsyncError):
    """Redis could not be reached or did not answer; the network's fault, a retry helps."""

    def __init__(self, error: str, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(f"{error}: {reason}")
        self.error = error
        self.reason = reason
        self.timed_out = timed_out


class BatchFailed(AsyncsyncError):
    """Part of a batch failed and ASYNCSYNC_ON_FAILURE=raise asks to fail the invocation."""


class RecordError(AsyncsyncError):
    """One record cannot be decoded or encoded; becomes a reject, never leaves the core."""

    def __init__(self, reason: str, *path: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path

    def inside(self, name: str) -> RecordError:
        """Return this error one level further out."""
        return RecordError(self.reason, name, *self.path)
