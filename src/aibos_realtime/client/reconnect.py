"""Keeps a client connected: attempt, serve until the end, decide, wait, attempt again.

It knows when to connect and when to stop. What travels over the connection is not its business.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Literal

from ..clock import Clock
from ..errors import AuthenticationError, ConnectionClosed, ConnectionError, ConnectionLimitExceeded, ProtocolError, RealtimeError
from ..logs import get_logger
from ..protocol.backoff import Backoff
from ..protocol.client_notices import Parting
from ..protocol.close_codes import CloseCode, is_message_fault
from .conversation import Conversation
from .deadline import deadline
from .dispatcher import Dispatcher
from .endpoints import Endpoint, Endpoints
from .failures import explain_close
from .link import Link, dial
from .options import ClientOptions
from .tokens import TokenSource
from .websocket import CLOSE_TIMEOUT

logger = get_logger("aibos_realtime.client")

State = Literal["disconnected", "connecting", "connected", "reconnecting", "closed"]

REFRESH_PAUSE = 1.0
"""Seconds in which only the first `token-expiring` makes the client ask for a token."""


class Reconnection:
    """`on_state` hears of "connected" and "reconnecting"."""

    def __init__(
        self,
        options: ClientOptions,
        endpoints: Endpoints,
        tokens: TokenSource,
        context: ssl.SSLContext | None,
        clock: Clock,
        random: Callable[[], float],
        conversation: Conversation,
        dispatcher: Dispatcher,
        on_state: Callable[[State], None],
    ) -> None:
        self._options = options
        self._endpoints = endpoints
        self._tokens = tokens
        self._context = context
        self._clock = clock
        self._conversation = conversation
        self._dispatcher = dispatcher
        self._on_state = on_state
        self._backoff = Backoff(random=random, first=options.reconnect_interval)
        self._link: Link | None = None
        self._group: asyncio.TaskGroup | None = None
        self._side: list[asyncio.Task[None]] = []
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = float("-inf")
        self._parting: Parting | None = None
        self._has_connected = False
        self._has_asked_again = False
        self._is_stopping = False
        self.told: RealtimeError | None = None
        """The last error that `error` callbacks have heard of."""
        conversation.on_parting = self._plan
        conversation.on_expiring = self._refresh_soon

    async def run(self) -> None:
        """Stay connected until `stop`. Raises the error that ended it: one that no further attempt would mend, or the last of too many."""
        while True:
            failure = await self._attempt()
            if self._is_stopping:
                return
            delay = self._decide(failure)
            logger.info("the next attempt to connect is in %.1f s, after %s", delay, type(failure).__name__)
            await self._clock.sleep(delay)

    async def stop(self) -> None:
        """Send what waits, say goodbye, and make `run` return; 2 seconds for each. Cancelling leaves at once."""
        self._is_stopping = True
        link = self._link
        if link is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._conversation.flush()
        except TimeoutError:
            pass
        await link.close()

    async def _attempt(self) -> RealtimeError:
        """One connection from beginning to end. What is returned says why it is over."""
        endpoint: Endpoint | None = None
        try:
            token = await self._tokens.get()  # first: where there is none, no server is to blame
            endpoint = await self._endpoints.next()
            self._link = await dial(endpoint.url, token, self._options, self._context, self._clock)
        except RealtimeError as error:
            if endpoint is not None and isinstance(error, ConnectionError) and not isinstance(error, ConnectionLimitExceeded):
                await self._mark_down(endpoint)
            self._tell(error)
            return error
        try:
            return await self._serve(self._link)
        finally:
            self._link.abort()
            self._link = None

    async def _serve(self, link: Link) -> RealtimeError:
        attempts = self._backoff.attempts
        self._parting = None
        try:
            self._conversation.session.connect(link.greeting, self._clock.monotonic())
        except ProtocolError as error:
            self._tell(error)
            return error
        self._backoff.connected(self._clock.monotonic())
        self._on_state("connected")
        self._dispatcher.tell("connect")
        if self._has_connected:
            self._dispatcher.tell("reconnect", attempts)
        self._has_connected = True
        self._conversation.pump()
        closed = ConnectionClosed("The client was closed.", close_code=CloseCode.NORMAL)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._side = [group.create_task(self._conversation.write(link)), group.create_task(self._watch(link))]
                closed = await self._read(link)
                self._group = None
                for task in (*self._side, self._refreshing):
                    if task is not None:
                        task.cancel()
        finally:
            self._group = None
            if self._is_stopping:
                closed = ConnectionClosed("The client was closed.", close_code=CloseCode.NORMAL)
            self._lose(closed)
        return explain_close(closed)

    async def _read(self, link: Link) -> ConnectionClosed:
        try:
            for message, size in link.early:
                self._conversation.take(message, size)
            link.early.clear()
            while True:
                self._conversation.take(*await link.receive())
        except ConnectionClosed as closed:
            return closed
        except ProtocolError as error:
            # It may have been an event of a room, and a gap must not be silent: a new connection recovers.
            self._dispatcher.tell("error", error)
            await link.close(CloseCode.PROTOCOL_ERROR, "not of the protocol")
            return ConnectionClosed("The server sent a message that is not of the protocol.", close_code=CloseCode.ABNORMAL)

    async def _watch(self, link: Link) -> None:
        """Leave a server that gives no sign of life."""
        heartbeat = self._options.heartbeat
        try:
            while True:
                await self._clock.sleep(heartbeat.interval)
                async with deadline(self._clock, heartbeat.timeout):
                    await link.ping()
        except TimeoutError:
            logger.warning("%s gave no sign of life for %g s", link.server, heartbeat.timeout)
            link.abort()
        except ConnectionClosed:
            pass  # the reader hears of it too

    def _lose(self, closed: ConnectionClosed) -> None:
        if self._backoff.lost(self._clock.monotonic()):
            self._has_asked_again = False
        self._conversation.session.lose(closed, resend=not is_message_fault(closed.close_code))
        self._on_state("reconnecting")
        self._conversation.pump()
        self._dispatcher.tell("disconnect", str(closed))

    def _decide(self, failure: RealtimeError) -> float:
        """Seconds until the next attempt. Raises when there will be none."""
        options, parting = self._options, self._parting
        self._parting = None
        if isinstance(failure, AuthenticationError) and self._tokens.is_callable and options.reconnect and not self._has_asked_again:
            self._has_asked_again = True
            return 0.0
        if not options.reconnect or not failure.retryable:
            raise failure
        if options.reconnect_attempts is not None and self._backoff.attempts >= options.reconnect_attempts:
            if not self._has_connected:
                raise failure
            message = f"Gave up after {self._backoff.attempts} attempts to reconnect. {failure}"
            raise ConnectionError(message, retryable=False) from failure
        if parting is not None:
            return self._backoff.planned_delay(parting.delay_min, parting.delay_max)
        return self._backoff.next_delay(float(failure.details.get("retryAfter", 0.0)))

    def _tell(self, error: RealtimeError) -> None:
        self.told = error
        self._dispatcher.tell("error", error)

    async def _mark_down(self, endpoint: Endpoint) -> None:
        try:
            await self._endpoints.mark_down(endpoint)
        except Exception as error:
            logger.warning("the load balancer failed to mark an instance down: %s", type(error).__name__)

    def _plan(self, parting: Parting) -> None:
        self._parting = parting
        if parting.url is not None and self._link is not None:
            self._endpoints.prefer(parting.url, self._link.url)

    def _refresh_soon(self) -> None:
        now = self._clock.monotonic()
        if self._group is None or not self._tokens.is_callable or now < self._refreshed_at + REFRESH_PAUSE:
            return
        if self._refreshing is None or self._refreshing.done():
            self._refreshed_at = now
            self._refreshing = self._group.create_task(self._refresh())

    async def _refresh(self) -> None:
        """Present a new token before the old one ends. A failure is told; the server then closes, and the next attempt asks again."""
        try:
            token = await self._tokens.get()
            if token is not None:
                ref = self._conversation.session.authenticate(token, self._clock.monotonic())
                await self._conversation.ask(ref)
        except RealtimeError as error:
            self._dispatcher.tell("error", error)
