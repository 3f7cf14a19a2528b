"""Every error that kio raises, and the number by which it crosses the wire.

    KioError
    ├── RequestError                 the request can never succeed as it stands
    │   ├── KeyEmpty                 16
    │   ├── KeyTooLarge              17
    │   ├── ValueTooLarge            18
    │   ├── FrameTooLarge            19
    │   ├── BadRequest               20
    │   ├── UnknownOperation         21
    │   ├── NotAnInteger             22
    │   ├── NumberOverflow           23
    │   ├── Aborted                  24
    │   ├── NotAuthenticated         25
    │   └── NotPermitted             26
    ├── Unavailable                  the same request may succeed later: `retryable`
    │   ├── ShardDown                32
    │   ├── Overloaded               33
    │   ├── Draining                 34
    │   ├── ReplyTooLarge            35  (ask for fewer keys at once)
    │   ├── Timeout                  36  (also a TimeoutError)
    │   └── ConnectionLost           37  (also a ConnectionError; made by the client, never sent)
    ├── StorageError                 the disk, or what stands on it, needs an operator
    │   ├── Corrupt                  48
    │   ├── ShardReadOnly            49
    │   ├── DiskFull                 50
    │   ├── FormatTooNew             51
    │   ├── DirectoryInUse           52
    │   ├── DirectoryInvalid         53
    │   └── MemoryFull               54
    ├── ProtocolError                64  bytes that are not this protocol, or a version nobody here speaks
    ├── ConfigError                  65  a setting that is unknown, malformed or out of range
    ├── InternalError                66  a bug in kio; the message names where it was logged
    ├── PartialFailure               67  some keys of a batch failed: `.errors` tells which
    ├── LockTimeout                  68  somebody else held the lock all the time (also a TimeoutError)
    ├── LockLost                     69  the lock is no longer this holder's
    └── NotDecodable                 70  a value is not what the client's codec takes

67 to 70 are made by the client and never cross the wire.
`code` is the status byte in the op batch (opbatch.py) and the number in a reply frame (wire.py); codes below 16 are
successes. `exit_code` is what the CLI exits with. Messages are lower case, without full stop: facts, then the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class KioError(Exception):
    """The root of the tree: catch this to catch whatever kio raises.

    Attributes:
        maybe_applied: the write that failed may nevertheless have been, or still become, applied; repeat it only if it
            is idempotent.
    """

    code: ClassVar[int] = 66
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1
    text: ClassVar[str] = "something went wrong"

    def __init__(self, message: str = "", *, maybe_applied: bool = False) -> None:
        super().__init__(message or self.text)
        self.maybe_applied = maybe_applied


class RequestError(KioError):
    """Raised when a request can never succeed as it stands."""

    code = 20
    exit_code = 2
    text = "the request is malformed"


class KeyEmpty(RequestError):
    """Raised when a key has no bytes."""

    code = 16
    text = "a key has at least 1 byte"


class KeyTooLarge(RequestError):
    """Raised when a key is longer than 65,535 bytes."""

    code = 17
    text = "a key has at most 65535 bytes"


class ValueTooLarge(RequestError):
    """Raised when a value is longer than the daemon's `max_value_bytes`."""

    code = 18
    text = "the value is longer than max_value_bytes"


class FrameTooLarge(RequestError):
    """Raised when one frame is longer than the daemon takes; send the batch in smaller frames."""

    code = 19
    text = "the frame is longer than the daemon takes; split the batch"


class BadRequest(RequestError):
    """Raised when a frame is well-formed but its arguments are not those of its operation."""

    code = 20
    text = "the arguments are not those of the operation"


class UnknownOperation(RequestError):
    """Raised when the daemon does not know the operation's number."""

    code = 21
    text = "the daemon does not know this operation"


class NotAnInteger(RequestError):
    """Raised when `incr` meets a value that is not the decimal text of a 64-bit integer; nothing was applied."""

    code = 22
    text = "the value is not the decimal text of a 64-bit integer"


class NumberOverflow(RequestError):
    """Raised when the sum of an `incr` would leave the range of 64-bit integers; nothing was applied."""

    code = 23
    text = "the sum does not fit into a 64-bit integer"


class Aborted(RequestError):
    """Raised when an atomic batch was not applied, since an operation of it failed or its condition did not hold."""

    code = 24
    text = "another operation of this atomic batch failed: nothing of it was applied"


class NotAuthenticated(RequestError):
    """Raised when the daemon wants a user and a password, or those it was told are not right."""

    code = 25
    exit_code = 77
    text = "the daemon wants a user and a password, and these are not right"


class NotPermitted(RequestError):
    """Raised when the user may not do this, or not to this key; nothing was applied."""

    code = 26
    exit_code = 77
    text = "this user may not do this"


class Unavailable(KioError):
    """Raised when the same request may succeed later."""

    code = 32
    retryable = True
    exit_code = 75
    text = "the daemon cannot answer now"


class ShardDown(Unavailable):
    """Raised when the worker that owns the key's shard is away; it is being restarted."""

    code = 32
    text = "the worker of this shard is away; retry"


