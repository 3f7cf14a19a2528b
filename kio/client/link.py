"""The one connection of an asyncio client, whoever of its tasks needs it."""

from __future__ import annotations

import asyncio
import math

from kio.client.multiplexer import Multiplexer, open_multiplexer
from kio.client.options import Options
from kio.client.protocol import Limits
from kio.client.retry import Deadline
from kio.errors import KioError, RequestError, Timeout


class Link:
    """The connection of a client and of those made from it by `with_options`; made again when it breaks."""

    def __init__(self, settings: Options) -> None:
        self._options = settings
        self._current: Multiplexer | None = None
        self._opening: asyncio.Task[Multiplexer] | None = None
        self._is_closed = False
        #: What the daemon told last.
        self.limits = Limits()

    async def take(self, deadline: Deadline) -> Multiplexer:
        """A connection that works as far as one knows; tasks that wait for a new one wait for the same.

        Raises:
            ConnectionLost, ProtocolError: when none can be made.
            Timeout: when `deadline` passed first.
            RequestError: when the client is closed.
        """
        if self._is_closed:
            raise RequestError("this client is closed")
        if self._current is not None and self._current.error is None:
            return self._current
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        left_s = deadline.left_s()
        await asyncio.wait([opening], timeout=None if left_s == math.inf else max(0.0, left_s))
        if not opening.done():
            raise Timeout(f"no connection to {self._options.url} could be made in time")
        if opening.cancelled():
            raise RequestError("this client is closed")
        error = opening.exception()
        if isinstance(error, KioError):
            raise error
        return opening.result()

    async def close(self) -> None:
        """Close the connection; whoever asks later gets a RequestError."""
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self._current is not None:
            await self._current.close()

    async def _open(self) -> Multiplexer:
        if self._current is not None:
            await self._current.close()
        self._current = await open_multiplexer(self._options)
        self.limits = self._current.limits
        return self._current

    def _opened(self, task: asyncio.Task[Multiplexer]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # those who wait for it have it; nobody may be left to
