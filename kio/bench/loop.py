"""The generator's loop: sends what is due, reads what comes, writes down how long it took.

    schedule (or, in the closed loop, "always")       operations drawn beforehand
               |  the oldest that is due                       |  the next ones
               v                                               v
    free slots ----> request encoded and sent ----> outstanding on its connection ----> reply ----> ledger
        ^                                                                                 |
        +---------------------------------------------------------------------------------+

Invariants:
  * requests are sent in the order in which they were due, whichever slot is free; none is skipped or due anew;
  * replies answer the requests of their connection in order;
  * an operation ends once: answered (done, or failed by its reply), ConnectionLost, Unanswered or Unsent.
What was never answered is in the corrected histogram with its age at the end, a lower bound of its latency. What was
answered with an error is in no histogram: a quick refusal is no service.
"""

from __future__ import annotations

import os
import select
import time
from array import array
from bisect import bisect_right
from collections import deque
from typing import Final

from kio.bench.connection import Connection, Slot, code_of
from kio.bench.fleet import Fleet
from kio.bench.frames import FAILED, Encoder, Tally
from kio.bench.ledger import Ledger
from kio.bench.plan import RMW, UPDATE, Plan
from kio.bench.precision import SPIN_NS, sleep_precisely, spin_ns
from kio.bench.supply import Supply
from kio.errors import ConnectionLost, KioError, ProtocolError

_RECEIVE_BYTES: Final = 64 << 10
#: How often the ledger's counters are written, and whatever needs no precision is looked at.
TICK_NS: Final = 50_000_000
RAN_DRY: Final = "what was drawn beforehand is used up: from here on the generator draws as it goes, and is slower"
_NEVER: Final = (1 << 63) - 1


class CoordinatorGone(Exception):
    """Raised when stdin ended: nobody wants the figures any more."""


