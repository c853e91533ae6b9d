"""The life of a client: started, connected, lost, given up, closed; who waits for it, and what is left behind. No room and no message is
seen here."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from ..clock import Clock
from ..errors import ConnectionError, RealtimeError
from ..logs import get_logger
from ..protocol.client_session import ClientSession
from .conversation import Conversation
from .deadline import deadline
from .dispatcher import Delivery, Dispatcher
from .endpoints import Endpoints
from .options import ClientOptions
from .reconnect import Reconnection, State
from .tokens import TokenSource
from .websocket import CLOSE_TIMEOUT
from .wire import Wire

logger = get_logger("aibos_realtime.client")


class Lifecycle:
    """Owns the session and everything that runs. A closed one begins anew with `connect`; one that gave up goes on where it was."""

    def __init__(
        self,
        options: ClientOptions,
        endpoints: Endpoints,
        tokens: TokenSource,
        context: ssl.SSLContext | None,
        clock: Clock,
        random: Callable[[], float],
        dispatcher: Dispatcher,
        wire: Wire,
    ) -> None:
        self.state: State = "disconnected"
        self._options = options
        self._endpoints = endpoints
        self._tokens = tokens
        self._context = context
        self._clock = clock
        self._random = random
        self._dispatcher = dispatcher
        self._wire = wire
        self._waiters: set[asyncio.Future[None]] = set()
        self._run: asyncio.Task[None] | None = None
        self._reconnection: Reconnection | None = None
        self._failure: RealtimeError | None = None
        self._begin()

    def _begin(self) -> None:
        options = self._options
        self.session = ClientSession(buffer_size=options.buffer_size, timeout=options.request_timeout, inbox_bytes=options.inbox_bytes)
        self.conversation = Conversation(self.session, self._dispatcher, self._clock, self._wire)

    def check_started(self) -> None:
        """Raise `ConnectionError` where nothing could be sent, now or later."""
        if self.state == "closed":
            raise ConnectionError("The client was closed: connect() first.", retryable=False)
        if self.state == "disconnected":
            if self._failure is not None:
                raise ConnectionError(f"The client has given up. {self._failure}", retryable=False) from self._failure
            raise ConnectionError("The client is not connected: connect() first.", retryable=False)

    async def connect(self) -> None:
        """See `RealtimeClient.connect`."""
        if self.state == "connected":
            return
        if self._run is None:
            self._start()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            self._waiters.discard(waiter)
            if not self._waiters and self.state == "connecting":
                await self._end("disconnected", ConnectionError("The attempt to connect was cancelled."))
            raise
        finally:
            self._waiters.discard(waiter)

    async def close(self) -> None:
        """See `RealtimeClient.close`."""
        if self.state == "closed":
            return
        was_connected, self.state = self.state == "connected", "closed"
        self._dispatcher.discard()
        try:
            if was_connected and self._reconnection is not None:
                await self._reconnection.stop()
        finally:
            await self._end("closed", ConnectionError("The client was closed.", retryable=False))
        self._end_iterators(None)
        try:
            async with deadline(self._clock, CLOSE_TIMEOUT):
                await self._dispatcher.finish()
        except TimeoutError:
            logger.warning("a callback was cancelled: it did not end within %g s of close()", CLOSE_TIMEOUT)

    def _start(self) -> None:
        if self.state == "closed":
            self._begin()
        self._dispatcher.resume()
        self.state, self._failure = "connecting", None
        self._reconnection = Reconnection(
            self._options,
            self._endpoints,
            self._tokens,
            self._context,
            self._clock,
            self._random,
            self.conversation,
            self._dispatcher,
            self._set_state,
        )
        self._run = asyncio.get_running_loop().create_task(self._supervise(self._reconnection), name="aibos-realtime client")

    def _set_state(self, state: State) -> None:
        if self.state != "closed":
            self.state = state
        if state == "connected":
            self._release(None)

    async def _supervise(self, reconnection: Reconnection) -> None:
        try:
            await reconnection.run()
        except RealtimeError as error:
            self._give_up(error, is_told=error is reconnection.told)
        except Exception as error:
            # No waiter may hang because of a mistake of ours.
            failure = ConnectionError(f"The client failed with {type(error).__name__}.", retryable=False)
            failure.__cause__ = error
            self._give_up(failure, is_told=False)

    def _give_up(self, error: RealtimeError, is_told: bool) -> None:
        """No further attempt will be made by itself. Rooms and positions are kept for the next `connect`."""
        self._run = self._reconnection = None
        self._failure = error
        if self.state != "closed":
            self.state = "disconnected"
        lost = error
        if not isinstance(error, ConnectionError):
            lost = ConnectionError(str(error), retryable=False)
            lost.__cause__ = error
        self._stop_session(lost)
        if not is_told:
            self._dispatcher.tell("error", error)
        self._end_iterators(lost)
        self._release(error)

    async def _end(self, state: State, error: ConnectionError) -> None:
        """Stop attempts and connection, and let every waiter know."""
        run, self._run, self._reconnection = self._run, None, None
        if run is not None:
            run.cancel()
            await asyncio.wait([run])
        self.state = state
        self._stop_session(error)
        self._release(error)

    def _stop_session(self, error: RealtimeError) -> None:
        self.session.stop(error)
        self.conversation.pump()
        self.conversation.stop()

    def _end_iterators(self, error: RealtimeError | None) -> None:
        ending = Delivery("")
        ending.ends, ending.error = "*", error
        self._dispatcher.push(ending)

    def _release(self, error: RealtimeError | None) -> None:
        """Answer those who wait in `connect`."""
        for waiter in self._waiters:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
