"""Commands: what each does, once, for every protocol.

    Owns: the table of commands (table.py); what a command makes of a key's state (state.py and the files of functions
    beside it, which run where the record is, in the shard); how a command is made of operations (plans).
    Never: sockets, bytes of a protocol, files, shards. A front door translates its protocol into these.

    table.py            what each command is called, takes and may; which plan runs it
    plans_*.py          the plans, by what they are about; arguments.py reads what several of them share
    functions.py        all functions of the shard: strings.py, bits.py, bitfield.py, expiry.py, dump.py, inspection.py
    longdouble.py, lcs.py               one algorithm each
    replies.py, error_texts.py          what is answered, and how it is refused

A command that looks at one key is a function in the shard: (state, arguments, now) -> (reply, change). So it is atomic,
and one hop. One that looks at several keys is a plan: a generator that yields the operations of one moment, gets their
results, and returns the reply (ops.py says of what).
"""
