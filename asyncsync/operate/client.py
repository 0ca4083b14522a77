"""How redis-py, which the tools look through, reaches a server that the settings name."""

from __future__ import annotations

from typing import Any

from asyncsync.config import Server


def client_arguments(server: Server, timeout_s: float) -> dict[str, Any]:
    """Return the arguments of redis-py's clients, sync or async, but for how they retry."""
    place = {"unix_socket_path": server.path} if server.path else {"host": server.host}
    return {
        **place,
        "port": server.port,
        "db": server.database,
        "username": server.username or None,
        "password": server.password or None,
        "ssl": server.tls,
        "ssl_ca_certs": server.ca_file,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
    }
