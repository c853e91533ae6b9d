"""Targets of what an operator says: tokens' rules, options from the environment, from files and from code, and patterns of rooms."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from aibos_realtime import RealtimeConfig
from aibos_realtime.auth.jwks import keys_in
from aibos_realtime.auth.keys import VerificationKey
from aibos_realtime.auth.tokens import Refusal, TokenReader, unverified_kid
from aibos_realtime.auth.user import Identity, User
from aibos_realtime.config import VARIABLES
from aibos_realtime.errors import ConfigurationError
from aibos_realtime.hub.room_options import Patterns, RoomOptions
from aibos_realtime.pipeline.authorization import Pattern
from aibos_realtime.server.assembly import assemble
from aibos_realtime.testing.clock import ManualClock

from .oracle import check, is_plain, read_strictly
from .source import Source

SECRET = "hunter2-k7Qz0pLr5Tn2Wx8-3mVd9sYc1Bf6"
"""In every place for a secret; no error may say it."""
NOW = 1_700_000_000.0
_ALGORITHMS = ('"HS256"', "null", '"none"')
_KEY = VerificationKey(SECRET.encode(), ("HS256",))


# — tokens —


@cache
def _reader() -> TokenReader:
    return TokenReader(algorithms=("HS256",), audience=("us",), issuer=(), leeway=10.0, max_lifetime=86400.0)


def token(data: bytes) -> None:
    """Tokens whose signature is right, and what they say is anything: an identity that keeps every rule, or a refusal."""
    source = Source(data)
    if source.byte() > 230:
        text = source.rest().decode("latin-1")
        check(isinstance(_reader().read(text, _KEY, NOW), Refusal), "good without a signature")
        if text.count(".") == 2:
            unverified_kid(text)
        return
    header = '{"alg":"HS256"}'
    if source.byte() > 200:
        header = f'{{"alg":{source.pick(_ALGORITHMS)},"kid":{source.json(0)},"typ":{source.json(0)}}}'
    claims = {"sub": '"ann"', "exp": "1700000600", "aud": '"us"'}
    for _ in range(source.byte() % 4):
        claims[source.pick(("sub", "exp", "aud", "iat", "nbf", "jti", "role", "tenant_id", "iss", "plan", source.text()))] = source.json(2)
    payload = "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in claims.items()) + "}"
    signed = ".".join(_base64(part.encode(errors="replace")) for part in (header, payload))
    whole = f"{signed}.{_base64(hmac.digest(_KEY.key, signed.encode(), hashlib.sha256))}"
    first, second = _reader().read(whole, _KEY, NOW), _reader().read(whole, _KEY, NOW)
    check(first == second, "read once more it says something else")
    if isinstance(first, Identity):
        _check_identity(first, payload.encode(errors="replace"))
    unverified_kid(whole)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _check_identity(identity: Identity, payload: bytes) -> None:
    claims = read_strictly(payload)
    user = identity.user
    check((user.id, identity.expires_at) == (claims["sub"], claims["exp"]), "somebody else")
    check(NOW - 10 < identity.expires_at <= NOW + 86411 and claims["aud"] in ("us", ["us"]) or "us" in claims["aud"], "a rule is broken")
    check(is_plain([user.id, user.role, user.tenant_id, dict(user.claims), identity.token_id]), "claims that cannot go everywhere")
    for name in ("iat", "nbf"):
        check(name not in claims or claims[name] <= NOW + 10, "before its time")


def key_set(data: bytes) -> None:
    """What an identity provider publishes: keys, or an error by which the old ones stay."""
    source = Source(data)
    names = ("kty", "kid", "n", "e", "alg", "use", "crv", "x", "y", "k", "key_ops", "d")
    entries = [{source.pick(names): _part(source) for _ in range(source.byte() % 9)} | {"kid": "a"} for _ in range(source.byte() % 4)]
    document = json.dumps({"keys": entries}, default=repr).encode() if source.flag() else source.json().encode(errors="replace")
    try:
        found = keys_in(document, ("RS256", "ES256"))
    except (ValueError, RecursionError):
        return
    check(all(not str(key.key).startswith("b'") for key in found.values()), "a key of another kind")


def _part(source: Source) -> Any:
    return (
        source.pick(
            ("RSA", "EC", "oct", "P-256", "AQAB", "sig", "RS256", "AA", "A" * 342, ["verify"], "-", source.value(1) if not source.is_empty else 5)
        )
        if source.flag()
        else source.text()
    )


# — options —

_PLACES = (
    "host", "port", "cors.origin", "cors.credentials", "authentication.jwt_secret", "authentication.algorithms", "authentication.jwks_url",
    "authentication.audience",
    "authorization.permissions", "authorization.roles", "rooms.max_rooms", "rooms.patterns", "rooms.room_timeout", "connections.max_connections",
    "heartbeat.interval",
    "heartbeat.timeout", "heartbeat", "limits.message_bytes", "limits.handshake_seconds", "limits", "compression.enabled",
    "persistence.database.url", "persistence.retention.duration",
    "persistence", "queue.redis.url", "queue.redis.db", "queue.redis.sentinel_password", "queue.queues", "queue", "scaling.enabled",
    "scaling.instance_id", "scaling.instance_url",
    "http.api_keys", "http.operator_roles", "tls.certificate", "tls", "trusted_proxies", "sender", "x", "rooms.x", "limits.x.y",
)  # fmt: skip
_WORDS = (
    "", "0", "-1", "5", "1e400", "nan", "true", "off", "*", "ws://a:1", "https://app.example", "redis://u:PASSWORD@h:1/0", "redis://PASSWORD@[::1",
    "postgresql://u:PASSWORD@h/db",
    "sqlite:////nowhere/x.db", "mysql://u:PASSWORD@h", "PASSWORD", "http://u:PASSWORD@h", "1h", "7d", "99999999999d", "sha256:" + "a" * 64,
    "redis+sentinel://u:PASSWORD@h:1,h:2/s/0", "redis+cluster://h:99999", "unix://", "\0", "\ud800", "\udcff", "ü", "a,b,,c", "http://[",
    "a" * 5000, "u:PASSWORD@h/db", "10.0.0.0/8", "::1/200",
    "redis://h:PASSWORD/0", "postgresql://u:PASSWORD@h:x/db", "postgresql://h/db?password=PASSWORD", "redis://:PASSWORD@h:1/x",
    "rediss://h?x=PASSWORD",
)  # fmt: skip


def _word(source: Source) -> str:
    return source.pick(_WORDS).replace("PASSWORD", SECRET) if source.byte() < 200 else source.text()


def environment(data: bytes) -> None:
    """Variables of any values."""
    source = Source(data)
    names = list(VARIABLES)
    values = {source.pick(names): _word(source) for _ in range(source.byte() % 6)}
    _load(environment=values, env_file=None)


def options(data: bytes) -> None:
    """Options as a program gives them: the wrong type, the wrong place, one too many."""
    source = Source(data)
    given: dict[str, Any] = {}
    for _ in range(source.byte() % 5):
        *groups, last = source.pick(_PLACES).split(".")
        target = given
        for group in groups:
            inner = target.get(group)
            target[group] = target = inner if isinstance(inner, dict) else {}
        target[last] = _option(source)
    _load(environment={}, env_file=None, **given)


def _option(source: Source, depth: int = 3) -> Any:
    kind = source.byte() % 12
    if kind < 4:
        return _word(source)
    if kind == 4:
        return source.pick((10**400, -(10**5000), 10**5000, float("nan"), float("inf"), 2**63))
    if kind < 7:
        return source.value(1)
    if kind == 7:
        return source.pick(
            (b"\xff", SECRET.encode(), object, None, (), {1: 2}, {None: "a"}, {"a b": ["read"]}, {"*": ["read", SECRET]}, {SECRET: SECRET})
        )
    if kind < 10:
        return [_option(source, depth - 1) for _ in range(source.byte() % 3)] if depth else []
    return {_word(source): _option(source, depth - 1) for _ in range(source.byte() % 3)} if depth else {}


_TOML = ("5", "9" * 5000, "0x" + "f" * 5000, "[" * 3000, "2020-01-01", "{a = 1}", "1e999", "'''", "'a'")


def toml(data: bytes) -> None:
    """A file that should be TOML."""
    source = Source(data)
    if source.flag():
        text = source.rest()
    else:
        lines = []
        for _ in range(source.byte() % 6):
            place = source.pick(("[rooms]", f"{source.pick(_PLACES)} = ", f"{source.pick(_PLACES)} = ", "a." * 2000 + "b = ", "[[x]]"))
            lines.append(place + source.pick((f'"{source.pick(_WORDS)}"', source.json(2), *_TOML)))
        text = "\n".join(lines).replace("PASSWORD", SECRET).encode(errors="replace")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "realtime.toml")
        path.write_bytes(text)
        _load(file=path, environment={}, env_file=None)


def dotenv(data: bytes) -> None:
    """A file that should hold variables."""
    source = Source(data)
    names = [*VARIABLES, "X", "export JWT_SECRET"]
    lines = [f"{source.pick(names)}={source.pick(('', chr(34), chr(39), '${X}', '${'))}{_word(source)}" for _ in range(source.byte() % 6)]
    text = source.rest() if source.flag() else "\n".join(lines).encode("utf-8", "surrogatepass")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, ".env")
        path.write_bytes(text)
        _load(environment={}, env_file=path)


def _load(**given: Any) -> None:
    """Read, and put a server together: a configuration, or `ConfigurationError` that names each wrong option and tells no secret."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            config, _ = RealtimeConfig.load(**given)
            assemble(config, clock=ManualClock())
        except ConfigurationError as error:
            said = str(error)
            check(SECRET not in said and SECRET not in repr(error.__cause__), f"tells a secret: {said[:500]}")
            check(said and error.__suppress_context__ or error.__context__ is None, "shows where it comes from")
            for line in said.splitlines():
                check(len(line) < 2000, "says too much")
            check(": " in said, f"names no option: {said[:200]!r}")


