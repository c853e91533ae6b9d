"""Reading a token with a key: RFC 7515 and 7519, as strictly as RFC 8725 advises.

No clock, no network, no memory of revocations; and it raises nothing for a hostile token: the answer is an `Identity` or a `Refusal`.
"""

from __future__ import annotations

import binascii
import enum
import json
import math
import re
from collections.abc import Callable
from typing import Any

import jwt
from jwt.algorithms import Algorithm

from .keys import VerificationKey, signatures
from .user import NO_CLAIMS, Identity, User

MAX_TOKEN_BYTES = 8192
MAX_NAME = 128
MAX_DEPTH = 32
MAX_INTEGER = 2**53
MAX_HEADERS = 64
SHARED_NAMES = 4096

KNOWN_CLAIMS = frozenset({"sub", "role", "tenant_id", "exp", "iat", "nbf", "jti", "aud", "iss"})

_PLAIN_BASE64 = bytes.maketrans(b"-_", b"+/")
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_KID = re.compile(r"(?!/)(?!.*\.\.)[A-Za-z0-9_.:+/=-]{1,128}")
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_REFUSED_HEADERS = frozenset({"crit", "b64", "jku", "jwk", "x5u", "x5c"})
_HOSTILE = (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError, RecursionError)


class Refusal(enum.Enum):
    """Why a token was refused: for the server's log, and holding nothing of the token."""

    MALFORMED = "it is not a JSON Web Token in compact form"
    TOO_LARGE = "it is longer than 8 KiB"
    HEADER = "its header has a field that is not accepted (crit, b64, jku, jwk, x5u, x5c) or a wrong typ or kid"
    ALGORITHM = "its algorithm is not one of those configured"
    SIGNATURE = "its signature is wrong"
    KEY_UNKNOWN = "no key of the key set has its kid"
    PAYLOAD = "its payload is not one JSON object with unique names and plain values"
    SUBJECT = "sub is not a text of 1 to 128 printable characters"
    ROLE = "role is not a text of 1 to 128 printable characters"
    TENANT = "tenant_id is not a text of 1 to 128 printable characters"
    TOKEN_ID = "jti is not a text of 1 to 128 printable characters"
    AUDIENCE = "aud does not name this server"
    AUDIENCE_NOT_SET = "aud is there, and authentication.audience is not set"
    ISSUER = "iss is not the issuer configured"
    TIMES = "exp is missing, or exp, iat or nbf is not a finite number"
    TOO_LONG = "exp is further ahead than authentication.max_lifetime"
    NOT_YET = "iat or nbf is in the future"
    EXPIRED = "it has expired"
    REVOKED = "it was revoked"


