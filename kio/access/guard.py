"""The pauses between failed tries: who guesses passwords waits longer each time.

Sans-I/O: the time is handed in. A try counts as failed from the moment it is made until `succeeded` takes that back, so
that a hundred tries at once are a hundred tries. The first FREE_TRIES cost nothing; after that each failure doubles the
pause, from PAUSE_S to PAUSE_S_MAX. Who made no try for FORGET_S is forgotten.
Bounds: the table holds PEERS_MAX peers; past it the one that was quiet longest is forgotten. Who has more addresses
than that is held back by the one thread that checks (verifier.py).
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final, NamedTuple

FREE_TRIES: Final = 5
PAUSE_S: Final = 0.5
PAUSE_S_MAX: Final = 60.0
FORGET_S: Final = 900.0
PEERS_MAX: Final = 4_096


class _Failures(NamedTuple):
    tries: int
    last_s: float
    again_s: float


class Guard:
    """The failed tries of all peers.

    Args:
        peers_max: how many are remembered.
    """

    def __init__(self, peers_max: int = PEERS_MAX) -> None:
        self._peers_max = peers_max
        #: Peer -> its failures; who was quiet longest comes first.
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def attempt(self, peer: str, now_s: float) -> float:
        """0.0 when `peer` may try now, and the try is counted; else the seconds until it may, and nothing is counted.

        Args:
            peer: who tries, as `network` names it.
            now_s: the monotonic clock.
        """
        self._forget(now_s)
        tries, _, again_s = self._failures.get(peer, _Failures(0, now_s, now_s))
        if now_s < again_s:
            return again_s - now_s
        tries += 1
        pause_s = 0.0 if tries < FREE_TRIES else min(PAUSE_S_MAX, PAUSE_S * 2.0 ** min(tries - FREE_TRIES, 32))
        self._failures[peer] = _Failures(tries, now_s, now_s + pause_s)
        self._failures.move_to_end(peer)
        if len(self._failures) > self._peers_max:
            self._failures.popitem(last=False)
        return 0.0

    def succeeded(self, peer: str) -> None:
        """The last try of `peer` was right: its failures are forgotten."""
        self._failures.pop(peer, None)

    def __len__(self) -> int:
        return len(self._failures)

    def _forget(self, now_s: float) -> None:
        while self._failures:
            peer, failures = next(iter(self._failures.items()))
            if now_s - failures.last_s < FORGET_S:
                return
            del self._failures[peer]


def network(host: str) -> str:
    """Who counts as one peer: an IPv4 address, or the 64 bits of an IPv6 network, whose hosts are one's own to number.

    Whatever is no address (a Unix socket's "unix") is a peer by that name.

    >>> network("10.1.2.3"), network("2001:db8::1"), network("::ffff:10.1.2.3"), network("unix")
    ('10.1.2.3', '2001:db8::/64', '10.1.2.3', 'unix')
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
