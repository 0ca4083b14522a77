"""The servers on PATH that the tests run against."""

from __future__ import annotations

from asyncsync.lab.servers import binaries

WANTED = ("redis-server", "valkey-server")
FOUND = binaries()
