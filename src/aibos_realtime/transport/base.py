"""The seam to clients: what carries frames to one peer, and what it tells the socket on top of it.

Transports know WebSocket frames and nothing of messages, rooms or users. All are used from the event loop's thread alone.
"""

from __future__ import annotations

from typing import Protocol


class Transport(Protocol):
    """Carries whole server frames to one peer. No method waits."""

    remote_address: str
    """The peer's IP address, or "" where there is none."""

    shows_life: bool
    """Whether a PING is answered by a PONG that the peer object gets to see; where not, life signs are somebody else's business."""

    def write(self, data: bytes) -> None:
        """Send one or several whole frames. After `close` or `abort`: dropped."""

    def buffered(self) -> int:
        """Bytes taken by `write` that the peer's network has not taken yet."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, wait for the peer's at most `CLOSE_TIMEOUT`, then end. Ends in `Peer.disconnected`."""

    def abort(self) -> None:
        """End at once; what is buffered is lost. Ends in `Peer.disconnected`."""


class Peer(Protocol):
    """What a transport tells: the socket on top of it."""

    def received(self, opcode: int, payload: bytes) -> None:
        """One whole message: TEXT (proven UTF-8) or BINARY, or a PING or PONG that the transport has dealt with already."""

    def writing_paused(self) -> None:
        """More than the soft limit is buffered."""

    def writing_resumed(self) -> None:
        """The buffer has drained to where writing is cheap again."""

    def disconnected(self, code: int, reason: str) -> None:
        """The last call: the connection is gone. 1006 where no close frame came."""


CLOSE_TIMEOUT = 2.0
"""Seconds a peer has to answer a close frame."""

ASSEMBLY_TIMEOUT = 10.0
"""Seconds a peer has to finish a frame, or a message in fragments."""
