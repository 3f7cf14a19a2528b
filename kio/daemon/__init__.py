"""The daemon: `kio serve`.

                    supervisor: one process, one loop in its main thread
     DATA/LOCK  ---  lock, identity, listening sockets, restarts, ordered stop
                      |  control sockets (kio/control.py)     | a snapshot
            +---------+----------+                            admin HTTP (a thread)
         router             worker 0 .. n

Owns the lock on the data directory, the listening sockets (so that a router that restarts refuses no connection), the
children, and what they last told of themselves. Never touches a record and never sees a request: the daemon serves
while this process sleeps, and every child dies with it.

    supervisor.py   serve(): assembly, the loop, the ordered stop
    children.py     when a child is restarted, and when no longer        (sans-I/O)
    process.py      one child process: spawn, control socket, end
    topology.py     what is known of the parts: for the router, /readyz and /metrics
    listeners.py    sockets to listen on, the directory of the pipes
    cpus.py         how many workers, and which core each gets
    notify.py       the protocol of systemd's notify socket
    http.py         the admin HTTP door;  exposition.py: its /metrics
    banner.py       the lines at start
"""
