"""The start of the router process: `python -m kio.router --control-fd N`, run by the supervisor and by nobody else.

In this order: die with the supervisor; take `configure`; adopt the listening sockets; say `ready`; loop.
"""

from __future__ import annotations

import argparse
import gc
import signal
import socket
import sys

from kio import control, log
from kio.errors import ConfigError
from kio.router.loop import RouterLoop

_log = log.Log(__name__)


def main() -> int:
    """The process: the exit code."""
    for number in (signal.SIGINT, signal.SIGHUP):  # of a terminal: they are for the supervisor
        signal.signal(number, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="python -m kio.router", description="The router; started by `kio serve`.")
    parser.add_argument("--control-fd", type=int, required=True, metavar="N")
    sock = control.from_fd(parser.parse_args().control_fd)
    control.die_with_supervisor(sock)
    configure = control.receive(sock)
    if configure is None:
        return 1
    log.configure(configure["log_level"], configure["log_format"])
    try:
        doors: dict[str, list[socket.socket]] = {"native": [], "resp": []}
        for each in configure["listeners"]:
            doors[each["protocol"]].append(socket.socket(fileno=each["fd"]))
        loop = RouterLoop(sock, configure, doors["native"], doors["resp"])
    except ConfigError as error:
        control.send(sock, {"type": "failed", "error": type(error).__name__, "message": str(error)})
        return 1
    except (OSError, ValueError) as error:
        _log.exception("start failed")
        control.send(sock, {"type": "failed", "error": type(error).__name__, "message": str(error)})
        return 1
    # What was made so far lives as long as the process; the loop leaves little behind, and cycles never.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    return loop.run()


if __name__ == "__main__":
    sys.exit(main())
