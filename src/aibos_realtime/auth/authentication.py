"""Authentication: from a token to an identity, and the minting and taking back of tokens. What a user may do is decided elsewhere.

One answer for every failure: the reason goes to the log, without anything of the token.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Annotated, Any, Never, Self
from urllib.parse import urlsplit

from msgspec import Struct
from pydantic import BeforeValidator, Field, SecretStr, field_validator

from ..audit import Audit, actor
from ..backends.bus import Bus, LocalBus
from ..backends.revocations import RevocationStore, Revoked
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import AuthenticationError, ConfigurationError, TokenExpired, TokenRevoked, ValidationError
from ..logs import get_logger
from ..options import Options
from .carriers import TokenCarrier, bearer_entry
from .issuing import TokenIssuer, parse_duration, require
from .jwks import KeySet
from .keys import HMAC, VerificationKey, algorithms_of_jwks, key_of_pem, key_of_secret
from .revocation import Revocations
from .tokens import Refusal, TokenReader, is_name, shape_refusal, unverified_kid
from .user import AuthResult, Identity

logger = get_logger(__name__)

MAX_LIFETIME = 30 * 86400.0
EXCLUDED = ("/health", "/status", "/ready")

RevokedCallback = Callable[[str | None, str | None], Awaitable[object] | object]


class Revoke(Struct, frozen=True, tag="revoke"):
    """What nodes ask of one another: to refuse a user's tokens, or one token, and to close what has been let in with them."""

    user_id: str | None
    token_id: str | None
    at: float


def _split(value: object) -> object:
    return tuple(part for one in value.split(",") if (part := one.strip())) if isinstance(value, str) else value


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
Margin = Annotated[float, BeforeValidator(parse_duration), Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_one_or_more), Field(min_length=1)]