class TokenReader:
    """Verifies tokens against one set of rules. Built once.

    The header of an issuer's tokens is always the same text: one that stood in a token which was good in every way need not be read again under the
    same key. Nothing else of a token is remembered.
    """

    __slots__ = ("_audience", "_headers", "_issuer", "_jws", "_leeway", "_max_lifetime")

    def __init__(
        self, *, algorithms: tuple[str, ...], audience: tuple[str, ...], issuer: tuple[str, ...], leeway: float, max_lifetime: float
    ) -> None:
        """`audience`, `issuer`: empty = not configured. `leeway`, `max_lifetime`: seconds."""
        self._jws = signatures(algorithms)
        self._headers: dict[str, tuple[VerificationKey, Algorithm, Any]] = {}
        """Headers, still in base64, each with the key that it was good for; and its algorithm, and the key as that takes it."""
        self._audience = frozenset(audience)
        self._issuer = frozenset(issuer)
        self._leeway = leeway
        self._max_lifetime = max_lifetime

    def read(self, token: str, key: VerificationKey, now: float) -> Identity | Refusal:
        """What the token says, if everything about it is right at `now` (Unix seconds)."""
        if (refusal := shape_refusal(token)) is not None:
            return refusal
        signed, _, signature = token.rpartition(".")
        header, _, content = signed.partition(".")
        known = self._headers.get(header)
        is_known = known is not None and known[0] is key
        payload = _verified(signed, content, signature, known) if known is not None and is_known else None
        if payload is None:
            payload = self._payload(token, key)
        if isinstance(payload, Refusal):
            return payload
        claims = _claims(payload)
        outcome = self._identity(claims, now) if isinstance(claims, dict) else Refusal.PAYLOAD
        if not is_known and isinstance(outcome, Identity):
            self._remember(header, key)
        return outcome

    def _payload(self, token: str, key: VerificationKey) -> bytes | Refusal:
        """What a token carries, if its header is acceptable and its signature right."""
        try:
            decoded = self._jws.decode_complete(token, key=key.key, algorithms=key.algorithms)
        except jwt.InvalidAlgorithmError:
            return Refusal.ALGORITHM
        except jwt.InvalidSignatureError:
            return Refusal.SIGNATURE
        except _HOSTILE:
            return Refusal.MALFORMED
        return bytes(decoded["payload"]) if _is_plain_header(decoded["header"], key) else Refusal.HEADER

    def _remember(self, header: str, key: VerificationKey) -> None:
        """This header is good under this key. A key that was exchanged is another one: what is known of the old one counts no more."""
        if len(self._headers) >= MAX_HEADERS:
            self._headers.clear()
        algorithm = self._jws.get_algorithm_by_name(json.loads(_decoded(header) or b"")["alg"])
        self._headers[header] = (key, algorithm, algorithm.prepare_key(key.key))

    def _identity(self, claims: dict[str, Any], now: float) -> Identity | Refusal:
        user = _user(claims)
        if isinstance(user, Refusal):
            return user
        token_id = claims.get("jti")
        if token_id is not None and not is_name(token_id):
            return Refusal.TOKEN_ID
        if (refusal := self._party_refusal(claims)) is not None:
            return refusal
        expires_at, issued_at, not_before = _instant(claims, "exp"), _instant(claims, "iat"), _instant(claims, "nbf")
        if expires_at is None or math.isnan(expires_at + (issued_at or 0.0) + (not_before or 0.0)):
            return Refusal.TIMES
        latest = now + self._leeway
        if (issued_at is not None and issued_at > latest) or (not_before is not None and not_before > latest):
            return Refusal.NOT_YET
        if expires_at > latest + self._max_lifetime + 1:  # `exp` counts whole seconds: what was rounded up is not too long
            return Refusal.TOO_LONG
        if expires_at <= now - self._leeway:
            return Refusal.EXPIRED
        return Identity(user, expires_at, issued_at, token_id)

    def _party_refusal(self, claims: dict[str, Any]) -> Refusal | None:
        audience = claims.get("aud")
        if not self._audience:
            # RFC 7519, 4.1.3: who is not named in an `aud` that is there must refuse the token.
            if audience is not None:
                return Refusal.AUDIENCE_NOT_SET
        else:
            named = [audience] if isinstance(audience, str) else audience
            if not isinstance(named, list) or not all(isinstance(one, str) for one in named) or self._audience.isdisjoint(named):
                return Refusal.AUDIENCE
        if self._issuer:
            issuer = claims.get("iss")
            if not isinstance(issuer, str) or issuer not in self._issuer:
                return Refusal.ISSUER
        return None


def _verified(signed: str, content: str, signature: str, known: tuple[VerificationKey, Algorithm, Any]) -> bytes | Refusal | None:
    """The content of a token with a header that is known, if its signature is right; None: it has to be looked at more closely."""
    payload, sealed = _decoded(content), _decoded(signature)
    if payload is None or sealed is None:
        return None
    _, algorithm, key = known
    return payload if algorithm.verify(signed.encode(), key, sealed) else Refusal.SIGNATURE


def _decoded(segment: str) -> bytes | None:
    """Base64url without padding, of which there is one spelling for each text; None for another."""
    text = segment.encode().translate(_PLAIN_BASE64) + b"=" * (-len(segment) % 4)
    try:
        decoded = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return None
    return decoded if binascii.b2a_base64(decoded, newline=False) == text else None