# — patterns —


def pattern(data: bytes) -> None:
    """Patterns of an operator and names of anybody: fits as it is written, and soon."""
    source = Source(data)
    text, name = _glob(source), _glob(source).replace("*", "").replace("{", "").replace("}", "")
    user = User(source.pick(("ann", "a*", "")), source.pick(("user", ".*")), source.pick((None, "t1", "a", "*")), {})
    try:
        found = Pattern(text, "permissions").fits(user, name)
    except ConfigurationError:
        return
    parts: list[str | None] = []
    for part in re.split(r"(\*|\{tenant_id\}|\{user_id\}|\{role\})", text):
        known = {"{tenant_id}": user.tenant_id, "{user_id}": user.id, "{role}": user.role}
        if part in known and not known[part]:
            check(not found, "fits without what it names")
            return
        parts += [None] if part == "*" else list(known.get(part, part) or "")
    check(found == _fits(parts, name), f"{text!r} fits {name!r}: {found}")
    Patterns(RoomOptions.parse("rooms", {"patterns": {text.replace("[", ""): {}}})).find(name)


def _glob(source: Source) -> str:
    pieces = (
        "a",
        "b",
        "ab",
        "*",
        "a*",
        "*a",
        "{tenant_id}",
        "{user_id}",
        "-",
        ".",
        "\n",
        "{role}",
        "aaaaaaaa",
        "?",
        "[a]",
        "\\",
        "{",
        "}",
        "tenant_",
    )
    return "".join(source.pick(pieces) for _ in range(source.byte() % 40))[:128]


def _fits(parts: list[str | None], name: str) -> bool:
    """Letter by letter; None is any run of letters."""
    reached = {0}
    for part in parts:
        if part is None:
            reached = set(range(min(reached), len(name) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(name) and name[at] == part}
    return len(name) in reached