class AuthenticationOptions(Options):
    """Options of `WebSocketAuth`. Of the three keys exactly one must be there when a `WebSocketAuth` is built, not before."""

    jwt_secret: SecretStr | None = None
    jwks_url: str | None = None
    public_key: SecretStr | None = None
    algorithms: Annotated[tuple[str, ...], BeforeValidator(_split), Field(min_length=1)] | None = None
    audience: Texts | None = None
    issuer: Texts | None = None
    leeway: Margin = 10.0
    token_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")] = "Authorization"
    token_prefix: str = "Bearer "
    query_parameter: Text | None = None
    exclude_paths: Annotated[tuple[str, ...], BeforeValidator(_split)] = EXCLUDED
    max_lifetime: Duration = MAX_LIFETIME
    expires_in: Duration = 86400.0
    expiry_grace: Margin = 25.0

    @field_validator("jwks_url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is not None:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or not url.isprintable() or " " in url:
                raise ValueError("allowed is an http or https URL without a user name")
        return url

    @field_validator("exclude_paths")
    @classmethod
    def _check_paths(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        if any(not path.startswith("/") for path in paths):
            raise ValueError("allowed are paths that begin with /")
        return paths


class WebSocketAuth:
    """Verifies, mints and takes back tokens.

    With `jwks_url` it keeps the provider's keys fresh between `start` and `stop`; the other two kinds of key need neither.
    Attributes to read: `options`; `expiry_grace`, the seconds for which a live connection outlasts its token.
    """

    bearer_entry = staticmethod(bearer_entry)

    def __init__(
        self,
        *,
        jwt_secret: str | SecretStr | None = None,
        jwks_url: str | None = None,
        public_key: str | SecretStr | None = None,
        algorithms: Sequence[str] | None = None,
        audience: str | Sequence[str] | None = None,
        issuer: str | Sequence[str] | None = None,
        leeway: float | timedelta = 10,
        token_header: str = "Authorization",
        token_prefix: str = "Bearer ",
        query_parameter: str | None = None,
        exclude_paths: Sequence[str] = EXCLUDED,
        max_lifetime: float | str | timedelta = MAX_LIFETIME,
        expires_in: float | str | timedelta = "24h",
        expiry_grace: float | timedelta = 25,
        clock: Clock = SYSTEM_CLOCK,
        **unknown: Never,
    ) -> None:
        """Raises `ConfigurationError` naming `authentication.…`. Opens no connection and needs no event loop."""
        given = {name: value for name, value in locals().items() if name in AuthenticationOptions.model_fields}
        self.options = options = AuthenticationOptions.parse("authentication", given | unknown)
        self.expiry_grace = options.expiry_grace
        self._clock = clock
        self._key, self._keys, allowed = _keys_of(options, clock)
        if options.expires_in > options.max_lifetime:
            raise ConfigurationError("authentication.expires_in: is longer than authentication.max_lifetime; allowed is at most as long")
        self._carrier = TokenCarrier(header=options.token_header, prefix=options.token_prefix, parameter=options.query_parameter)
        rules = {"audience": options.audience or (), "issuer": options.issuer or ()}
        self._reader = TokenReader(algorithms=allowed, **rules, leeway=options.leeway, max_lifetime=options.max_lifetime)
        self._issuer = (
            TokenIssuer(self._key, **rules, expires_in=options.expires_in, max_lifetime=options.max_lifetime)
            if self._key is not None and allowed[0] in HMAC
            else None
        )
        self.revocation_memory = options.max_lifetime + 2 * options.leeway + 1
        """Seconds for which a revocation matters."""
        self._revocations = Revocations(memory=self.revocation_memory)
        self._listeners: list[RevokedCallback] = []
        self._load_listeners: list[Callable[[], object]] = []
        self.audit: Audit | None = None
        """Where revocations are noted; a server has one."""
        self._kept: RevocationStore | None = None
        self._bus: Bus = LocalBus()
        self._bus.on(Revoke, self._revoke)

    @classmethod
    def from_options(cls, options: AuthenticationOptions, *, clock: Clock = SYSTEM_CLOCK) -> Self:
        """The same, from options that were parsed elsewhere."""
        return cls(**{name: getattr(options, name) for name in AuthenticationOptions.model_fields}, clock=clock)

    async def start(self) -> None:
        """Begin to keep the provider's keys fresh; does not wait for them. Idempotent."""
        if self._keys is not None:
            await self._keys.start()

    async def stop(self) -> None:
        """End the background work. Idempotent; tokens are still verified with the keys that are here."""
        if self._keys is not None:
            await self._keys.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    def identify_now(self, token: str) -> Identity | None:
        """What the token says, without waiting; None: its key must be fetched first (only with `jwks_url`).

        Raises `AuthenticationError`, `TokenExpired` or `TokenRevoked`: one text for all, and no cause that holds the token.
        """
        key = self._key
        if key is None:
            found = self._published_key(token)
            if found is None:
                return None
            if isinstance(found, Refusal):
                raise _refused(found)
            key = found
        outcome = self._reader.read(token, key, self._clock.now())
        if isinstance(outcome, Refusal):
            raise _refused(outcome)
        if self._revocations.is_revoked(outcome):
            raise _refused(Refusal.REVOKED)
        return outcome

    async def identify(self, token: str) -> Identity:
        """What the token says. Raises as `identify_now` does. Cancelling is safe."""
        identity = self.identify_now(token)
        if identity is None and self._keys is not None:
            kid = unverified_kid(token)
            if kid is not None and await self._keys.look_for(kid) is not None:
                identity = self.identify_now(token)
        if identity is None:
            raise _refused(Refusal.KEY_UNKNOWN)
        return identity

    async def authenticate(self, socket: object, token: str) -> AuthResult:
        """Verify a token for `socket`, which is not changed: assign `result.user` to it on success. Never raises for a bad token."""
        try:
            identity = await self.identify(token)
        except AuthenticationError as error:
            return AuthResult(success=False, error=error.message)
        return AuthResult(success=True, user=identity.user, expires_at=identity.expires_at)

    @property
    def can_issue(self) -> bool:
        """Whether `issue` can mint tokens: only with `jwt_secret`."""
        return self._issuer is not None

    def issue(
        self,
        *,
        user_id: str,
        role: str = "user",
        tenant_id: str | None = None,
        expires_in: str | float | timedelta | None = None,
        claims: dict[str, Any] | None = None,
        token_id: str | None = None,
    ) -> str:
        """Mint a token that this object accepts. `expires_in`: default the option's; `token_id`: default a random one.

        Raises `ConfigurationError` without `jwt_secret`, `ValidationError` for what no token may say.
        """
        if self._issuer is None:
            raise ConfigurationError("authentication.jwt_secret: is required to issue tokens")
        return self._issuer.issue(
            self._clock.now(),
            user_id=user_id,
            role=role,
            tenant_id=tenant_id,
            expires_in=expires_in,
            claims=claims or {},
            token_id=token_id,
        )

    async def revoke(self, *, user_id: str | None = None, token_id: str | None = None) -> None:
        """Take back every token of a user that was issued up to now, or one token; exactly one of the two must be named.

        Then calls those who registered with `on_revoked`, on every node, in order; one that fails is logged and costs only itself. Of several nodes:
        raises `BrokerUnavailable` where the others could not be told for sure; this one has done it then.
        """
        at = self._clock.now()
        self.note_revoked(user_id=user_id, token_id=token_id, at=at)
        if self.audit is not None:
            self.audit.note("revoke", user_id=user_id, reason=f"token {token_id}" if token_id is not None else None, by=actor())
        try:
            if self._kept is not None:
                await self._kept.add([Revoked("token", token_id, at) if token_id is not None else Revoked("user", str(user_id), at)])
        finally:
            await self._bus.ask(Revoke(user_id, token_id, at))

    async def _revoke(self, request: Revoke) -> None:
        """Some node's revocation, on this one."""
        self.note_revoked(user_id=request.user_id, token_id=request.token_id, at=request.at)
        for listener in tuple(self._listeners):
            try:
                result = listener(request.user_id, request.token_id)
                if inspect.isawaitable(result):
                    await result
            except Exception as error:
                logger.error("A listener to revocations failed (%s).", type(error).__name__)

    def join(self, bus: Bus, kept: RevocationStore) -> None:
        """Be one of several nodes: a revocation on one is one on all, also on those that start later. Before `load_revocations`."""
        self._bus, self._kept = bus, kept
        bus.on(Revoke, self._revoke)
        bus.on_gap(self.load_revocations)

    async def load_revocations(self) -> None:
        """Take over what is kept, at the start and whenever something may have been missed. Raises `BrokerUnavailable`."""
        if self._kept is None:
            return
        for revoked in await self._kept.load():
            try:
                if revoked.kind == "all":
                    self._revocations.revoke_all(min(revoked.at, self._clock.now()))
                else:
                    self.note_revoked(**{f"{revoked.kind}_id": revoked.name}, at=revoked.at)
            except ValidationError:
                logger.warning("Something that is kept as a revocation is none, and was passed over.")
        for listener in self._load_listeners:
            listener()

    async def keep_revocations(self) -> None:
        """Have everything kept again that is known here: what was kept has been lost. Raises `BrokerUnavailable`."""
        if self._kept is not None:
            await self._kept.add(list(self._revocations))

    def note_revoked(self, *, user_id: str | None = None, token_id: str | None = None, at: float | None = None) -> None:
        """Remember a revocation without telling anybody: one of another node, or of an earlier run. `at`: Unix seconds, default now."""
        require((user_id is None) != (token_id is None), "user_id", "Expected exactly one of user_id and token_id")
        path = "token_id" if user_id is None else "user_id"
        require(is_name(token_id if user_id is None else user_id), path, "Expected 1 to 128 printable characters")
        now = self._clock.now()
        at = now if at is None else min(at, now + self.options.leeway)
        if user_id is not None:
            self._revocations.revoke_user(user_id, at, now)
        elif token_id is not None:
            self._revocations.revoke_token(token_id, at, now)

    def on_revoked(self, callback: RevokedCallback) -> RevokedCallback:
        """Call `callback(user_id, token_id)`, one of them None, at each `revoke`. Plain or async; also a decorator."""
        self._listeners.append(callback)
        return callback

    def on_loaded(self, callback: Callable[[], object]) -> None:
        """Call when revocations came that nobody told of: what was let in has to be looked at again (`is_revoked`)."""
        self._load_listeners.append(callback)

    def is_revoked(self, identity: Identity) -> bool:
        """Whether this identity was taken back since it was verified."""
        return self._revocations.is_revoked(identity)

    def is_excluded(self, path: str) -> bool:
        """Whether this path answers without a token."""
        return path in self.options.exclude_paths

    def token_from(self, headers: list[tuple[bytes, bytes]], query_string: bytes = b"") -> str | None:
        """The token that a request carries: in the configured header, else, where that is switched on, in the query string.

        None: it carries none. "" (which no token is): it carries an empty one, or two.
        """
        return self._carrier.token_from(headers, query_string)

    def _published_key(self, token: str) -> VerificationKey | Refusal | None:
        """The key that the token's `kid` looks up; None: it may come with a fetch."""
        if (refusal := shape_refusal(token)) is not None:
            return refusal
        kid = unverified_kid(token)
        if kid is None or self._keys is None:
            return Refusal.KEY_UNKNOWN
        return self._keys.find(kid) or (None if self._keys.can_fetch(kid) else Refusal.KEY_UNKNOWN)


def _keys_of(options: AuthenticationOptions, clock: Clock) -> tuple[VerificationKey | None, KeySet | None, tuple[str, ...]]:
    """The one key or the key set that is configured, and the algorithms allowed."""
    given = [name for name in ("jwt_secret", "jwks_url", "public_key") if getattr(options, name) is not None]
    if len(given) != 1:
        what = f"{' and '.join(given)} were given" if given else "none was given"
        first = given[0] if given else "jwt_secret"
        raise ConfigurationError(f"authentication.{first}: {what}; allowed is exactly one of jwt_secret, jwks_url, public_key")
    if options.jwks_url is not None:
        allowed = algorithms_of_jwks(options.algorithms)
        return None, KeySet(options.jwks_url, algorithms=allowed, clock=clock), allowed
    if options.jwt_secret is not None:
        key = key_of_secret(options.jwt_secret.get_secret_value(), options.algorithms)
    else:
        assert options.public_key is not None
        key = key_of_pem(options.public_key.get_secret_value(), options.algorithms)
    return key, None, key.algorithms


def _refused(refusal: Refusal) -> AuthenticationError:
    logger.info("A token was refused: %s.", refusal.value)
    if refusal is Refusal.EXPIRED:
        return TokenExpired()
    return TokenRevoked() if refusal is Refusal.REVOKED else AuthenticationError()
