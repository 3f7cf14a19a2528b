"""A lock among programs: one key that its holder made and that expires by itself, with a fencing token.

    with db.lock("report", ttl=30) as lock:
        storage.write(report, token=lock.token)

How: the holder sets the key, if it is absent, to 16 random bytes of its own and the ttl. To release it is to delete it,
to extend it to set it again, each on the condition that the record is still the holder's version.

What it guarantees
  * While a lock has not expired, by the daemon's clock, nobody else acquires it. Nobody releases or extends what has
    become another's.
  * `token`, the version of the record that acquired it, is greater than that of every holder before; also after a crash
    of the daemon, a promotion or a reshard. A pair of integers, which compares as tuples do.
What it does not
  * A holder does not learn that its lock expired. It may be paused for longer than the ttl (a garbage collection, a
    suspended machine) and go on while somebody else holds the lock. No lock with an expiry can prevent that: whatever
    the lock protects must remember the highest token that it has seen, and refuse lower ones. Where it cannot, the lock
    saves work but does not keep things right.
  * The daemon's wall clock times the ttl: who sets that clock forward makes locks expire sooner.
  * What the daemon's `sync` allows to lose in a power cut may be a lock; a data directory that is restored from a
    backup knows nothing of what came after it, tokens included.
  * It is not fair: of those that wait anybody may be the next. It is not reentrant.
  * When a reply is lost, the lock may be taken until its ttl is over although `acquire` raised.

The plans are shared by the lock of the blocking client and that of the asyncio client.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self

from kio import clock
from kio.client import arguments, operations, records
from kio.client.arguments import Key
from kio.client.calls import Calls
from kio.client.operations import Seconds, SetOptions
from kio.client.options import UNSET, Unset
from kio.client.plans import Plan, Round
from kio.client.records import Entry, Version
from kio.client.retry import Deadline, Poll
from kio.errors import KioError, LockLost, LockTimeout, RequestError

OWNER_BYTES: Final = 16


class Holding:
    """What the locks of both clients have in common; one thread or task uses it.

    Attributes:
        name: the lock's key.
        ttl: seconds that it is held unless extended.
        token: the fencing token while it is held, else None.
    """

    def __init__(self, calls: Calls, name: Key, ttl: Seconds) -> None:
        """`calls` are those of a client without a codec.

        Raises:
            TypeError, RequestError: when `name` can be no key, or `ttl` no ttl.
        """
        self.name = arguments.key(name)
        self.ttl = records.ttl_ms(ttl) / 1000
        self.token: Version | None = None
        self._calls = calls
        #: Who it is that holds it: new for each time.
        self._owner = b""
        #: Of the record as this holder knows it; `extend` makes a new one.
        self._version: Version | None = None
        #: When the first attempt began to set the record that may have been applied, or may still become so.
        self._unsure_since_s: float | None = None
        self._until_s = 0.0

    def __repr__(self) -> str:
        return f"<lock {self.name!r:.80}, {'held' if self.token else 'not held'}>"

    def left_s(self) -> float:
        """Seconds for which it is surely held, by this machine's clock; 0 or less when that is over."""
        return self._until_s - clock.monotonic_s() if self.token is not None else 0.0

    def trying(self) -> Plan[bool]:
        """Take it if nobody has it; whether that went well."""
        if self.token is not None:
            raise RequestError(f"the lock {self.name!r:.80} is held by this very object already; it is not reentrant")
        if not self._owner:
            self._owner = os.urandom(OWNER_BYTES)
        started_s, options = clock.monotonic_s(), SetOptions(ttl=self.ttl, if_absent=True)
        version: Version | None = None
        try:
            version = yield from self._calls.on_key(operations.set_with_version, self.name, self._owner, options)
        except KioError as error:
            if not error.maybe_applied:
                raise
            self._unsure_since_s = self._unsure_since_s or started_s
        if version is None and self._unsure_since_s is not None:
            found = yield from self._entry()
            if found is not None:
                version, started_s = found.version, self._unsure_since_s
        if version is None:
            return False
        self.token = self._version = version
        self._until_s = started_s + self.ttl
        return True

    def acquiring(self, timeout: float | None) -> Plan[Version]:
        """Take it, waiting `timeout` seconds for others to release it; the token."""
        deadline, poll = Deadline(timeout), Poll()
        while not (yield from self.trying()):
            left_s = deadline.left_s()
            if left_s <= 0:
                raise LockTimeout(f"the lock {self.name!r:.80} was held by somebody else all the time, {timeout:g} s")
            yield Round([], min(left_s, poll.next_s()), deadline)
        return self._held_version()

    def extending(self, ttl: Seconds | None) -> Plan[None]:
        """Let it expire `ttl` seconds from now."""
        if ttl is not None:
            self.ttl = records.ttl_ms(ttl) / 1000
        while True:
            started_s, options = clock.monotonic_s(), SetOptions(ttl=self.ttl, if_version=self._held_version())
            version: Version | None = None
            error: KioError | None = None
            try:
                version = yield from self._calls.on_key(operations.set_with_version, self.name, self._owner, options)
            except KioError as failed:
                error = failed
            if version is not None:
                self._version, self._until_s = version, started_s + self.ttl
                return
            if not (yield from self._is_ours(error)):
                self._forget()
                raise LockLost(f"the lock {self.name!r:.80} is no longer held: it expired or was removed")

    def releasing(self) -> Plan[None]:
        """Give it back."""
        while True:
            error: KioError | None = None
            is_gone = False
            try:
                is_gone = yield from self._calls.on_key(operations.delete, self.name, self._held_version())
            except KioError as failed:
                error = failed
            if is_gone or not (yield from self._is_ours(error)):
                self._forget()
                if is_gone or error is not None:  # it was there to be removed, or this very call removed it
                    return
                raise LockLost(f"the lock {self.name!r:.80} was not held to the end: it expired or was removed")

    def _is_ours(self, error: KioError | None) -> Plan[bool]:
        """Whether the record is still this holder's, in a version that a lost reply kept from it.

        Raises:
            KioError: `error`, when nothing was applied.
        """
        if error is not None and not error.maybe_applied:
            raise error
        found = yield from self._entry()
        if found is None:
            return False
        if error is not None and found.version == self._version:
            raise error
        self._version = found.version
        return True

    def _entry(self) -> Plan[Entry | None]:
        """The record, if it is this holder's."""
        found: Entry | None = yield from self._calls.on_key(operations.entry, self.name)
        return found if found is not None and found.value == self._owner else None

    def _held_version(self) -> Version:
        if self._version is None:
            raise RequestError(f"the lock {self.name!r:.80} is not held: acquire it first")
        return self._version

    def _forget(self) -> None:
        self.token = self._version = None
        self._owner, self._unsure_since_s = b"", None


