"""The package's modules, as the rules about the code and the documents name them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "asyncsync"

# What Lambda runs, in reading order; a module imports only those before it.
HOT = (
    "errors",
    "limits",
    "version",
    "model",
    "fence",
    "keys",
    "config",
    "decode",
    "collapse",
    "values",
    "shapes",
    "formats",
    "encode",
    "plan",
    "report",
    "iam",
    "connection",
    "transport",
    "transport_asyncio",
    "store",
    "cluster",
    "runtime",
    "mirror",
    "handler",
)

# The pure part of it: no await, clock, environment or logging.
CORE = (
    "fence",
    "decode",
    "collapse",
    "keys",
    "values",
    "shapes",
    "formats",
    "encode",
    "plan",
    "report",
)
