"""The load generator behind `kio bench`: what a server does to the latency of a program that does not wait for it.

    coordinator (run.py, in the CLI's process)
        |  plan: JSON on stdin          ^  a line when ready, a line at the end
        v                               |
    generator process 0..n  <---------->  ledger: histograms and counters in shared memory
        |  frames in bulk
        v
    the server that is measured, or the no-op server that shows the generator's own floor

Open loop: a schedule made beforehand says when each request is due, whatever the server does. What falls due while
every connection is busy waits in the generator and grows old: *corrected* latency counts from the moment a request was
due, *uncorrected* from the moment it was sent. Source: Gil Tene on coordinated omission; the HdrHistogram.

Owns: plans, schedules, operation streams, frames of the protocols that it speaks, figures. Never: anything of the
daemon. It shares no process with what it measures, and no process of the daemon imports it.
"""
