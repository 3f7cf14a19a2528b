"""TLS: what a server and a client need before the first byte, made of the files that the settings name.

TLS 1.2 or newer; of 1.2 only suites with forward secrecy and authenticated encryption; no compression, no
renegotiation, no tickets: each connection shows its certificate anew, so that one who is no longer allowed does not
come back by an old session. Keys are not encrypted: a daemon that starts by itself has nobody to ask.
Not here: the bytes of a connection (frontdoor/tls.py for the daemon, client/secure.py for the client).
"""

from __future__ import annotations

import ssl
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

from kio.errors import ConfigError

#: The suites of TLS 1.2; those of 1.3 are all good.
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
#: Bits of a key file's mode that it must not have: all of others, and writing of its group.
MODE_REFUSED: Final = stat.S_IRWXO | stat.S_IWGRP


class ServerTls:
    """The server's side: `context` is for new connections, and another one after each `reload`.

    Args:
        cert_file: the certificate and those it leads to, in PEM.
        key_file: its key, in PEM.
        ca_file: who signs clients' certificates; None asks clients for none.
        min_version: the oldest that is spoken, a key of VERSIONS.

    Raises:
        ConfigError: when a file cannot be read, holds something else, or its key can be read by others.
    """

    def __init__(self, cert_file: Path, key_file: Path, ca_file: Path | None = None, min_version: str = "1.2") -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._ca_file = ca_file
        self._min_version = VERSIONS[min_version]
        self.context = self._made()

    def reload(self) -> None:
        """Read the files anew, for renewed certificates; connections that stand keep theirs.

        Raises:
            ConfigError: as above; `context` stays as it was.
        """
        self.context = self._made()

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._min_version
        context.set_ciphers(CIPHERS)
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
        context.num_tickets = 0
        _check_key_mode("tls_key_file", self._key_file)
        _load_chain(context, self._cert_file, self._key_file, "tls_cert_file", "tls_key_file")
        if self._ca_file is not None:
            _load_authorities(context, self._ca_file, "tls_ca_file")
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def made_of(files: Mapping[str, str] | None) -> ServerTls | None:
    """The server's side of settings: cert_file, key_file, ca_file ("" asks for none), min_version; None is no TLS.

    Raises:
        ConfigError: as ServerTls does.
    """
    if not files:
        return None
    ca_file = Path(files["ca_file"]) if files["ca_file"] else None
    return ServerTls(Path(files["cert_file"]), Path(files["key_file"]), ca_file, files["min_version"])


def client_context(
    ca_file: Path | None = None, cert_file: Path | None = None, key_file: Path | None = None, *, verify: bool = True
) -> ssl.SSLContext:
    """The client's side.

    Args:
        ca_file: whom to trust, instead of those the system trusts.
        cert_file: the certificate to show to a server that asks for one, and its key unless it is in `key_file`.
        verify: whether the server must show a certificate of the name it was called by; without, whoever is on the way
            can read along and answer.

    Raises:
        ConfigError: when a file cannot be read or holds something else.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_file is not None:
        _load_authorities(context, ca_file, "tls_ca_file")
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if cert_file is not None:
        _load_chain(context, cert_file, key_file or cert_file, "tls_cert_file", "tls_key_file")
    return context


def explain(error: ssl.SSLError) -> str:
    """What went wrong, in words: `certificate verify failed: self-signed certificate`."""
    what = (error.reason or "the other side ended it").lower().replace("_", " ")
    if what in ("http request", "wrong version number", "unknown protocol", "packet length too long"):
        return "the other side does not speak TLS"
    why = getattr(error, "verify_message", None)
    return f"{what}: {why}" if why else what


def _check_key_mode(name: str, path: Path) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise _unreadable(name, path, error) from error
    if mode & MODE_REFUSED:
        raise ConfigError(
            f"{name} {path} has mode {mode:03o}, so that others can read or its group can change it; "
            f'run "chmod 600 {path}"'
        )


def _load_chain(context: ssl.SSLContext, cert_file: Path, key_file: Path, cert_name: str, key_name: str) -> None:
    def ask() -> NoReturn:
        raise ConfigError(f"{key_name} {key_file} is encrypted; kio needs one that is not, in a file of mode 600")

    for name, path, mark in ((cert_name, cert_file, b"CERTIFICATE-----"), (key_name, key_file, b"PRIVATE KEY-----")):
        if mark not in _bytes_of(name, path):
            what = "certificate" if path is cert_file and name == cert_name else "private key"
            raise ConfigError(f"{name} {path} holds no {what} in PEM")
    try:
        context.load_cert_chain(cert_file, key_file, ask)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"the key in {key_name} {key_file} is not that of the certificate in {cert_file}"
            ) from None
        raise ConfigError(f"{cert_name} {cert_file} with {key_name} {key_file}: {explain(error)}") from None


def _load_authorities(context: ssl.SSLContext, path: Path, name: str) -> None:
    _bytes_of(name, path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise ConfigError(f"{name} {path} holds no certificate in PEM") from None


def _bytes_of(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(name, path, error) from error


def _unreadable(name: str, path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{name} {path} cannot be read: {error.strerror}")
