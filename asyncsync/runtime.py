"""Lambda's runtime client: take an event's bytes before it parses them.

Parsing dominates the cost of other handlers for large batches, and decode reads the bytes
itself. AWS's client (awslambdaric) documents its marshaller as a class attribute that a
function's author may replace. It is replaced only where every part is as AWS ships it.
Anywhere else the event comes as a dict, and the result is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENTRY_POINT = "asyncsync.handler.lambda_handler"

_CLIENT = "awslambdaric.lambda_runtime_client"
_MARSHALLER = "awslambdaric.lambda_runtime_marshaller"


class RawMarshaller:
    """AWS's marshaller without the parse; AWS's own still writes the answers."""

    def __init__(self, aws: Any) -> None:
        self.marshal_response = aws.marshal_response
        self._unmarshal_request = aws.unmarshal_request

    def unmarshal_request(self, request: object, content_type: str = "application/json") -> object:
        """Return JSON bytes unchanged; pass anything else to AWS's marshaller."""
        if isinstance(request, bytes) and content_type == "application/json":
            return request
        return self._unmarshal_request(request, content_type)


def take_raw_events(modules: Mapping[str, Any]) -> bool:
    """Make Lambda's runtime client pass raw bytes; return whether it will.

    `modules` is `sys.modules`: a client that is not loaded does not run this function.
    """
    client = getattr(modules.get(_CLIENT), "BaseLambdaRuntimeClient", None)
    shipped = getattr(modules.get(_MARSHALLER), "LambdaMarshaller", None)
    if client is None or shipped is None:
        return False
    marshaller = vars(client).get("marshaller")
    if type(marshaller) is not shipped:
        return False
    if not all(hasattr(marshaller, name) for name in ("unmarshal_request", "marshal_response")):
        return False
    if any("marshaller" in vars(subclass) for subclass in client.__subclasses__()):
        return False
    client.marshaller = RawMarshaller(marshaller)
    return True
