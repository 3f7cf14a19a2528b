"""Commands that the kernel leaves to Python: looked up, checked, run, answered.

Whoever is no stranger may run what its user's rights allow; a stranger may say who it is, and leave. Within MULTI a
command is checked and kept; EXEC runs them (transactions.py).
Invariants: each command is answered once; whatever it raises is its own error, never that of its connection.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from typing import Any, Final

from kio import errors, limits, log
from kio.clock import monotonic_s, wall_ms
from kio.commands import ops, subcommands
from kio.commands.arguments import wrong_arity
from kio.commands.error_texts import text_of
from kio.commands.ops import Operation, Plan
from kio.commands.plans_keys import keyspace_number
from kio.commands.replies import CommandError, Context
from kio.commands.table import TABLE, Command
from kio.errors import InternalError, KioError
from kio.frontdoor._dispatch import Dispatch
from kio.frontdoor.events import Gathered
from kio.frontdoor.resp import inline, transactions
from kio.frontdoor.resp.encoding import encode, encode_error
from kio.frontdoor.resp.jobs import Job, Jobs
from kio.frontdoor.resp.rights import Everybody, Guest
from kio.frontdoor.resp.sessions import Session, Sessions

#: What a stranger may run.
_FOR_STRANGERS: Final = frozenset(("auth", "hello", "quit", "reset"))
#: What is run at once within MULTI.
_NOT_QUEUED: Final = frozenset(("exec", "discard", "multi", "watch", "quit", "reset"))
_QUEUED_BYTES_MAX: Final = limits.CONNECTION_BYTES_MAX
#: What the queues and the watches of all connections take.
_HELD_BYTES_MAX: Final = limits.HALF_FRAMES_BYTES_MAX
_SHOWN_BYTES_MAX: Final = 128

_log = log.Log(__name__)


class CommandContext:
    """Where a plan runs (kio.commands.replies.Context)."""

    __slots__ = ("keyspace", "now_ms", "shards")

    def __init__(self, shards: int, keyspace: int) -> None:
        self.shards = shards
        self.keyspace = keyspace
        self.now_ms = wall_ms()


class Later:
    """The reply of a command that waits for something else than the shards; none comes after it until then.

    Args:
        begin: begins it; is handed what is to be called with the reply, once, now or later.
    """

    __slots__ = ("begin",)

    def __init__(self, begin: Callable[[Callable[[Any], None]], None]) -> None:
        self.begin = begin


#: A command that is about the connection or the daemon: (session, arguments) -> its reply, a plan, or a Later.
Own = Callable[[Session, list[bytes]], Any]


class Runner:
    """The commands of one front door.

    Args:
        dispatch: the door's; this becomes its `commands`.
        shards: how many there are.

    Attributes:
        own: the commands that are not in the files of kio.commands, by name; filled by who makes this.
        sessions: of all RESP connections.
    """

    def __init__(self, dispatch: Dispatch, shards: int) -> None:
        # Set once.
        self._dispatch = dispatch
        self._shards = shards
        self._jobs = Jobs(dispatch, shards)
        self._repeats = log.Repeats(_log)
        self.own: dict[str, Own] = {
            "multi": self._multi,
            "exec": self._exec,
            "discard": self._discard,
            "watch": self._watch,
            "unwatch": self._unwatch,
        }
        self.sessions = Sessions()
        #: Who a connection is that has not said so; None: it has to.
        self.stranger: Callable[[], Guest | None] = Everybody
        # Changed by commands.
        #: Connection -> handle and arguments of its command that `hold_back` keeps, the first one first. There is one
        #: at most: nothing more is taken from a connection that waits.
        self._kept: dict[int, tuple[int, list[bytes]]] = {}
        self._kept_until_s = 0.0
        self._kept_is_all = False
        #: What `stall` calls when that has ended.
        self._stalled: list[Callable[[Any], None]] = []
        #: How often keyspaces were swapped.
        self._swaps = 0
        #: How often each command came, and how often it failed.
        self.calls: dict[str, int] = {}
        dispatch.commands = self
        dispatch.tell_errors(_error_texts())

    # ---- the kernel's side ----

    def split(self, line: bytes) -> list[bytes] | None:
        """The arguments of an inline command; None where its quotes do not match."""
        return inline.split(line)

    def refused(self, connection: int) -> None:
        """A command was too long for the daemon, and answered so."""
        session = self.sessions.get(connection)
        if session is not None:
            self._spoil(session)

    def command(self, handle: int, connection: int, arguments: list[bytes]) -> None:
        """A command came; it is answered now or later."""
        session = self.sessions.get(connection)
        if session is None:
            self._answer_error(handle, "ERR the connection is not known")
            return
        session.last_s = monotonic_s()
        try:
            self._take(handle, session, arguments)
        except CommandError as error:
            self._answer_error(handle, error.text)
            if not isinstance(error, _Unspoiling):
                self._spoil(session)
        except KioError as error:
            self._answer_error(handle, text_of(error))
            self._spoil(session)
        except Exception:  # noqa: BLE001  a bug in one command must not end the door
            _log.exception("a command failed")
            self._answer_error(handle, text_of(InternalError("the front door failed; see its log")))

    def owns(self, handle: int) -> bool:
        """Whether what was gathered under this handle is for a command."""
        return self._jobs.owns(handle)

    def gathered(self, event: Gathered) -> None:
        """The shards have answered."""
        self._jobs.gathered(event.handle, event.replies)

    def dropped(self, handle: int) -> None:
        """Nobody waits for the answer any more."""
        self._jobs.dropped(handle)

    def opened(self, session: Session) -> None:
        """A connection came."""
        session.user = self.stranger()
        self.sessions.add(session)
        self.look_at(session)

    def closed(self, connection: int) -> None:
        """A connection went."""
        self.sessions.remove(connection)
        self._kept.pop(connection, None)

    def stranger_since(self, connection: int) -> float | None:
        """Since when a connection has not said who it is, where it has to; None where it has."""
        session = self.sessions.get(connection)
        return session.stranger_s if session is not None and session.user is None else None

    def users_changed(self) -> list[int]:
        """The users are others now: connections get the rights of today. Those whose user is gone are returned."""
        gone = []
        for session in self.sessions:
            if session.user is None:
                continue
            session.user = session.user.current()
            if session.user is None:
                gone.append(session.connection)
            self.look_at(session)
        return gone

    def look_at(self, session: Session) -> None:
        """Tell the kernel which of the session's commands are its own business."""
        is_slow = session.queued is not None or session.user is None or not session.user.is_free
        self._dispatch.tune(
            session.connection,
            slow=is_slow or self._kept_until_s > 0,
            keyspace=session.keyspace,
            version=session.version,
            rights=0 if session.user is None else 1,
        )

    # ---- one command ----

    def _take(self, handle: int, session: Session, arguments: list[bytes]) -> None:
        name = arguments[0].lower().decode("latin-1")
        if self._dispatch.draining:
            raise errors.Draining
        command = TABLE.get(name)
        if session.user is None and name not in _FOR_STRANGERS:
            raise CommandError("NOAUTH Authentication required.")
        if command is None:
            raise _unknown(arguments)
        session.last = name
        if (command.arity > 0 and len(arguments) != command.arity) or len(arguments) < -command.arity:
            if name == "exec":
                self._end_queue(session)
                raise CommandError(f"EXECABORT Transaction discarded because of: {wrong_arity(name).text[4:]}")
            raise wrong_arity(name)
        subcommands.check(arguments)
        if session.user is not None:
            session.user.check(command, arguments)
        if self._holds_back(command):
            self._keep(handle, session, arguments)
            return
        self.calls[name] = self.calls.get(name, 0) + 1
        if session.queued is not None and name not in _NOT_QUEUED:
            self._queue(session, arguments)
            self._answer(handle, session.version, "QUEUED")
            return
        if name == "exec":
            self._run_queue(handle, session)
            return
        self._run(handle, session, command, arguments)

    def _started(self, session: Session, command: Command, arguments: list[bytes]) -> Any:
        """What its implementation returns: a plan, or the reply."""
        if command.run is not None:
            return command.run(arguments, self._context(session.keyspace))
        return self.own[command.name](session, arguments)

    def _context(self, keyspace: int) -> CommandContext:
        return CommandContext(self._shards, keyspace)

    def _run(self, handle: int, session: Session, command: Command, arguments: list[bytes]) -> None:
        started = self._started(session, command, arguments)
        if isinstance(started, Later):
            self._begin(handle, session, started)
            return
        if not isinstance(started, Generator):
            self._answer(handle, session.version, started)
            return
        try:
            first: list[Operation] = started.send(None)
        except StopIteration as end:
            self._answer(handle, session.version, end.value)
            return
        if command.right == "write" and len(first) > 1:
            self._refuse_half(first, session.keyspace)
        shards = self._jobs.shards_of(first, session.keyspace) if command.moments > 1 else frozenset[int]()
        self._start(handle, session, Job(started, handle, session.keyspace, lambda _: None, shards=shards), first,
                    is_single=command.moments == 1)  # fmt: skip

    def _begin(self, handle: int, session: Session, later: Later) -> None:
        self._dispatch.tune(session.connection, waiting=True)

        def done(reply: Any) -> None:
            if self.sessions.get(session.connection) is not None:
                self._dispatch.tune(session.connection, waiting=False)
            self._answer(handle, session.version, reply)

        later.begin(done)

    def _refuse_half(self, operations: list[Operation], keyspace: int, *, is_each: bool = False) -> None:
        """What is to be done at one moment is refused as a whole, where a part of it would be."""
        code = self._dispatch.refusal(operations, keyspace, is_each)
        if code:
            raise errors.BY_CODE[code]

    def _start(self, handle: int, session: Session, job: Job, first: list[Operation], *, is_single: bool) -> None:
        """Run a job; what its connection sends next comes after it, also where it takes its time."""
        if not is_single:
            self._dispatch.tune(session.connection, waiting=True)

        version = session.version

        def done(reply: Any) -> None:
            if not is_single and self.sessions.get(session.connection) is not None:
                self._dispatch.tune(session.connection, waiting=False)
            self._answer(handle, version, reply)

        job.done = done
        self._jobs.start(job, first)

    def _answer(self, handle: int, version: int, reply: Any) -> None:
        if isinstance(reply, CommandError):
            self._answer_error(handle, reply.text)
        elif isinstance(reply, KioError):
            self._answer_error(handle, text_of(reply))
        else:
            self._dispatch.answer(handle, encode(reply, version))

    def _answer_error(self, handle: int, text: str) -> None:
        self._dispatch.answer(handle, encode_error(text))

    # ---- MULTI ----

    def _spoil(self, session: Session) -> None:
        """A command that was refused before it was queued spoils the transaction."""
        if session.queued is not None:
            session.queue_error = True

    def _queue(self, session: Session, arguments: list[bytes]) -> None:
        assert session.queued is not None
        size = sum(map(len, arguments)) + 64 * len(arguments)
        if session.queued_bytes + size > _QUEUED_BYTES_MAX:
            raise CommandError(f"ERR a transaction holds at most {_QUEUED_BYTES_MAX} bytes")
        self._need_room(size)
        session.queue(arguments, size)

    def _need_room(self, size: int) -> None:
        if self.sessions.held.bytes + size > _HELD_BYTES_MAX:
            raise CommandError(
                f"BUSY the transactions of all clients hold {_HELD_BYTES_MAX} bytes already; retry later"
            )

    def _multi(self, session: Session, arguments: list[bytes]) -> str:
        if session.queued is not None:
            raise _Unspoiling("ERR MULTI calls can not be nested")
        session.begin_queue()
        self.look_at(session)
        return "OK"

    def _discard(self, session: Session, arguments: list[bytes]) -> str:
        if session.queued is None:
            raise CommandError("ERR DISCARD without MULTI")
        self._end_queue(session)
        return "OK"

    def _end_queue(self, session: Session) -> None:
        session.end_queue()
        session.unwatch()
        self.look_at(session)

    def _watch(self, session: Session, arguments: list[bytes]) -> Any:
        if session.queued is not None:
            raise _Unspoiling("ERR WATCH inside MULTI is not allowed")
        return self._watching(session, arguments[1:])

    def _watching(self, session: Session, keys: list[bytes]) -> Any:
        keyspace = session.keyspace
        new = [key for key in dict.fromkeys(keys) if (keyspace, key) not in session.watched]
        size = sum(map(len, new)) + 64 * len(new)
        if session.watched_bytes + size > _QUEUED_BYTES_MAX:
            raise CommandError(f"ERR a connection watches keys of at most {_QUEUED_BYTES_MAX} bytes")
        self._need_room(size)
        swaps = -1
        while swaps != self._swaps:  # what was asked before is of other keys than those that are called so now
            swaps = self._swaps
            versions = yield [ops.version(key) for key in new]
        session.watch({(keyspace, key): version for key, version in zip(new, versions, strict=True)}, size)
        return "OK"

    def _unwatch(self, session: Session, arguments: list[bytes]) -> str:
        session.unwatch()
        return "OK"

    def _exec(self, session: Session, arguments: list[bytes]) -> Any:
        raise CommandError("ERR EXEC without MULTI")

    def _run_queue(self, handle: int, session: Session) -> None:
        if session.queued is None:
            raise CommandError("ERR EXEC without MULTI")
        queued, watched, is_spoilt = session.queued, session.watched, session.queue_error
        self._end_queue(session)
        if is_spoilt:
            raise CommandError("EXECABORT Transaction discarded because of previous errors.")
        steps = []
        keyspaces = []
        keyspace = session.keyspace
        for arguments, _ in queued:
            command = TABLE[arguments[0].lower().decode()]
            keyspaces.append(keyspace)
            if command.run is None:
                late = partial(self._late, session, command, arguments)
                steps.append(transactions.Step(None, [], True, late=late))
                if command.name == "select":
                    with suppress(CommandError):  # it is refused when its turn has come
                        keyspace = keyspace_number(arguments[1])
            else:
                run = partial(self._checked, session, command)
                steps.append(transactions.begin(run, arguments, self._context(keyspace), command.moments))
        operations = [operation for step in steps for operation in step.first]
        watching = [Operation(0, key, keyspace=keyspace) for keyspace, key in watched]
        shards = self._jobs.shards_of(operations + watching, session.keyspace)
        is_single = not watched and all(step.is_simple for step in steps)
        is_late = any(step.late is not None for step in steps)
        self._refuse_half(operations + watching, session.keyspace, is_each=True)
        plan = self.sessions.executing(transactions.transaction(steps, keyspaces, watched), watched)
        first = next(plan) if steps or watched else []
        job = Job(plan, handle, session.keyspace, lambda _: None, shards=frozenset() if is_single else shards,
                  takes_errors=True)  # fmt: skip
        if not steps and not watched:
            self._answer(handle, session.version, [])
            return
        self._start(handle, session, job, first, is_single=is_single and not is_late)

    def _checked(self, session: Session, command: Command, arguments: list[bytes], context: Context) -> Any:
        """Run a command on keys with the rights of this moment: they may be others than when it was queued."""
        assert command.run is not None
        _check(session, command, arguments)
        return command.run(arguments, context)

    def _late(self, session: Session, command: Command, arguments: list[bytes]) -> Any:
        """The same for one that is about the connection or the daemon."""
        _check(session, command, arguments)
        started = self.own[command.name](session, arguments)
        if isinstance(started, Later):
            raise CommandError(f"ERR {command.name.upper()} has to wait, which is not possible within MULTI")
        return started

    # ---- SWAPDB (swapping.py) ----

    def run_alone(self, plan: Plan, done: Callable[[Any], None]) -> None:
        """Run a plan that takes errors as results, while no other command holds a shard."""
        self._jobs.start_alone(plan, done)

    def map_keyspaces(self, places: bytes) -> None:
        """Let the keyspaces be where `places` says (Dispatch.map_keyspaces)."""
        self._swaps += 1
        self._dispatch.map_keyspaces(places)

    # ---- CLIENT PAUSE ----

    def hold_back(self, seconds: float, *, is_all: bool) -> None:
        """Keep commands (those that write, or all) for so long; 0 ends it."""
        self._kept_until_s = monotonic_s() + seconds if seconds > 0 else 0.0
        self._kept_is_all = is_all
        for session in self.sessions:
            self.look_at(session)
        self.tick()

    def stall(self, seconds: float, done: Callable[[Any], None]) -> None:
        """Keep all commands for so long, and then answer OK to the one that wanted it (DEBUG SLEEP)."""
        self._stalled.append(done)
        self.hold_back(seconds, is_all=True)

    def tick(self) -> None:
        """Look whether what is kept may go on; to be called some times a second."""
        if self._kept_until_s > monotonic_s():
            return
        if self._kept_until_s:
            self._kept_until_s = 0.0
            for session in self.sessions:
                self.look_at(session)
        stalled, self._stalled = self._stalled, []
        for done in stalled:
            done("OK")
        kept, self._kept = self._kept, {}
        for connection, (handle, arguments) in kept.items():
            self._dispatch.tune(connection, waiting=False)
            self.command(handle, connection, arguments)

    def _holds_back(self, command: Command) -> bool:
        if self._kept_until_s <= monotonic_s() or command.name == "client":
            return False
        return self._kept_is_all or "write" in command.flags or command.name == "exec"

    def _keep(self, handle: int, session: Session, arguments: list[bytes]) -> None:
        self._dispatch.tune(session.connection, waiting=True)
        self._kept[session.connection] = handle, arguments


def _check(session: Session, command: Command, arguments: list[bytes]) -> None:
    if session.user is None:
        raise CommandError("NOAUTH Authentication required.")
    session.user.check(command, arguments)


class _Unspoiling(CommandError):
    """A command that is refused within MULTI without spoiling it."""


def _unknown(arguments: list[bytes]) -> CommandError:
    name = arguments[0][:_SHOWN_BYTES_MAX].decode("latin-1")
    shown = ""
    for argument in arguments[1:]:
        if len(shown) >= _SHOWN_BYTES_MAX:
            break
        shown += f"'{argument[: _SHOWN_BYTES_MAX - len(shown)].decode('latin-1')}' "
    return CommandError(f"ERR unknown command '{name}', with args beginning with: {shown}")


def _error_texts() -> list[tuple[int, bytes, bytes, bool]]:
    """What the kernel tells of each error: code, prefix, text, and whether that is all."""
    told = []
    for code, error in errors.BY_CODE.items():
        if code >= 128:
            continue
        prefix, _, text = text_of(error()).partition(" ")
        is_fixed = text_of(error("x")) == text_of(error())
        told.append((code, prefix.encode() + b" ", text.encode(), is_fixed))
    return told
