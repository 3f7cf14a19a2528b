"""Control messages: what the supervisor and its children (workers, router) tell each other.

Each child has one end of a SOCK_SEQPACKET socket pair; one packet is one msgpack map with a "type". End of file means
that the other side is gone: a child then exits at once. Operations never travel here.

Supervisor to worker
    configure   worker, cpu (or None), shards: [..], data, pipes_dir, seed, directory_id, sync, sync_interval_ms,
                segment_bytes, space_amplification, dead_ratio, checkpoint_interval_s, open_segments,
                memory_bytes_max (of a shard; 0: none), max_value_bytes, log_level, log_format,
                read_only: {id: reason} of the shards that the disk failed in an earlier life of this worker
    pipe        name                bind a fresh pair of pipes (pipe_endpoints), drop the old pair; answered by `piped`
    drain       (none)              answer what is in the pipe, make all durable, seal, exit 0
Worker to supervisor
    ready       shards: {id: stats} recovery is done (sent once)
    piped       name
    stats       shards: {id: stats}, rss_bytes, cpu_s        every STATS_INTERVAL_S and when a state changes
    failed      error, message                               what kept it from starting, then it exits with 1
Supervisor to router
    configure   shards (count), seed, listeners: [{"fd", "kind": "tcp"|"unix", "protocol":
                "native"|"resp"}], pipes_dir, max_value_bytes, server, resp_port, settings (some, for CONFIG of
                RESP), max_connections, log_level, log_format, shard_operations_max, shard_bytes_max,
                users_file ("": none), is_exposed, protected_mode, tls (None, or cert_file, key_file, ca_file,
                min_version), idle_timeout_s, client_requests_per_s, keyspaces (256 bytes: by the keyspace that clients
                name, the one that stands in records)
    worker_up   worker, name, shards: [..]    connect to this pair of pipes, route these shards there
    worker_down worker, shards: [..]          fail what is in flight there with ShardDown, drop the pipes
    topology    status                        what the supervisor knows for `stats`: pids, restarts, ports, versions
    reload      (none)                        read the users and the certificates anew
    keyspaces   id, places, error             the answer to a `swap`: the map that holds from now on, as in `configure`,
                                              and what clients are told ("": it was swapped, and that is durable)
    drain       (none)                        stop taking requests, answer those in flight, exit 0
Router to supervisor
    ready       (none)
    swap        id, first, second             swap these keyspaces of clients, durably; answered in order
    stats       connections, requests, bytes_in, bytes_out, in_flight, buffer_bytes (held for clients),
                errors: {code: n}, per_op: {op: n}, tls_faults, authentication_failures, rss_bytes, cpu_s

The stats of a shard: state ("recovering" | "serving" | "full" | "read-only" | "failed"), reason, keys, live_bytes,
dead_bytes, disk_bytes, reserve_bytes (allocated for compaction on a full disk), segments, lsn, durable_lsn, epoch,
keydir_bytes, keys_fit (about how many keys memory_bytes_max allows; 0: it is 0), gets, hits, misses, sets, deletes,
expired, errors, refused (writes that found no room), bytes_read, bytes_written, syncs, sync_ms_last, unsynced_bytes,
sync = the mode, checkpoint_lsn and checkpoint_bytes (0: there is none), checkpoint_age_s (since the last one was begun,
or the shard was opened), checkpoint_ms_last (how long it took), checkpoint_at_ms (when it was taken, in ms since
1970; 0: none was), checkpoints (taken since the shard was opened),
checkpoint_fallbacks (1: it was opened without the one there was), amplification (bytes of records per live byte),
compaction_arrears (0 to 1: how far it is behind the writes, which are slowed down for it), and
since the shard was opened: compactions, compacted_bytes_read, compacted_bytes_written, segments_dropped;
compaction_ms_last (how long the last one took), compaction_at_ms (when it ended, in ms since 1970; 0: none did).

Pipes are ZeroMQ PUSH/PULL over ipc. A name holds the worker, its incarnation and the router's, so it is never used
twice. The worker binds both ends; the router connects.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import struct
from pathlib import Path
from typing import Any, Final

import msgpack

STATS_INTERVAL_S: Final = 0.5
#: A control message is at most this long: both ends ask the kernel for buffers of this size.
MESSAGE_BYTES_MAX: Final = 1 << 20

Message = dict[str, Any]

_PR_SET_PDEATHSIG: Final = 1
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_UCRED: Final = struct.Struct("iII")


def pipe_name(worker: int, worker_incarnation: int, router_incarnation: int) -> str:
    """The name of a pair of pipes, unique in the daemon's life."""
    return f"w{worker}.{worker_incarnation}-r{router_incarnation}"


def pipe_endpoints(pipes_dir: str, name: str) -> tuple[str, str]:
    """(operations, replies): the ZeroMQ endpoints of that pair."""
    return f"ipc://{pipes_dir}/{name}.ops", f"ipc://{pipes_dir}/{name}.rep"


def control_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected control sockets, the supervisor's (non-blocking) and the child's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for s in (ours, theirs):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES_MAX)
    ours.setblocking(False)
    return ours, theirs


def send(sock: socket.socket, message: Message) -> bool:
    """Send one message; False when the other side is gone or does not read (its buffer is full)."""
    try:
        sock.send(msgpack.packb(message), socket.MSG_NOSIGNAL)
    except (BlockingIOError, BrokenPipeError, ConnectionError):
        return False
    return True


def receive(sock: socket.socket) -> Message | None:
    """One message, or None at end of file.

    Raises:
        BlockingIOError: when the socket is non-blocking and nothing has come.
    """
    try:
        packet = sock.recv(MESSAGE_BYTES_MAX)
    except ConnectionError:
        return None
    if not packet:
        return None
    message: Message = msgpack.unpackb(packet, strict_map_key=False)
    return message


def from_fd(fd: int) -> socket.socket:
    """The child's end, from the descriptor it inherited; it is not passed on to anything the child starts."""
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


def die_with_supervisor(sock: socket.socket) -> None:
    """Have the kernel kill this process the moment its supervisor is gone; a child calls it before anything else.

    `sock` is the child's control socket: its peer's credentials tell the supervisor's pid, so that a supervisor which
    died before the call is noticed too. PR_SET_PDEATHSIG follows the thread that started the child: the supervisor's
    main one.
    """
    supervisor, _, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != supervisor:
        os._exit(1)


class ResidentMemory:
    """The memory that this process holds, as its stats tell it."""

    def __init__(self) -> None:
        self._bytes = 0

    def measure(self) -> int:
        """Resident bytes; the figure of before where no descriptor is left to ask with."""
        # The kernel is asked itself: a library would add a tenth to the time that a process takes to start.
        with contextlib.suppress(OSError):
            self._bytes = int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES
        return self._bytes