def _claims(payload: bytes) -> Any:
    """The value of a JSON text; None for what is none."""
    try:
        text = payload.decode()
        try:
            value, end = _scan(text, 0)
        except StopIteration:
            end = -1
        return value if end == len(text) else _JSON.decode(text)
    except _HOSTILE:
        return None


def shape_refusal(token: object) -> Refusal | None:
    """What is wrong with a token before anything of it is decoded."""
    if not isinstance(token, str):
        return Refusal.MALFORMED
    if len(token) > MAX_TOKEN_BYTES:
        return Refusal.TOO_LARGE
    return None if _COMPACT.fullmatch(token) else Refusal.MALFORMED


def unverified_kid(token: str) -> str | None:
    """The key id that a well-shaped token claims; None without a usable one. Good for looking a key up, and for nothing else."""
    segment = token[: token.index(".")]
    try:
        header = json.loads(binascii.a2b_base64(segment.replace("-", "+").replace("_", "/") + "=" * (-len(segment) % 4)))
        kid = header["kid"]
    except _HOSTILE:
        return None
    return kid if isinstance(kid, str) and 1 <= len(kid) <= MAX_NAME else None


def is_kid(text: str) -> bool:
    """Whether this can be the id of a key: 1 to 128 characters of base64, plus `.` and `:`, and nothing like a path."""
    return _KID.fullmatch(text) is not None


def is_name(value: object) -> bool:
    """Whether this is a text of 1 to 128 printable characters: no control character, no NUL, no lone surrogate."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


def is_plain(value: object, depth: int = MAX_DEPTH) -> bool:
    """Whether this JSON value can go anywhere that data goes: no NUL, no lone surrogate, integers within ±2^53, finite, not too deep."""
    if isinstance(value, str):
        return _NOT_TEXT.search(value) is None
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return -MAX_INTEGER <= value <= MAX_INTEGER
    if isinstance(value, float):
        return math.isfinite(value)
    if depth == 0:
        return False
    if isinstance(value, dict):
        return all(isinstance(name, str) and is_plain(name) and is_plain(item, depth - 1) for name, item in value.items())
    return isinstance(value, list) and all(is_plain(item, depth - 1) for item in value)


def _user(claims: dict[str, Any]) -> User | Refusal:
    user_id, role, tenant_id = claims.get("sub"), claims.get("role", "user"), claims.get("tenant_id")
    if not is_name(user_id):
        return Refusal.SUBJECT
    if not is_name(role):
        return Refusal.ROLE
    if tenant_id is not None and not is_name(tenant_id):
        return Refusal.TENANT
    further = NO_CLAIMS
    if not claims.keys() <= KNOWN_CLAIMS:
        further = {name: value for name, value in claims.items() if name not in KNOWN_CLAIMS}
        if not is_plain(further):
            return Refusal.PAYLOAD
    return User(str(user_id), _shared(role), tenant_id and _shared(tenant_id), further)


_names: dict[str, str] = {}


def _shared(name: str) -> str:
    """The one copy of a name that many users have, a role or a tenant. (`sys.intern` would keep it for ever on CPython 3.12.)"""
    if len(_names) >= SHARED_NAMES:
        _names.clear()
    return _names.setdefault(name, name)


def _is_plain_header(header: dict[str, Any], key: VerificationKey) -> bool:
    if not _REFUSED_HEADERS.isdisjoint(header):
        return False
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        return False
    kid = header.get("kid")
    if key.kid is not None:
        return bool(kid == key.kid)
    return kid is None or is_kid(kid)


def _instant(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519, 2: a fraction is allowed); None where it is missing, NaN where it is none."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        instant = float(value)
    except OverflowError:
        return math.nan
    return instant if math.isfinite(instant) else math.nan


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError  # RFC 7519, 4: a name that stands twice
    return members


def _no_constant(_name: str) -> Any:
    raise ValueError  # NaN and Infinity are not JSON


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
_scan: Callable[[str, int], tuple[Any, int]] = _JSON.scan_once  # type: ignore[attr-defined]
