"""What a hello says, and what it is answered with: the version both speak, and the bounds a client has to keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgpack

from kio import limits
from kio.access import User
from kio.errors import BadRequest, KioError, NotAuthenticated, ProtocolError
from kio.frontdoor.doorkeeper import Doorkeeper, Outcome
from kio.wire import PROTOCOL_VERSION, PROTOCOL_VERSION_MIN


class Hello(NamedTuple):
    """A hello that was understood.

    Attributes:
        version: the highest that both speak.
        answer: what it is answered with, once its client may come in.
        user, password: who it says it is; None where it does not say. An empty name is the default user.
    """

    version: int
    answer: bytes
    user: str | None
    password: bytes


#: What a hello ends in.
Admitted = tuple[Hello, User] | KioError


class Greeting:
    """Answers hellos; the same answer for every connection of one protocol version.

    Args:
        server: name and version of the daemon, for the client's logs.
        shards: how many there are.
        value_bytes_max: the daemon's `max_value_bytes`.
    """

    def __init__(self, server: str, shards: int, value_bytes_max: int) -> None:
        bounds = {
            "server": server,
            "shards": shards,
            "frame_bytes_max": limits.frame_bytes_max(value_bytes_max),
            "key_bytes_max": limits.KEY_BYTES_MAX,
            "value_bytes_max": value_bytes_max,
            "frame_keys_max": limits.FRAME_KEYS_MAX,
        }
        spoken = range(PROTOCOL_VERSION_MIN, PROTOCOL_VERSION + 1)
        self._answers: dict[int, bytes] = {version: msgpack.packb({"protocol": version} | bounds) for version in spoken}

    def admit(self, words: bytes, host: str, doorkeeper: Doorkeeper, admitted: Callable[[Admitted], None]) -> None:
        """Tell `admitted`, now or later, who comes in by this hello, or the error that it is answered with.

        Args:
            words: the hello's map.
            host: where it comes from.
        """
        try:
            hello = self.answer(words)
        except KioError as error:
            admitted(error)
            return

        def proven(outcome: Outcome) -> None:
            admitted(outcome if isinstance(outcome, KioError) else (hello, outcome))

        if hello.user is None:
            proven(doorkeeper.access.default or NotAuthenticated())
        else:
            doorkeeper.prove(host, hello.user, hello.password, proven)

    def answer(self, hello: bytes) -> Hello:
        """What a hello whose map is `hello` says, and its answer.

        Raises:
            BadRequest: when it is not a map with a protocol version and a client's name, or its user is no user.
            ProtocolError: when the client speaks no version that is spoken here.
        """
        try:
            asked = msgpack.unpackb(hello)
        except (ValueError, msgpack.UnpackException) as error:
            raise BadRequest(f"a hello's argument is one map: {error}") from None
        if not isinstance(asked, dict) or not isinstance(asked.get("client", ""), str):
            raise BadRequest('a hello\'s argument is {"protocol": number, "client": text}')
        version = asked.get("protocol")
        if not isinstance(version, int) or isinstance(version, bool):
            raise BadRequest("a hello tells the protocol version as a number")
        if version < PROTOCOL_VERSION_MIN:
            spoken = " to ".join(map(str, (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION)))
            raise ProtocolError(f"the client speaks protocol version {version}, here it is {spoken}")
        chosen = min(version, PROTOCOL_VERSION)
        return Hello(chosen, self._answers[chosen], *_credentials(asked))


def _credentials(asked: dict[str, object]) -> tuple[str | None, bytes]:
    user, password = asked.get("user"), asked.get("password")
    if user is None and password is None:
        return None, b""
    if isinstance(password, str):
        password = password.encode("utf-8", "surrogatepass")
    if not isinstance(user, str | None) or not isinstance(password, bytes | None):
        raise BadRequest("a hello tells the user as text and the password as text or bytes")
    return user or "", password or b""
