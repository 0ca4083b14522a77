"""A private CA with a certificate for localhost, and the server options that use them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.servers import LACKING, has_tls, skip


def make_authority(folder: Path) -> None:
    """Create a CA and its certificate for localhost with openssl."""
    # Python 3.13 requires of a certificate what RFC 5280 requires.
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


def tls_options(authority: Path, port: int, binary: str) -> list[str]:
    """Return the options that make a server listen for TLS beside its plain port.

    Skips the test if the server is built without TLS.
    """
    if not has_tls(binary):
        skip(f"{LACKING}TLS in this {binary}, which is built without it")
    options = ["--tls-port", str(port), "--tls-cert-file", str(authority / "s.crt")]
    options += ["--tls-key-file", str(authority / "s.key"), "--tls-auth-clients", "no"]
    return [*options, "--tls-ca-cert-file", str(authority / "ca.crt")]
