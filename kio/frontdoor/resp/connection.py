"""Commands that are about a connection: HELLO, AUTH, SELECT, CLIENT and the like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kio.clock import monotonic_s
from kio.commands.arguments import integer, syntax_error
from kio.commands.plans_keys import keyspace_number
from kio.commands.replies import CommandError, Verbatim
from kio.commands.table import TABLE
from kio.errors import KioError, NotAuthenticated, Overloaded
from kio.frontdoor._dispatch import Dispatch
from kio.frontdoor.resp.rights import Guest
from kio.frontdoor.resp.runner import Later, Runner
from kio.frontdoor.resp.sessions import Session

_KINDS: Final = frozenset((b"normal", b"master", b"replica", b"slave", b"pubsub"))

#: (session, name, password, what is told: the guest or the error; now or later)
Authenticate = Callable[[Session, str, bytes, Callable[["Guest | KioError"], None]], None]


class ConnectionCommands:
    """Them, for one front door.

    Args:
        runner: gets these as its own.
        dispatch: the door's.
        server: what HELLO tells of the daemon: its version, as a client of Redis compares it.
        authenticate: proves a password.
        close: ends another connection.
    """

    def __init__(
        self,
        runner: Runner,
        dispatch: Dispatch,
        server: str,
        authenticate: Authenticate,
        close: Callable[[int], None],
    ) -> None:
        self._runner = runner
        self._dispatch = dispatch
        self._server = server
        self._authenticate = authenticate
        self._close = close
        runner.own |= {
            "ping": self._ping,
            "echo": self._echo,
            "hello": self._hello,
            "auth": self._auth,
            "select": self._select,
            "quit": self._quit,
            "reset": self._reset,
            "client": self._client,
        }
        self._client_commands: dict[bytes, Callable[[Session, list[bytes]], Any]] = {
            b"id": lambda session, _: session.connection,
            b"getname": lambda session, _: session.name or None,
            b"setname": self._set_name,
            b"setinfo": self._set_info,
            b"info": lambda session, _: Verbatim(self._describe(session) + b"\n"),
            b"list": self._list,
            b"kill": self._kill,
            b"pause": self._pause,
            b"unpause": self._unpause,
            b"reply": self._reply,
            b"no-evict": self._switch,
            b"no-touch": self._switch,
            b"maint_notifications": self._maintenance,
            b"tracking": self._tracking,
            b"trackinginfo": lambda *_: {b"flags": [b"off"], b"redirect": -1, b"prefixes": []},
            b"caching": self._caching,
            b"getredir": lambda *_: -1,
            b"unblock": lambda *_: 0,
            b"help": self._help,
        }

    # ---- the connection itself ----

    def _ping(self, session: Session, arguments: list[bytes]) -> Any:
        if len(arguments) > 2:
            raise CommandError("ERR wrong number of arguments for 'ping' command")
        return arguments[1] if len(arguments) == 2 else "PONG"

    def _echo(self, session: Session, arguments: list[bytes]) -> bytes:
        return arguments[1]

    def _hello(self, session: Session, arguments: list[bytes]) -> dict[bytes, Any] | Later:
        version = session.version
        rest = arguments[1:]
        if rest:
            try:
                version = integer(rest.pop(0))
            except CommandError:
                raise CommandError("ERR Protocol version is not an integer or out of range") from None
            if version not in (2, 3):
                raise CommandError("NOPROTO unsupported protocol version")
        name: bytes | None = None
        credentials: tuple[str, bytes] | None = None
        while rest:
            given = rest.pop(0)
            option = given.upper()
            if option == b"AUTH" and len(rest) >= 2:
                user, password = rest.pop(0), rest.pop(0)
                credentials = user.decode("utf-8", "replace"), password
            elif option == b"SETNAME" and rest:
                name = rest.pop(0)
                _check_name(name, "Client names")
            else:
                raise CommandError(f"ERR Syntax error in HELLO option '{given.decode('latin-1')}'")
        if credentials is not None:
            return self._proven(session, *credentials, lambda: self._greeted(session, version, name))
        if session.user is None:
            raise CommandError(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH "
                "<user> <pass> option can be used to authenticate the client and select the RESP protocol version at "
                "the same time"
            )
        return self._greeted(session, version, name)

    def _greeted(self, session: Session, version: int, name: bytes | None) -> dict[bytes, Any]:
        if name is not None:
            session.name = name
        session.version = version
        self._runner.look_at(session)
        return {
            b"server": b"redis",
            b"version": self._server.encode(),
            b"proto": version,
            b"id": session.connection,
            b"mode": b"standalone",
            b"role": b"master",
            b"modules": [],
        }

    def _auth(self, session: Session, arguments: list[bytes]) -> Later:
        if len(arguments) > 3:
            raise syntax_error()
        if len(arguments) == 2 and self._runner.stranger() is not None:
            raise CommandError(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your "
                "configuration is correct?"
            )
        name = arguments[1].decode("utf-8", "replace") if len(arguments) == 3 else "default"
        return self._proven(session, name, arguments[-1], lambda: "OK")

    def _proven(self, session: Session, name: str, password: bytes, answer: Callable[[], Any]) -> Later:
        """The reply is `answer` where the password is right. Whoever fails stays who it was."""

        def begin(done: Callable[[Any], None]) -> None:
            def proven(outcome: Guest | KioError) -> None:
                if isinstance(outcome, KioError):
                    done(_refusal(outcome))
                    return
                session.user = outcome
                if self._runner.sessions.get(session.connection) is session:
                    self._runner.look_at(session)
                    done(answer())

            self._authenticate(session, name, password, proven)

        return Later(begin)

    def _select(self, session: Session, arguments: list[bytes]) -> str:
        session.keyspace = keyspace_number(arguments[1])
        self._runner.look_at(session)
        return "OK"

    def _quit(self, session: Session, arguments: list[bytes]) -> str:
        self._dispatch.finish(session.connection)
        return "OK"

    def _reset(self, session: Session, arguments: list[bytes]) -> str:
        session.forget()
        session.user = self._runner.stranger()
        session.stranger_s = monotonic_s()
        self._dispatch.mute(session.connection, False)
        self._dispatch.tune(session.connection, silent=False, skips_reply=False)
        self._runner.look_at(session)
        return "RESET"

    # ---- CLIENT ----

    def _client(self, session: Session, arguments: list[bytes]) -> Any:
        return self._client_commands[arguments[1].lower()](session, arguments)

    def _set_name(self, session: Session, arguments: list[bytes]) -> str:
        _check_name(arguments[2], "Client names")
        session.name = arguments[2]
        return "OK"

    def _set_info(self, session: Session, arguments: list[bytes]) -> str:
        option = arguments[2].lower()
        if option not in (b"lib-name", b"lib-ver"):
            raise CommandError(f"ERR Unrecognized option '{arguments[2].decode('latin-1')}'")
        _check_name(arguments[3], option.decode())
        if option == b"lib-name":
            session.library = arguments[3]
        else:
            session.library_version = arguments[3]
        return "OK"

    def _describe(self, session: Session) -> bytes:
        now = monotonic_s()
        requests, _ = self._dispatch.in_flight(session.connection)
        parts: dict[str, bytes | int | str] = {
            "id": session.connection,
            "addr": session.peer,
            "laddr": session.local,
            "fd": session.fd,
            "name": session.name,
            "age": int(now - session.opened_s),
            "idle": int(now - session.last_s),
            "flags": "x" if session.queued is not None else "N",
            "db": session.keyspace,
            "sub": 0,
            "psub": 0,
            "ssub": 0,
            "multi": -1 if session.queued is None else len(session.queued),
            "watch": len(session.watched),
            "qbuf": 0,
            "qbuf-free": 0,
            "argv-mem": 0,
            "multi-mem": session.queued_bytes,
            "rbs": 0,
            "rbp": 0,
            "obl": 0,
            "oll": max(0, requests - 1),
            "omem": 0,
            "tot-mem": session.queued_bytes,
            "events": "r",
            "cmd": session.last,
            "user": session.user.name if session.user is not None else "(stranger)",
            "redir": -1,
            "resp": session.version,
            "lib-name": session.library,
            "lib-ver": session.library_version,
        }
        return b" ".join(
            name.encode() + b"=" + (value if isinstance(value, bytes) else str(value).encode())
            for name, value in parts.items()
        )

    def _list(self, session: Session, arguments: list[bytes]) -> Verbatim:
        self._need_admin(session, arguments)
        chosen: list[Session] = list(self._runner.sessions)
        rest = arguments[2:]
        if rest and rest[0].upper() == b"TYPE" and len(rest) == 2:
            if rest[1].lower() not in _KINDS:
                raise CommandError(f"ERR Unknown client type '{rest[1].decode('latin-1')}'")
            chosen = chosen if rest[1].lower() == b"normal" else []
        elif rest and rest[0].upper() == b"ID" and len(rest) > 1:
            numbers = {integer(each, "ERR Invalid client ID") for each in rest[1:]}
            chosen = [each for each in chosen if each.connection in numbers]
        elif rest:
            raise syntax_error()
        return Verbatim(b"".join(self._describe(each) + b"\n" for each in chosen))

    def _kill(self, session: Session, arguments: list[bytes]) -> Any:
        self._need_admin(session, arguments)
        rest = arguments[2:]
        if len(rest) == 1:
            found = [each for each in self._runner.sessions if each.peer.encode() == rest[0]]
            if not found:
                raise CommandError("ERR No such client")
            self._kill_all(session, found)
            return "OK"
        if len(rest) % 2:
            raise syntax_error()
        found = list(self._runner.sessions)
        skips_me = True
        for option, value in zip(rest[::2], rest[1::2], strict=True):
            name = option.upper()
            if name == b"ID":
                number = integer(value, "ERR client-id should be greater than 0")
                if number <= 0:
                    raise CommandError("ERR client-id should be greater than 0")
                found = [each for each in found if each.connection == number]
            elif name == b"ADDR":
                found = [each for each in found if each.peer.encode() == value]
            elif name == b"LADDR":
                found = [each for each in found if each.local.encode() == value]
            elif name == b"USER":
                found = [each for each in found if each.user is not None and each.user.name.encode() == value]
            elif name == b"TYPE" and value.lower() in _KINDS:
                found = found if value.lower() == b"normal" else []
            elif name == b"TYPE":
                raise CommandError(f"ERR Unknown client type '{value.decode('latin-1')}'")
            elif name == b"MAXAGE":
                age = integer(value)
                found = [each for each in found if monotonic_s() - each.opened_s >= age]
            elif name == b"SKIPME" and value.lower() in (b"yes", b"no"):
                skips_me = value.lower() == b"yes"
            else:
                raise syntax_error()
        if skips_me:
            found = [each for each in found if each is not session]
        self._kill_all(session, found)
        return len(found)

    def _kill_all(self, session: Session, found: list[Session]) -> None:
        for each in found:
            if each is session:
                self._dispatch.finish(each.connection)
            else:
                self._close(each.connection)

    def _need_admin(self, session: Session, arguments: list[bytes]) -> None:
        if session.user is not None:
            session.user.check(TABLE["client"]._replace(right="admin"), arguments)

    def _pause(self, session: Session, arguments: list[bytes]) -> str:
        self._need_admin(session, arguments)
        if len(arguments) > 4:
            raise syntax_error()
        mode = arguments[3].upper() if len(arguments) == 4 else b"ALL"
        if mode not in (b"ALL", b"WRITE"):
            raise CommandError("ERR CLIENT PAUSE mode must be WRITE or ALL")
        time_ms = integer(arguments[2], "ERR timeout is not an integer or out of range")
        if time_ms < 0:
            raise CommandError("ERR timeout is negative")
        self._runner.hold_back(time_ms / 1000, is_all=mode == b"ALL")
        return "OK"

    def _unpause(self, session: Session, arguments: list[bytes]) -> str:
        self._need_admin(session, arguments)
        self._runner.hold_back(0, is_all=False)
        return "OK"

    def _reply(self, session: Session, arguments: list[bytes]) -> Any:
        mode = arguments[2].lower()
        if mode == b"on":
            self._dispatch.mute(session.connection, False)
            self._dispatch.tune(session.connection, silent=False, skips_reply=False)
            return "OK"
        if mode == b"off":
            self._dispatch.mute(session.connection, True)
            self._dispatch.tune(session.connection, silent=True)
        elif mode == b"skip":
            self._dispatch.mute(session.connection, True)
            self._dispatch.tune(session.connection, skips_reply=True)
        else:
            raise syntax_error()
        return "OK"

    def _switch(self, session: Session, arguments: list[bytes]) -> str:
        if arguments[2].lower() not in (b"on", b"off"):
            raise syntax_error()
        return "OK"

    def _maintenance(self, session: Session, arguments: list[bytes]) -> str:
        # kio announces no maintenance, so whoever wants to be told of it is told of all there is.
        if arguments[2].lower() not in (b"on", b"off"):
            raise syntax_error()
        return "OK"

    def _tracking(self, session: Session, arguments: list[bytes]) -> str:
        if arguments[2].lower() != b"off":
            raise CommandError("ERR kio does not track what clients cache")
        return "OK"

    def _caching(self, session: Session, arguments: list[bytes]) -> str:
        raise CommandError(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode "
            "enabled"
        )

    def _help(self, session: Session, arguments: list[bytes]) -> list[bytes]:
        names = sorted(name.decode().upper() for name in self._client_commands)
        return [b"CLIENT <subcommand> [<arg> ...]. Subcommands are:", *(name.encode() for name in names)]


def _refusal(error: KioError) -> CommandError:
    if isinstance(error, NotAuthenticated):
        return CommandError("WRONGPASS invalid username-password pair or user is disabled.")
    return CommandError(f"{'BUSY' if isinstance(error, Overloaded) else 'ERR'} {error}")


def _check_name(name: bytes, what: str) -> None:
    if any(byte < 0x21 or byte > 0x7E for byte in name):
        raise CommandError(f"ERR {what} cannot contain spaces, newlines or special characters.")
