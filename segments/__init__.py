"""Segments: what stands on disk, and the index over it. One Store is one shard.

    op batch --> Store --> engine: KeyDir + attached segments --> replies
                   |           |
                   |           v staged records
                   |        active segment ---full---> sealing ---job---> sealed (hints, footer)
                   v
                manifest: which segments there are, and in which state

Owns every file of a shard directory and every rule of recovery. Never knows sockets, processes or configuration
files; never starts a thread: what may take long is handed out as a Job for somebody's helper thread.

    format.py      the segment file; read this first          identity.py   the data directory: seed, shard count
    disk.py        the one door to the file system            recovery.py   from files to a Store's state
    manifest.py    the list of segments, an edit log          store.py      one shard: execute, rotate, sync, close
    segment.py     one segment file in use                    jobs.py       sync, seal, prepare
    sealing.py     the end of a sealed segment                opening.py    from checkpoint or hints to the KeyDir
    clock.py       the time that expiry goes by               expiry.py     what has expired leaves the KeyDir
    check*.py      the offline examination                    chain.py      prepared, active, sealing, sealed
    point.py       a state at one LSN, for a backup           backup.py     backups: taken, restored
    dump.py        the records of a segment, to look at       backup_file.py  the file that says what a backup is
    reshard.py     another number of shards                   reading.py     a shard that is only read
    checkpoint.py  the checkpoint file                        checkpointing.py  when and how one is taken
    compaction.py  when a shard is compacted                  victims.py    which of its segments
    rewrite.py     one compaction, step by step               copying.py    its jobs
    purging.py     what was cleared leaves the KeyDir
    options.py     what may be set                            maintenance.py  slices beside serving
    repair*.py     the ways out of what check finds           salvage*.py   what still reads of what is damaged
    the kernel:    _keydir.pyx the index, _engine.pyx batches, _hints.pyx scanning and rebuilding,
                   _checkpoint.pyx pages of the index to and from disk, _compact.pyx what survives a compaction,
                   _relocate.pyx words that follow it, _reshard.pyx live records for other shards, two C headers
"""

if not __name__.startswith("kio."):
    raise ImportError("this folder is imported as kio.segments; install kio, or run from the directory that holds kio/")
