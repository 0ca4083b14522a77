"""A private authority, its certificate for localhost, and a server's options with both."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_authority(folder: Path) -> None:
    """Let openssl make a CA and a certificate of it for localhost."""
    # Python 3.13 asks of a certificate what RFC 5280 asks.
    (folder / "extensions").write_text(
        "subjectAltName=DNS:localhost\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    for arguments in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt "
        "-addext keyUsage=critical,keyCertSign",
        "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout s.key -out s.csr",
        "x509 -req -in s.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out s.crt "
        "-extfile extensions",
    ):
        subprocess.run(
            ["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True
        )


def tls_options(authority: Path, port: int) -> list[str]:
    """Return what makes a server listen for TLS beside its plain port."""
    options = ["--tls-port", str(port), "--tls-cert-file", str(authority / "s.crt")]
    options += ["--tls-key-file", str(authority / "s.key"), "--tls-auth-clients", "no"]
    return [*options, "--tls-ca-cert-file", str(authority / "ca.crt")]
