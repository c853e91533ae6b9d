"""A plain echo on the server's own transport, for the Autobahn testsuite: the port, the frame reader and permessage-deflate, and nothing above them.

    python -m tests.conformance.echo_server [--port 9001] [--run COMMAND…]

Limits are raised to what the suite sends: 32 MiB and 100,000 fragments in a message. `--run` starts a command with the URL as its last argument, and
ends with it and its exit code; without it the server runs until it is interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from typing import Any

from aibos_realtime.clock import SYSTEM_CLOCK
from aibos_realtime.protocol import deflate
from aibos_realtime.protocol.frames import BINARY, TEXT, FrameReader, encode_frame
from aibos_realtime.server.loop import new_event_loop
from aibos_realtime.server.port import Port
from aibos_realtime.server.upgrade import Upgrade
from aibos_realtime.transport.http import Acceptance, HttpLimits, UpgradeRequest, Verdict
from aibos_realtime.transport.websocket import WebSocketTransport

MAX_MESSAGE = 32 * 1024 * 1024
MAX_FRAGMENTS = 100_000
SOFT_LIMIT = 256 * 1024


class Echo:
    """Sends back what it is told, and reads no more while the other side does not."""

    def __init__(self, transport: WebSocketTransport, agreed: deflate.Negotiated | None) -> None:
        self._transport = transport
        self._agreed = agreed

    def received(self, opcode: int, payload: bytes) -> None:
        if opcode not in (TEXT, BINARY):
            return
        if self._agreed is not None:
            payload = deflate.compress(payload, self._agreed.window_bits)
        self._transport.write(encode_frame(opcode, payload, rsv1=self._agreed is not None))

    def writing_paused(self) -> None:
        self._transport.pause_reading()

    def writing_resumed(self) -> None:
        self._transport.resume_reading()

    def disconnected(self, code: int, reason: str) -> None:
        pass


class EchoGate:
    """Lets everybody in who asks properly. A `transport.http.Gate`."""

    http_limits = HttpLimits()

    def __init__(self, *, max_message: int | None = MAX_MESSAGE, max_fragments: int | None = MAX_FRAGMENTS) -> None:
        self._max_message = max_message
        self._max_fragments = max_fragments

    def is_ours(self, path: str) -> bool:
        return True

    def refused(self, status: int) -> None:
        pass

    def decide(self, request: UpgradeRequest) -> Verdict:
        upgrade = Upgrade(request)
        refusal = upgrade.fault()
        if refusal is not None:
            return refusal
        offers = ", ".join(upgrade.all(b"sec-websocket-extensions")) or None
        agreed = deflate.negotiate(offers, max_message=self._max_message)
        headers = [("Sec-WebSocket-Accept", upgrade.accept())]
        if agreed is not None:
            headers.append(("Sec-WebSocket-Extensions", agreed.response))

        def open_stream(stream: asyncio.Transport, early: bytes) -> None:
            inflater = deflate.Inflater() if agreed is not None else None
            reader = FrameReader(max_message=self._max_message, max_fragments=self._max_fragments, inflater=inflater)
            transport = WebSocketTransport(stream, reader, request.peer_address)
            transport.attach(Echo(transport, agreed))
            transport.take_over(early, SOFT_LIMIT)

        return Acceptance(tuple(headers), open_stream)


async def no_app(scope: Any, receive: Any, send: Any) -> None:
    """The HTTP side: nothing is here."""
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def make_port(gate: EchoGate) -> Port:
    """A port, not yet open, that echoes."""
    return Port(gate=gate, app=no_app, has_app=False, clock=SYSTEM_CLOCK, tls=None)


async def serve(options: argparse.Namespace) -> int:
    port = make_port(EchoGate())
    await port.bind(options.host, options.port)
    await port.open()
    url = f"ws://{options.host}:{port.number}"
    print(f"echo on {url}", flush=True)
    try:
        if not options.run:
            await asyncio.Event().wait()
        return await asyncio.to_thread(subprocess.call, [*options.run, url])
    finally:
        await port.close(1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description="An echo server for the Autobahn testsuite.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--run", nargs=argparse.REMAINDER, help="a command to run; the URL becomes its last argument")
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(serve(parser.parse_args()))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        pass
