"""How a program gets a blocking client: `kio.connect`."""

from __future__ import annotations

from kio.client import options
from kio.client.blocking import Client
from kio.client.codecs import Codec
from kio.client.options import UNSET, Unset


def connect(
    url: str = "kio://127.0.0.1:7400",
    *,
    timeout: float | Unset | None = UNSET,
    connect_timeout: float | Unset = UNSET,
    retries: bool | Unset = UNSET,
    keyspace: int | Unset = UNSET,
    codec: str | Codec | Unset = UNSET,
    user: str | Unset = UNSET,
    password: str | bytes | Unset = UNSET,
    max_connections: int | Unset = UNSET,
) -> Client:
    """Connect to a daemon.

        with kio.connect("kio://127.0.0.1:7400") as db:
            db.set("greeting", b"hello")
            db.get("greeting")                  # b"hello"

    The first connection is made here, so a daemon that is not there is told at once; later a lost connection is made
    again by itself. The client may be used from many threads, and after a fork (the child makes its own connections).

    Args:
        url: `kio://[USER:PASSWORD@]HOST[:PORT][/KEYSPACE]` or `kio+unix:///PATH/OF/SOCKET`, or `kios://` for TLS. The
            options below may stand in its query, as in `kio://db:7400/3?timeout=2&retries=false`; an argument wins over
            the query. There too, and only there: `password_file`, whose first line is the password; with kios
            `tls_ca_file` (whom to trust instead of those the system trusts), `tls_cert_file` and `tls_key_file` (what
            to show a server that asks), and `tls_verify=false`, which lets anybody be the server.
        timeout: seconds that one call may take with all its retries, 5.0 unless given; None is no limit. An iterator
            counts it for each page.
        connect_timeout: seconds until one connection must stand, 2.0 unless given.
        retries: whether what may heal by itself (a worker that restarts, a lost connection, an overload) is asked again
            until the timeout; True unless given. What would have another effect when repeated (incr, append, what has a
            condition or returns the old value, and atomic batches of these) is asked again only where it cannot have
            been applied; else its error says `maybe_applied`. Of the other operations two things are to know: a
            `delete` or `persist` whose first reply was lost may say False for what it did, and a write that is repeated
            may land on top of what another client wrote in between.
        keyspace: 0 to 255, 0 unless given; the keys of different keyspaces never meet.
        codec: what values are: "bytes" (unless given), "str", "json", "msgpack", or an object with
            `encode(value) -> bytes` and `decode(bytes) -> value`. Every value is encoded on its way in and decoded on
            its way out, but for `incr` and `append`, which stay bytes.
        user, password: who to be for the daemon; they win over those of the URL. A password without a user is that of
            the user default. No message and no repr shows a password.
        max_connections: 16 unless given; a call takes one while it runs, and waits for one when all are taken.

    Raises:
        ConfigError: when the URL or an option is wrong.
        ConnectionLost: when no daemon answers at the URL.
        NotAuthenticated: when the daemon wants a user and a password, and these are not right.
        ProtocolError: when what answers is not kio, or speaks no version of the protocol that this client knows.
    """
    client = Client(
        options.parse(
            url,
            timeout=timeout,
            connect_timeout=connect_timeout,
            retries=retries,
            keyspace=keyspace,
            codec=codec,
            user=user,
            password=password,
            max_connections=max_connections,
        )
    )
    client.open()
    return client
