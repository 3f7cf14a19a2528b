"""Scripts that measure, by hand on a quiet machine: `python -m tests.measure.NAME`, each says its options with --help.

    canonical      kio beside redis-server, by kio bench; `make bench`, and the figures of README.md
    daemon         a daemon as one Python client sees it, beside redis-server
    frontdoor      the front door in process, on one core
    kernel         one shard in process, on one core
    amplification  room on the disk, bytes written and the latency of reads under sustained overwrites
    expiry         how soon expired keys are gone from counts, memory and disk
    backup         what a backup costs under writes at full speed, and whether it is right
    memory         memory and descriptors over millions of overwrites
    restart        how soon a daemon serves again, beside redis-server

The last five hold their figures against bars (verdict.py) and end with exit code 1 where one is missed; --quick shows
in seconds that they run. Beside them: servers.py starts, processes.py looks, numbered.py writes what can be computed.
"""
