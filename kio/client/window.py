"""How much of one call may be under way, so that neither side's buffers grow with the size of a batch."""

from __future__ import annotations

from typing import Final

from kio.client.protocol import Request
from kio.limits import MIB

FRAMES_MAX: Final = 512
#: What was asked for decides the size of the replies; four frames of plans.FRAME_KEYS.
KEYS_MAX: Final = 32_768
BYTES_MAX: Final = 16 * MIB


class Window:
    """The frames of one call that have no reply yet."""

    __slots__ = ("bytes", "frames", "keys")

    def __init__(self) -> None:
        self.frames = self.keys = self.bytes = 0

    @property
    def has_room(self) -> bool:
        """Whether one more frame may go out; an empty window always has room."""
        return self.frames < FRAMES_MAX and self.keys < KEYS_MAX and self.bytes < BYTES_MAX

    def add(self, request: Request, frame_bytes: int) -> None:
        """A frame went out."""
        self.frames += 1
        self.keys += request.keys
        self.bytes += frame_bytes + request.reply_bytes

    def remove(self, request: Request, frame_bytes: int) -> None:
        """Its reply came."""
        self.frames -= 1
        self.keys -= request.keys
        self.bytes -= frame_bytes + request.reply_bytes