class Loop:
    """One process's part of a run."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        fleet: Fleet,
        encode: Encoder,
        supply: Supply,
        schedule: array[int],
        tally: Tally,
        stdin: int,
    ) -> None:
        self._plan = plan
        self._ledger = ledger
        self._fleet = fleet
        self._encode = encode
        self._supply = supply
        self._schedule = schedule
        self._tally = tally
        self._stdin = stdin
        self._is_open = plan.is_open_loop
        self._spin_ns = spin_ns(schedule[-1] / len(schedule)) if schedule else SPIN_NS
        self._has_rmw = plan.mix.get("rmw", 0.0) > 0
        #: Requests that the closed loop may still send.
        self._requests_left = supply.requests_max
        self._write_back = bytes([UPDATE]) * plan.operations_per_request

        self._corrected = ledger.corrected.record
        self._uncorrected = ledger.uncorrected.record
        self._lateness = ledger.lateness.record

        self._epoll = fleet.epoll
        #: Free slots of connections that are up; the one that was free longest is taken.
        self._free: deque[Slot] = deque(
            connection.slots[number] for number in range(plan.depth) for connection in fleet.connections
        )
        self._outstanding = 0
        #: Operations sent, and operations that have ended in whatever way.
        self._sent = 0
        self._ended = 0
        #: The next arrival, by its number and its time.
        self._arrival = 0
        self._next_due_ns = _NEVER

        self._start_ns = 0
        self._drain_ns = round(plan.drain_s * 1e9)
        #: When the closed loop ends, or the last request is due; when what is outstanding then is given up.
        self._end_ns = 0
        self._give_up_ns = _NEVER
        self._tick_ns = 0
        self._is_over = False
        self._cpu_ns = 0

    def run(self, start_ns: int) -> None:
        """Carry out this process's part from `start_ns` on.

        Raises:
            CoordinatorGone: when stdin ends meanwhile.
        """
        self._start_ns = start_ns
        self._cpu_ns = time.process_time_ns()
        self._ledger.started_ns = start_ns
        self._epoll.register(self._stdin, select.EPOLLIN)
        for slot in self._free:
            slot.free_ns = start_ns
        if self._is_open:
            self._next_due_ns = start_ns + self._schedule[0] if self._schedule else _NEVER
            self._end_ns = start_ns + (self._schedule[-1] if self._schedule else 0)
            self._give_up_ns = self._end_ns + self._drain_ns
        else:
            self._next_due_ns = start_ns if self._requests_left else _NEVER
            self._end_ns = _NEVER if self._plan.count else start_ns + round(self._plan.seconds * 1e9)
        self._turn_until_over()
        self._settle(time.monotonic_ns())

    def _turn_until_over(self) -> None:
        clock, poll = time.monotonic_ns, self._epoll.poll
        by_fd, receive = self._fleet.by_fd, self._receive
        stall_ns = 0
        now = self._start_ns
        while (before := clock()) < now:
            sleep_precisely(self._epoll, now - before)
            for fd, mask in poll(0):
                self._unusual(fd, mask)
        turn_ns, asked_ns = now, 0
        while True:
            now = clock()
            if now - turn_ns - asked_ns > stall_ns:
                stall_ns = now - turn_ns - asked_ns
                self._ledger.stall_ns_max = stall_ns
                self._ledger.stall_at_ns = turn_ns
            turn_ns, asked_ns = now, 0
            if now >= self._tick_ns:
                self._tick(now)
            if self._is_over or (self._next_due_ns == _NEVER and not self._outstanding):
                return
            if self._next_due_ns <= now and self._free:
                self._send_what_is_due(now)
            events = poll(0)
            if not events:
                wake_ns = self._tick_ns
                if self._free and self._next_due_ns < wake_ns:
                    wake_ns = self._next_due_ns
                asked_ns = wake_ns - clock()
                if asked_ns > 0:
                    sleep_precisely(self._epoll, asked_ns, self._spin_ns)
                else:
                    asked_ns = 0
                continue
            for fd, mask in events:
                connection = by_fd.get(fd)
                if mask == select.EPOLLIN and connection is not None and connection.is_up:
                    receive(connection)
                else:
                    self._unusual(fd, mask)
                if self._free and self._next_due_ns <= clock():
                    self._send_what_is_due(clock())

    def _send_what_is_due(self, now: int) -> None:
        free = self._free
        while free and self._next_due_ns <= now:
            self._send(free.popleft())
            now = time.monotonic_ns()

    def _send(self, slot: Slot) -> None:
        """Send the oldest request that is due."""
        supply = self._supply
        first = supply.at
        supply.at = past = first + supply.step
        if past > supply.end:
            if not supply.ran_dry:
                self._fleet.event(time.monotonic_ns(), RAN_DRY)
            supply.draw()
            first, past = 0, supply.step
        kinds = supply.kinds[first:past]
        ids = supply.ids[first:past]
        sizes = supply.sizes[first:past]
        data = self._encode(kinds, ids, sizes, slot.number)
        if self._has_rmw:
            is_written_back = RMW in kinds
            slot.kinds = kinds if is_written_back else b""
            slot.ids, slot.sizes = ids, sizes
        slot.left = self._plan.pipeline
        connection = slot.connection
        connection.waiting.append(slot)
        self._outstanding += 1
        self._sent += supply.step
        slot.sent_ns = sent_ns = time.monotonic_ns()
        if not self._is_open:
            slot.due_ns = sent_ns
            self._requests_left -= 1
            if not self._requests_left:
                self._next_due_ns = _NEVER
                self._give_up_ns = sent_ns + self._drain_ns
            self._transmit(connection, data)
            return
        slot.due_ns = due_ns = self._next_due_ns
        self._transmit(connection, data)
        self._arrival = arrival = self._arrival + 1
        self._next_due_ns = self._start_ns + self._schedule[arrival] if arrival < len(self._schedule) else _NEVER
        self._lateness((sent_ns - max(due_ns, slot.free_ns) + 500) // 1000)

    def _transmit(self, connection: Connection, data: bytes) -> None:
        assert connection.socket is not None
        sent = 0
        if not connection.unsent:
            try:
                sent = connection.socket.send(data)
            except BlockingIOError:
                pass
            except OSError as error:
                self._lose(connection, error)
                return
        if sent < len(data) and connection.keep(data, sent):
            self._fleet.watch_unsent(connection, True)

    def _receive(self, connection: Connection) -> None:
        """Read what has come, and end what it answers."""
        assert connection.socket is not None
        try:
            data = connection.socket.recv(_RECEIVE_BYTES)
            now = time.monotonic_ns()
            if not data:
                raise ConnectionLost("the server closed it")
            outcomes = connection.replies.take(data)
            # All of them first: what is sent from here on cannot have been answered already.
            finished = self._answer(connection, outcomes, now)
        except BlockingIOError:
            return
        except (OSError, KioError) as error:
            self._lose(connection, error)
            return
        for slot in finished:
            if connection.is_up:
                self._finish(slot, now)
            else:
                self._give_up(slot, "ConnectionLost", now)

    def _answer(self, connection: Connection, outcomes: bytes, now: int) -> list[Slot]:
        """Give the next requests of a connection their outcomes; those that are answered now."""
        waiting = connection.waiting
        finished: list[Slot] = []
        count = len(outcomes)
        at = 0
        while at < count and waiting:
            slot = waiting[0]
            taken = min(count - at, slot.left)
            self._note(slot, outcomes[at : at + taken], now)
            at += taken
            slot.left -= taken
            if not slot.left:
                finished.append(waiting.popleft())
        error = connection.replies.error
        if at < count:
            # Nobody asked for them, but the tally has those that were errors.
            self._ended += outcomes.count(FAILED, at) * self._plan.batch
            error = ProtocolError("more replies than commands")
        if error is not None:
            for slot in finished:
                self._give_up(slot, code_of(error), now)
            raise error
        return finished

    def _note(self, slot: Slot, outcomes: bytes, now: int) -> None:
        """Write down the outcomes of the next commands of a request."""
        ended = len(outcomes)
        if slot.kinds and (read := self._read_back(slot, outcomes)):
            ended -= read
        self._ended += ended * self._plan.batch
        good = ended - outcomes.count(FAILED)
        if good:
            self._corrected((now - slot.due_ns + 500) // 1000, good)
            if self._is_open:
                self._uncorrected((now - slot.sent_ns + 500) // 1000, good)

    def _read_back(self, slot: Slot, outcomes: bytes) -> int:
        """How many of these commands are to be written back now that they were read."""
        first = self._plan.pipeline - slot.left
        read = [
            place for place, outcome in enumerate(outcomes, first) if slot.kinds[place] == RMW and outcome != FAILED
        ]
        slot.follow += read
        return len(read)

    def _finish(self, slot: Slot, now: int) -> None:
        """A request is answered: write back what is to be, or let the slot take the next request."""
        if slot.follow:
            places, slot.follow, slot.kinds = slot.follow, [], b""
            slot.left = len(places)
            slot.connection.waiting.append(slot)
            ids = array("Q", [slot.ids[place] for place in places])
            sizes = array("I", [slot.sizes[place] for place in places])
            self._transmit(slot.connection, self._encode(self._write_back[: len(places)], ids, sizes, slot.number))
            return
        slot.free_ns = now
        self._outstanding -= 1
        if self._next_due_ns <= now:
            self._send(slot)
        else:
            self._free.append(slot)

    def _unusual(self, fd: int, mask: int) -> None:
        """What is not a connection with something to read."""
        connection = self._fleet.by_fd.get(fd)
        if connection is None:
            # A connection that ended since epoll told of it is nobody's any more.
            if fd == self._stdin and not os.read(fd, _RECEIVE_BYTES):
                raise CoordinatorGone
        elif not connection.is_up:
            now = time.monotonic_ns()
            if self._fleet.advance(connection, mask, now):
                for slot in connection.slots:
                    slot.free_ns = now
                self._free.extend(connection.slots)
        else:
            if mask & select.EPOLLOUT:
                try:
                    if connection.send_unsent():
                        self._fleet.watch_unsent(connection, False)
                except OSError as error:
                    self._lose(connection, error)
                    return
            if mask & ~select.EPOLLOUT:
                self._receive(connection)

    def _lose(self, connection: Connection, error: OSError | KioError) -> None:
        """A connection ended that was up, and its requests with it. Again: nothing."""
        if not connection.is_up:
            return
        now = time.monotonic_ns()
        for slot in self._fleet.lose(connection, error, now):
            self._give_up(slot, code_of(error), now)
        free = [slot for slot in self._free if slot.connection is not connection]
        self._free.clear()
        self._free.extend(free)

    def _give_up(self, slot: Slot, code: str, now: int) -> None:
        """A request will get no further answer; it may have had all of them."""
        self._outstanding -= 1
        commands = slot.left + len(slot.follow)
        slot.follow, slot.kinds, slot.left = [], b"", 0
        if commands:
            operations = commands * self._plan.batch
            self._tally.fail(code, operations)
            self._ended += operations
            self._corrected((now - slot.due_ns + 500) // 1000, commands)

    def _tick(self, now: int) -> None:
        """Write the counters; look at whatever needs no precision."""
        self._tick_ns = now + TICK_NS
        if not self._is_open:
            if now < self._end_ns:
                self._tick_ns = min(self._tick_ns, self._end_ns)
            elif self._give_up_ns == _NEVER:
                self._next_due_ns = _NEVER
                self._give_up_ns = now + self._drain_ns
        if self._fleet.look(now):
            self._is_over = True
        if now >= self._give_up_ns or self._ledger.stop_requested:
            self._is_over = True
        self._write_counters(now)

    def _write_counters(self, now: int) -> None:
        ledger = self._ledger
        ledger.operations_sent = self._sent
        ledger.operations_done = self._ended - self._tally.failed
        ledger.operations_failed = self._tally.failed
        ledger.operations_missing = self._tally.missing
        ledger.connections_lost = self._fleet.lost
        ledger.cpu_ns = time.process_time_ns() - self._cpu_ns
        if self._is_open:
            ledger.operations_due = self._arrivals_due(now) * self._plan.operations_per_request

    def _arrivals_due(self, now: int) -> int:
        return bisect_right(self._schedule, now - self._start_ns, lo=self._arrival)

    def _settle(self, now: int) -> None:
        """The end: what was not answered or not sent is an error of the age that it has."""
        if not self._ledger.stop_requested:
            for connection in self._fleet.connections:
                for slot in connection.waiting:
                    self._give_up(slot, "Unanswered", now)
            unsent = self._schedule[self._arrival : self._arrivals_due(now)] if self._is_open else []
            for due in unsent:
                self._corrected((now - self._start_ns - due + 500) // 1000, self._plan.pipeline)
            if unsent:
                operations = len(unsent) * self._plan.operations_per_request
                self._tally.fail("Unsent", operations)
                self._ended += operations
                self._ledger.operations_unsent = operations
        self._write_counters(now)
        self._ledger.finished_ns = now