class Overloaded(Unavailable):
    """Raised when a bound on what may be in flight is reached; nothing was applied."""

    code = 33
    text = "too much is in flight for this shard; retry later"


class Draining(Unavailable):
    """Raised when the daemon is stopping and takes no new request; nothing was applied."""

    code = 34
    text = "the daemon is stopping"


class ReplyTooLarge(Unavailable):
    """Raised for the keys of a batch whose values no longer fit into one reply; ask for them in a smaller batch."""

    code = 35
    text = "the values of this batch do not fit into one reply; ask for fewer keys at once"


class Timeout(Unavailable, TimeoutError):
    """Raised when the deadline passed; unless the message says otherwise, a write may have been applied."""

    code = 36
    exit_code = 124
    text = "the deadline passed"


class ConnectionLost(Unavailable, ConnectionError):
    """Raised when the daemon cannot be reached, or the connection broke while a reply was awaited."""

    code = 37
    exit_code = 69
    text = "the connection to the daemon was lost"


class StorageError(KioError):
    """Raised when the disk, or what stands on it, needs an operator."""

    code = 48
    exit_code = 74
    text = "the storage needs an operator"


class Corrupt(StorageError):
    """Raised when bytes on disk do not match their checksum, or contradict each other."""

    code = 48
    exit_code = 65
    text = 'a record is corrupt; run "kio check"'


class ShardReadOnly(StorageError):
    """Raised for a write to a shard that stopped taking writes because the disk failed it."""

    code = 49
    text = 'this shard is read-only since a write or fsync failed; see "kio status"'


class DiskFull(StorageError):
    """Raised for a write that found no room on the disk; nothing was applied, reads and deletes go on."""

    code = 50
    text = "the disk is full; free some space"


class FormatTooNew(StorageError):
    """Raised when a file was written by a newer kio; nothing was touched."""

    code = 51
    exit_code = 76
    text = "the file was written by a newer version of kio"


class DirectoryInUse(StorageError):
    """Raised when another process holds the lock on a data directory or a shard."""

    code = 52
    exit_code = 73
    text = "the data directory is in use by another process"


class DirectoryInvalid(StorageError):
    """Raised when a data directory is not what its identity file says, or is not one at all."""

    code = 53
    exit_code = 78
    text = "this is not a kio data directory"


class MemoryFull(StorageError):
    """Raised for a new key past `max_memory_mib`; nothing was applied. Overwrites, reads and deletes go on."""

    code = 54
    text = "max_memory_mib is reached: no new key is taken; delete some, or raise it"


class ProtocolError(KioError):
    """Raised when bytes are not this protocol, or of a version that nobody here speaks."""

    code = 64
    exit_code = 76
    text = "this is not the kio protocol"


class ConfigError(KioError):
    """Raised when a setting is unknown, malformed or out of range."""

    code = 65
    exit_code = 78
    text = "a setting is wrong"


class InternalError(KioError):
    """Raised when kio itself is at fault; the daemon's log has the traceback."""

    code = 66
    exit_code = 70
    text = "kio is at fault; the daemon's log has the traceback"


class PartialFailure(KioError):
    """Raised by the client when some keys of a batch failed after all retries.

    Attributes:
        errors: key, as the caller gave it -> the error of that key.
        result: what the batch returned for the keys that did not fail.
    """

    code = 67
    exit_code = 1
    text = "some keys of the batch failed"

    def __init__(self, message: str = "", *, errors: Mapping[Any, KioError] | None = None, result: Any = None) -> None:
        super().__init__(message)
        self.errors: dict[Any, KioError] = dict(errors or {})
        self.result = result


class LockTimeout(KioError, TimeoutError):
    """Raised by the client when a lock was not free within the time that was given for it."""

    code = 68
    text = "the lock was held by somebody else all the time"


class LockLost(KioError):
    """Raised by the client when a lock expired, or was taken away, before it was released or extended."""

    code = 69
    text = "the lock is no longer held: it expired or was removed"


class NotDecodable(KioError):
    """Raised by the client when its codec makes nothing of a stored value."""

    code = 70
    text = "the value is not what the codec takes"


#: What the client alone makes: such a code in a reply is nobody's.
CLIENT_MADE: frozenset[type[KioError]] = frozenset({PartialFailure, LockTimeout, LockLost, NotDecodable})


def _leaves(base: type[KioError]) -> list[type[KioError]]:
    children = base.__subclasses__()
    return [leaf for child in children for leaf in _leaves(child)] if children else [base]


#: wire code -> class, for every class that can cross the wire.
BY_CODE: dict[int, type[KioError]] = {cls.code: cls for cls in _leaves(KioError)}


def from_wire(code: int, message: str = "", maybe_applied: bool = False) -> KioError:
    """The error that a reply's `code` stands for; an unknown code becomes an InternalError that names it."""
    cls = BY_CODE.get(code)
    if cls is None or cls in CLIENT_MADE:
        return InternalError(f"the daemon answered with unknown code {code}: {message}", maybe_applied=maybe_applied)
    return cls(message, maybe_applied=maybe_applied)
