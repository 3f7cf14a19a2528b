"""The front door: from clients' sockets to batches of operations, and back.

    door.py        listeners, connections, what is read and sent in a turn; the clocks that end idle connections
    poller.py      the epoll table that the owner's loop turns
    tls.py         TLS between a socket and Dispatch; no socket, no clock
    greeting.py    what a hello is answered with
    events.py      what Dispatch tells its owner
    _dispatch.pyx  Dispatch: frames in, batches out; replies in, frames out; no socket, no clock
      _native.pxd    the native protocol: checks a frame, encodes a reply
      _gather.pxd    operations to shards, answers to replies, deadlines, bounds: the heart, in plain C
      _request.pxd   requests in their connection's order
      _batch.pxd     operations in flight to a shard
      _handles.pxd   names of the rare requests that Python answers
      _msgpack.pxd   the part of msgpack that frames are made of
      _buffer.pxd    memory outside of the Python heap

Never does: know where an operation runs. It hands a batch to its backend's `submit(shard, batch)` and takes replies
through `deliver`; the router puts pipes behind it, a worker its own shards.
"""
