"""Tests that start the real daemon: real processes, real files, real sockets, and faults from outside.

    daemon.py    one `kio serve`: start, find its processes, signal them, stop, prove that nothing is left
    rawwire.py   the protocol by hand over a socket: what a well-behaved client would never send
    oracle.py    values that name their writer, journals of what was acknowledged, the judge of both
    writer.py    a load generator: one process, one client, one journal
    load.py      several writers at once, and the verdict over all of them
    probe.py     one shard asked again and again: when did it answer, and with which error
    strace.py    what a process asks of the kernel, and faults put into single calls

tests/crash uses the same and asks what a crash did to the data; here the question is how the processes behave together.
`FULL=1` takes the counts of the acceptance list instead of small ones, `SEED=n` repeats a run.
"""
