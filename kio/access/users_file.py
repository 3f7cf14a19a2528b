"""The file of users: read and checked, or changed as one.

    [ada]
    right = "write"                        read, write or admin
    prefixes = ["orders:", "ada:"]         left out: all keys
    password = "scrypt$15$8$1$...$..."     what `kio user password ada` stores

One table a user. `default` is who does not say a name; where it has no password it is who does not authenticate at all,
and where there is no such table everybody has to authenticate. Prefixes are text and stand for their UTF-8 bytes.

Invariants: a file that other users of the machine can read, or its group can write, is refused, and so is a whole file
for one fault in it: half of the users would be a surprise. A change is written beside the file, synced and renamed: a
crash leaves the old file or the new one. Changes of two commands at once wait for each other (a lock on the folder).
A change keeps the file's owner and mode, and does not keep comments.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from kio.access import passwords
from kio.access.users import DEFAULT_NAME, NAME, NAME_TEXT, Right, User
from kio.errors import ConfigError
from kio.limits import KEY_BYTES_MAX, MIB

FILE_BYTES_MAX: Final = 4 * MIB
USERS_MAX: Final = 10_000
PREFIXES_MAX: Final = 64
#: Bits of a file's mode that it must not have: all of others, and writing of its group.
MODE_REFUSED: Final = stat.S_IRWXO | stat.S_IWGRP
MODE_NEW: Final = 0o600
_FIELDS: Final = frozenset({"right", "prefixes", "password"})
_HEAD: Final = '# The users of kio, written by "kio user": comments are not kept.\n'


def read(path: Path) -> dict[str, User]:
    """The users that stand in a file, by name.

    Raises:
        ConfigError: when it cannot be read, others can read it, or anything in it is wrong.
    """
    users: dict[str, User] = {}
    document = _load(path)
    if len(document) > USERS_MAX:
        raise ConfigError(f"the users file {path} has {len(document)} users; it may have {USERS_MAX}")
    for name, fields in document.items():
        try:
            users[name] = _user(name, fields)
        except ConfigError as error:
            raise ConfigError(f"user {name!r} in {path}: {error}") from None
    return users


def write(path: Path, users: Mapping[str, User]) -> None:
    """Put `users` in the place of what the file holds; a new file has mode 600. Durable when this returns.

    Raises:
        ConfigError: when it cannot be written.
    """
    path = path.resolve()
    text = _HEAD + "".join(map(_table, users.values()))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        old = path.stat() if path.exists() else None
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, MODE_NEW)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
                if old is not None:
                    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                        os.fchown(descriptor, old.st_uid, old.st_gid)
                    os.fchmod(descriptor, stat.S_IMODE(old.st_mode) & ~MODE_REFUSED)
                file.write(text.encode("utf-8"))
                file.flush()
                os.fsync(descriptor)
            temporary.rename(path)
        except BaseException:
            with suppress(FileNotFoundError):
                temporary.unlink()
            raise
        with _opened_folder(path) as folder:
            os.fsync(folder)
    except OSError as error:
        raise ConfigError(f"the users file {path} cannot be written: {error.strerror}") from error


@contextmanager
def changing(path: Path) -> Iterator[dict[str, User]]:
    """The users, for changing: what the block leaves in the dict is written when it ends well.

    A file that is not there has no users. Nobody else changes the file meanwhile by this function.

    Raises:
        ConfigError: as `read` and `write` do.
    """
    path = path.resolve()
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(_opened_folder(path))
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError as error:
            raise ConfigError(f"the folder of the users file {path} cannot be opened: {error.strerror}") from error
        users = read(path) if path.exists() else {}
        before = dict(users)
        yield users
        if users != before:
            write(path, users)


@contextmanager
def _opened_folder(path: Path) -> Iterator[int]:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield folder
    finally:
        os.close(folder)


def _load(path: Path) -> Mapping[str, Any]:
    """The document of the file, whose mode is as it must be."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & MODE_REFUSED:
                raise ConfigError(
                    f"the users file {path} has mode {mode:03o}, so that others can read or its group can change it; "
                    f'run "chmod 600 {path}"'
                )
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise ConfigError(f"the users file {path} is longer than {FILE_BYTES_MAX} bytes")
        return tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        hint = '; "kio user add" makes it' if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"the users file {path} cannot be read: {error.strerror}{hint}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the users file {path} is not UTF-8: {error.reason} at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the users file {path} is not TOML: {error}") from None


def _user(name: str, fields: object) -> User:
    if not NAME.fullmatch(name):
        raise ConfigError(f"a name is {NAME_TEXT}")
    if not isinstance(fields, dict):
        raise ConfigError(f"a user is a table, [{name}]")
    unknown = sorted(fields.keys() - _FIELDS)
    if unknown:
        raise ConfigError(f"there is no field {unknown[0]!r}; a user has right, prefixes, password")
    return User(name, parse_right(fields.get("right")), _prefixes(fields.get("prefixes")), _password(name, fields))


def parse_right(text: object) -> Right:
    """The right of this name.

    Raises:
        ConfigError: when there is none.
    """
    names = {right.name.lower(): right for right in Right}
    if not isinstance(text, str) or text not in names:
        raise ConfigError(
            f"right is {'not given' if text is None else repr(text)}; it must be one of read, write, admin"
        )
    return names[text]


def parse_prefixes(texts: list[str]) -> tuple[bytes, ...]:
    """The prefixes that these texts stand for.

    Raises:
        ConfigError: when there are too many, or one is empty, too long or not UTF-8.
    """
    if len(texts) > PREFIXES_MAX:
        raise ConfigError(f"it has {len(texts)} prefixes; a user has at most {PREFIXES_MAX}")
    found = []
    for text in texts:
        try:
            prefix = text.encode("utf-8")
        except UnicodeEncodeError:
            raise ConfigError("a prefix is text: its bytes must be UTF-8") from None
        if not 1 <= len(prefix) <= KEY_BYTES_MAX:
            raise ConfigError(f"a prefix has 1 to {KEY_BYTES_MAX} bytes; leave prefixes out to allow all keys")
        found.append(prefix)
    return tuple(found)


def _prefixes(value: object) -> tuple[bytes, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise ConfigError("prefixes is a list of at least one text; leave it out to allow all keys")
    return parse_prefixes(value)


def _password(name: str, fields: Mapping[str, object]) -> passwords.Hashed | None:
    text = fields.get("password")
    if text is None:
        if name != DEFAULT_NAME:
            raise ConfigError(f'it has no password, which only {DEFAULT_NAME} may; run "kio user password {name}"')
        return None
    try:
        if not isinstance(text, str):
            raise ConfigError("it is not a text")
        return passwords.parse(text)
    except ConfigError as error:
        raise ConfigError(f'its password cannot be used: {error}; run "kio user password {name}"') from None


def _table(user: User) -> str:
    lines = [f"\n[{_quoted(user.name)}]", f"right = {_quoted(user.right.name.lower())}"]
    if user.prefixes:
        lines.append(f"prefixes = [{', '.join(_quoted(prefix.decode('utf-8')) for prefix in user.prefixes)}]")
    if user.password is not None:
        lines.append(f"password = {_quoted(str(user.password))}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's escapes are among its own; JSON leaves DEL as it is, TOML does not take it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
