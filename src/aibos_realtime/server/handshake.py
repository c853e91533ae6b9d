"""The handshake: who may open a WebSocket here, decided before the upgrade where HTTP can say it, and right after it where a browser could not
read it.

In order: the request itself, its path, origin, pace, capacity, token. `Handshake.decide` waits only for what must be waited for: a key of an identity
provider, or the second that somebody who tries tokens has to sit out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from ..audit import Audit
from ..auth.authentication import WebSocketAuth
from ..auth.origin import OriginPolicy
from ..auth.user import Identity
from ..clock import Clock
from ..errors import AuthenticationError, ProtocolError
from ..hub.connections import ConnectionPool
from ..logs import get_logger
from ..metrics import Metrics
from ..pipeline.throttle import Buckets, LimitOptions
from ..protocol import deflate
from ..protocol.close_codes import CloseCode
from ..protocol.messages import SUBPROTOCOL, SUBPROTOCOL_MSGPACK
from ..transport.http import Acceptance, HttpLimits, Refusal, UpgradeRequest, Verdict
from .upgrade import TrustedProxies, Upgrade, subscriber_of

logger = get_logger("aibos_realtime.handshake")

PENALTY = 1.0
"""Seconds that the answer to a bad token is held back where an address has had too many."""
RETRY_AFTER = 5.0


class Arrival(Struct, frozen=True):
    """Somebody who was let in. `identity`: None until he authenticates. `rejection`: the code to close with at once."""

    address: str
    subprotocol: str
    headers: bytes
    deflate: deflate.Negotiated | None = None
    identity: Identity | None = None
    rejection: int | None = None


Outcome = Refusal | Arrival


class Welcome(Protocol):
    """Takes over the stream of somebody who was let in. `early`: bytes that came with his request; `head`: the 101, if it is not written yet."""

    def __call__(self, arrival: Arrival, stream: asyncio.Transport, early: bytes, head: bytes = b"") -> None: ...


class Handshake:
    """The gate of one server (`transport.http.Gate`). Who is let in goes to `welcome(arrival, stream, early, head)`."""

    def __init__(
        self,
        *,
        paths: Sequence[str],
        origins: OriginPolicy,
        auth: WebSocketAuth,
        pool: ConnectionPool,
        limits: LimitOptions,
        proxies: TrustedProxies,
        offers_deflate: bool,
        metrics: Metrics,
        audit: Audit,
        clock: Clock,
        welcome: Welcome,
    ) -> None:
        seconds = [bound for bound in (limits.handshake_seconds, pool.options.connection_timeout) if bound is not None]
        self.http_limits = HttpLimits(
            limits.url_bytes,
            limits.header_fields,
            limits.header_bytes,
            limits.headers_bytes,
            min(seconds) if seconds else None,
            limits.answer_seconds,
        )
        self.is_open = False
        """Set while the server takes new connections."""
        self.paths = frozenset(paths)
        self._origins = origins
        self._auth = auth
        self._pool = pool
        self._limits = limits
        self._proxies = proxies
        self._offers_deflate = offers_deflate
        self._metrics = metrics
        self._audit = audit
        self._clock = clock
        self._welcome = welcome
        self._of_node = Buckets(limits.handshakes_per_second, None, factor=2.0)
        self._of_address = Buckets(limits.handshakes_per_second_per_address, limits.handshakes_burst_per_address)
        failures = limits.failed_authentications_per_minute
        self._failures = Buckets(None if failures is None else failures / 60, failures)
        self._connections: Counter[str] = Counter()

    # — transport.http.Gate —

    def is_ours(self, path: str) -> bool:
        return path in self.paths

    def decide(self, request: UpgradeRequest) -> Verdict | Awaitable[Verdict]:
        upgrade = Upgrade(request)
        outcome = self.admit(upgrade)
        return self._verdict(upgrade, outcome) if isinstance(outcome, Refusal | Arrival) else self._verdict_later(upgrade, outcome)

    def refused(self, status: int) -> None:
        self._metrics.handshakes_refused[status] += 1
        self._audit.note_stranger("refuse", code=status)

    async def _verdict_later(self, upgrade: Upgrade, outcome: Awaitable[Outcome]) -> Verdict:
        return self._verdict(upgrade, await outcome)

    def _verdict(self, upgrade: Upgrade, outcome: Outcome) -> Verdict:
        if isinstance(outcome, Refusal):
            return outcome
        headers = [("Sec-WebSocket-Accept", upgrade.accept())]
        if upgrade.subprotocol() is not None:
            headers.append(("Sec-WebSocket-Protocol", outcome.subprotocol))
        if outcome.deflate is not None:
            headers.append(("Sec-WebSocket-Extensions", outcome.deflate.response))
        return Acceptance(tuple(headers), partial(self._welcome, outcome), writes_head=True)

    # — for every transport —

    def admit(self, upgrade: Upgrade) -> Outcome | Awaitable[Outcome]:
        """Let in or refuse; what is refused is counted."""
        request = upgrade.request
        address = self._proxies.client_address(request.peer_address, ", ".join(upgrade.all(b"x-forwarded-for")))
        refusal = upgrade.fault() or self._misdirected(upgrade) or self._no_place(address)
        if refusal is not None:
            return self._refuse(refusal, address)
        try:
            found = deflate.negotiate(", ".join(upgrade.all(b"sec-websocket-extensions")) or None, max_message=self._limits.message_bytes)
        except ProtocolError as error:
            return self._refuse(Refusal(400, "bad_request", error.message), address)
        subprotocol = upgrade.subprotocol()
        arrival = Arrival(
            address,
            subprotocol or SUBPROTOCOL,
            upgrade.kept_headers(self._auth.options.token_header),
            found if self._offers_deflate and request.is_raw else None,
            rejection=None if subprotocol in (None, SUBPROTOCOL, SUBPROTOCOL_MSGPACK) else CloseCode.UNSUPPORTED_VERSION,
        )
        outcome = self._check_token(upgrade, arrival)
        return outcome if isinstance(outcome, Refusal | Arrival) else self._look_again(outcome, address)

    def entered(self, address: str) -> None:
        """A connection from this address has begun."""
        self._connections[subscriber_of(address)] += 1

    def left(self, address: str) -> None:
        """A connection from this address has ended."""
        subscriber = subscriber_of(address)
        self._connections[subscriber] -= 1
        if self._connections[subscriber] <= 0:
            del self._connections[subscriber]

    def penalty(self, address: str) -> float:
        """Count and note a failed authentication; the seconds that its answer is to be held back."""
        self._metrics.authentications_failed += 1
        self._audit.note_stranger("refuse", code=401, address=address, reason="not_authenticated")
        return PENALTY if self._failures.spend(subscriber_of(address), self._clock.monotonic()) else 0.0

    # — the steps —

    def _misdirected(self, upgrade: Upgrade) -> Refusal | None:
        if not self.is_ours(upgrade.path):
            return Refusal(404, "not_found", f"No WebSocket is served on this path; try {min(self.paths)}.")
        request = upgrade.request
        secure = self._proxies.is_secure(request.peer_address, request.is_secure, ", ".join(upgrade.all(b"x-forwarded-proto")))
        if not self._origins.is_allowed(upgrade.origin, upgrade.host, secure):
            return Refusal(403, "permission_denied", "Pages of this origin may not connect: the server's option cors.origin lists those that may.")
        return None

    def _no_place(self, address: str) -> Refusal | None:
        now, subscriber = self._clock.monotonic(), subscriber_of(address)
        if not self.is_open:
            return _busy(503, "The server takes no connections at the moment.", RETRY_AFTER)
        if wait := self._of_address.spend(subscriber, now):
            return _busy(429, "Too many handshakes from this address.", wait)
        limit = self._limits.connections_per_address
        if limit is not None and self._connections[subscriber] >= limit:
            return _busy(429, f"This address has {limit} connections, as many as allowed.", RETRY_AFTER)
        if wait := self._of_node.spend("", now):
            return _busy(429, "Too many handshakes at this server.", wait)
        if self._pool.is_full:
            return _busy(503, "All connections of this server are taken.", RETRY_AFTER)
        return None

    async def _look_again(self, outcome: Awaitable[Outcome], address: str) -> Outcome:
        """After a wait: the last place may have gone to somebody else meanwhile."""
        found = await outcome
        if isinstance(found, Arrival) and (not self.is_open or self._pool.is_full):
            return self._refuse(_busy(503, "The server takes no connections at the moment.", RETRY_AFTER), address)
        return found

    def _check_token(self, upgrade: Upgrade, arrival: Arrival) -> Outcome | Awaitable[Outcome]:
        token = self._auth.token_from(upgrade.request.headers, upgrade.request.query)
        is_readable = token is not None
        if token is None:
            token = self._auth.bearer_entry(upgrade.protocols)
        if token is None:
            return arrival
        try:
            identity = self._auth.identify_now(token)
        except AuthenticationError:
            return self._reject(arrival, is_readable)
        return self._wait_for_key(arrival, is_readable, token) if identity is None else replace(arrival, identity=identity)

    async def _wait_for_key(self, arrival: Arrival, is_readable: bool, token: str) -> Outcome:
        try:
            return replace(arrival, identity=await self._auth.identify(token))
        except AuthenticationError:
            outcome = self._reject(arrival, is_readable)
            return outcome if isinstance(outcome, Refusal | Arrival) else await outcome

    def _reject(self, arrival: Arrival, is_readable: bool) -> Outcome | Awaitable[Outcome]:
        """The token is no good: 401 where the client can read that, else the upgrade, and close 4500."""
        outcome: Outcome
        if is_readable:
            self._metrics.handshakes_refused[401] += 1
            outcome = Refusal(401, "not_authenticated", AuthenticationError.default_message, (("WWW-Authenticate", "Bearer"),))
        else:
            outcome = replace(arrival, rejection=CloseCode.TOKEN_INVALID)
        penalty = self.penalty(arrival.address)
        return self._hold_back(penalty, outcome) if penalty else outcome

    async def _hold_back(self, seconds: float, outcome: Outcome) -> Outcome:
        await self._clock.sleep(seconds)
        return outcome

    def _refuse(self, refusal: Refusal, address: str) -> Refusal:
        self._metrics.handshakes_refused[refusal.status] += 1
        if self._audit.note_stranger("refuse", code=refusal.status, address=address, reason=refusal.code):
            logger.info("a handshake was refused: %d %s", refusal.status, refusal.message)
        return refusal


def _busy(status: int, message: str, seconds: float) -> Refusal:
    code = "rate_limited" if status == 429 else "overloaded"
    return Refusal(status, code, message, (("Retry-After", str(max(1, round(seconds)))),))
