"""How redis-py, which the tools look through, reaches a server that the settings name."""

from __future__ import annotations

from typing import Any

from redis import CredentialProvider

from asyncsync.config import Server
from asyncsync.connection import Password


class SignIn(CredentialProvider):
    """A user whose password is asked for anew at every connection."""

    def __init__(self, username: str, password: Password) -> None:
        self._username = username
        self._password = password

    def get_credentials(self) -> tuple[str, str]:
        """Return what AUTH is sent."""
        return self._username, self._password()


def client_arguments(
    server: Server, timeout_s: float, token: Password | None = None
) -> dict[str, Any]:
    """Return the arguments of redis-py's clients, sync or async, but for how they retry.

    A token stands in the place of the server's own password.
    """
    place = {"unix_socket_path": server.path} if server.path else {"host": server.host}
    sign_in: dict[str, Any] = {
        "username": server.username or None,
        "password": server.password or None,
    }
    if token is not None:
        sign_in = {"credential_provider": SignIn(server.username, token)}
    return {
        **place,
        **sign_in,
        "port": server.port,
        "db": server.database,
        "ssl": server.tls,
        "ssl_ca_certs": server.ca_file,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
    }