class Lock(Holding):
    """A lock of the blocking client, made by `Client.lock`; the module says what it guarantees, and what not."""

    def __init__(
        self, run: Callable[[Plan[Any]], Any], calls: Calls, name: Key, ttl: Seconds, timeout: float | None
    ) -> None:
        super().__init__(calls, name, ttl)
        self._run = run
        self._timeout = timeout

    def acquire(self, timeout: float | Unset | None = UNSET) -> Version:
        """Take the lock; its fencing token, which is in `token` as well.

        `timeout` is how many seconds to wait while somebody else holds it: 0 tries once, None waits for ever; unless
        given, what `Client.lock` was given. A daemon that does not answer is the matter of the client's own timeout.

        Raises:
            LockTimeout: when somebody else held it all the time.
        """
        token: Version = self._run(self.acquiring(self._timeout if isinstance(timeout, Unset) else timeout))
        return token

    def extend(self, ttl: Seconds | None = None) -> None:
        """Hold the lock for `ttl` more seconds from now, or for its own ttl; the token stays.

        Raises:
            LockLost: when it is no longer held.
        """
        self._run(self.extending(ttl))

    def release(self) -> None:
        """Give the lock back.

        Raises:
            LockLost: when it was no longer held: it may have been somebody else's for a while.
        """
        self._run(self.releasing())

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.token is None:
            return
        try:
            self.release()
        except KioError as failed:
            if error is None:
                raise
            error.add_note(f"and the lock could not be released: {failed}")


class AsyncLock(Holding):
    """A lock of the asyncio client: the methods of the blocking one, awaited, and `async with`."""

    def __init__(
        self,
        run: Callable[[Plan[Any]], Coroutine[Any, Any, Any]],
        calls: Calls,
        name: Key,
        ttl: Seconds,
        timeout: float | None,
    ) -> None:
        super().__init__(calls, name, ttl)
        self._run = run
        self._timeout = timeout

    async def acquire(self, timeout: float | Unset | None = UNSET) -> Version:  # noqa: ASYNC109 - as the blocking one
        """Take the lock; its fencing token. As `Lock.acquire`."""
        token: Version = await self._run(self.acquiring(self._timeout if isinstance(timeout, Unset) else timeout))
        return token

    async def extend(self, ttl: Seconds | None = None) -> None:
        """Hold the lock for `ttl` more seconds from now; LockLost when it is no longer held."""
        await self._run(self.extending(ttl))

    async def release(self) -> None:
        """Give the lock back; LockLost when it was no longer held."""
        await self._run(self.releasing())

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.token is None:
            return
        try:
            await self.release()
        except KioError as failed:
            if error is None:
                raise
            error.add_note(f"and the lock could not be released: {failed}")
