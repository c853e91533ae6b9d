"""The whole of it: options, one answer for every failure, nothing of a token anywhere, and taking tokens back."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from aibos_realtime.auth.authentication import AuthenticationOptions, Revoke, WebSocketAuth
from aibos_realtime.auth.user import AuthResult, Identity, User
from aibos_realtime.backends.bus import LocalBus
from aibos_realtime.backends.revocations import Revoked
from aibos_realtime.errors import AuthenticationError, BrokerUnavailable, ConfigurationError, TokenExpired, TokenRevoked, ValidationError
from aibos_realtime.testing.clock import ManualClock

from .material import NOW, SECRET, base64url, ec_key, good_claims, hs256, jwk, pem, rsa_key, serve_keys, signed
from .test_tokens import AUDIENCE, HOSTILE, ISSUER

TEXT = "The token is not valid."


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def auth(clock: ManualClock) -> WebSocketAuth:
    return WebSocketAuth(jwt_secret=SECRET, clock=clock)


async def test_a_good_token(auth: WebSocketAuth) -> None:
    token = auth.issue(user_id="user_123", role="admin", tenant_id="t1", claims={"plan": "pro"}, token_id="j")
    identity = await auth.identify(token)
    assert identity == auth.identify_now(token) == Identity(User("user_123", "admin", "t1", {"plan": "pro"}), NOW + 86400, NOW, "j")
    socket = object()
    assert await auth.authenticate(socket, token) == AuthResult(True, identity.user, None, NOW + 86400)


@pytest.fixture
def strict(clock: ManualClock) -> WebSocketAuth:
    return WebSocketAuth(jwt_secret=SECRET, audience=AUDIENCE, issuer=ISSUER, clock=clock)


@pytest.mark.parametrize("token", [token for token, _ in HOSTILE.values()], ids=HOSTILE.keys())
async def test_one_answer_for_every_failure(strict: WebSocketAuth, token: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(AuthenticationError) as caught:
        await strict.identify(token)
    error = caught.value
    assert (str(error), error.code, error.details) == (TEXT, "not_authenticated", {})
    assert error.__cause__ is None and error.__context__ is None
    assert await strict.authenticate(None, token) == AuthResult(False, None, TEXT)
    said = caplog.text + "".join(traceback.format_exception(error)) + repr(error)
    parts = [part for part in str(token).split(".") if len(part) >= 8]
    assert not [part for part in parts if part in said]
    assert "A token was refused: " in caplog.text


def test_no_file_and_no_network_for_a_hostile_token(strict: WebSocketAuth) -> None:
    seen: list[str] = []
    is_watching = False

    def watch(event: str, _arguments: tuple[Any, ...]) -> None:
        if is_watching and event.startswith(("open", "socket.", "urllib.", "import", "subprocess.", "os.")):
            seen.append(event)

    for _ in range(2):  # the first round imports what it needs
        for token, _ in HOSTILE.values():
            with pytest.raises(AuthenticationError):
                strict.identify_now(token)
        if not is_watching:
            sys.addaudithook(watch)
            is_watching = True
    is_watching = False
    assert seen == []


async def test_an_expired_and_a_revoked_token_have_their_own_kind_and_the_same_text(auth: WebSocketAuth, clock: ManualClock) -> None:
    short, long = auth.issue(user_id="a", expires_in=60), auth.issue(user_id="a", expires_in=3600)
    await clock.advance(69)
    assert await auth.identify(short)
    await clock.advance(1)
    with pytest.raises(TokenExpired, match=TEXT):
        await auth.identify(short)
    await auth.revoke(user_id="a")
    with pytest.raises(TokenRevoked, match=TEXT):
        await auth.identify(long)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "authentication.jwt_secret: none was given; allowed is exactly one of jwt_secret, jwks_url, public_key"),
        ({"jwt_secret": None}, "authentication.jwt_secret: none was given"),
        ({"jwt_secret": SECRET, "public_key": "x"}, "authentication.jwt_secret: jwt_secret and public_key were given"),
        ({"jwt_secret": "your_jwt_secret"}, "authentication.jwt_secret: a secret known from documentation was given"),
        ({"jwt_secret": "short"}, "authentication.jwt_secret: 5 bytes were given; allowed is a secret of 32 bytes or more"),
        ({"jwt_secret": 5}, "authentication.jwt_secret: a secret was given"),
        ({"jwt_secret": SECRET, "algorithms": ["none"]}, "authentication.algorithms: 'none' was given"),
        ({"jwt_secret": SECRET, "algorithms": []}, "authentication.algorithms: "),
        ({"jwt_secret": SECRET, "audience": []}, "authentication.audience: "),
        ({"jwt_secret": SECRET, "issuer": ""}, "authentication.issuer.0: "),
        ({"jwt_secret": SECRET, "leeway": -1}, "authentication.leeway: -1 was given"),
        ({"jwt_secret": SECRET, "expires_in": "soon"}, "authentication.expires_in: allowed is a number of seconds"),
        ({"jwt_secret": SECRET, "expires_in": 0}, "authentication.expires_in: 0 was given"),
        ({"jwt_secret": SECRET, "expires_in": "31d"}, "authentication.expires_in: is longer than authentication.max_lifetime"),
        ({"jwt_secret": SECRET, "max_lifetime": float("inf")}, "authentication.max_lifetime: "),
        ({"jwt_secret": SECRET, "token_header": "a b"}, "authentication.token_header: "),
        ({"jwt_secret": SECRET, "token_header": "a\n"}, "authentication.token_header: "),
        ({"jwt_secret": SECRET, "query_parameter": ""}, "authentication.query_parameter: "),
        ({"jwt_secret": SECRET, "exclude_paths": ["health"]}, "authentication.exclude_paths: allowed are paths that begin with /"),
        ({"jwks_url": "file:///keys"}, "authentication.jwks_url: allowed is an http or https URL"),
        ({"jwks_url": "https://user:pass@id.example/"}, "authentication.jwks_url: allowed is an http or https URL"),
        ({"jwks_url": "https:///keys"}, "authentication.jwks_url: allowed is an http or https URL"),
        ({"jwks_url": "https://id.example/", "algorithms": ["HS256"]}, "authentication.algorithms: 'HS256' was given"),
        ({"public_key": "x"}, "authentication.public_key: no such key was given"),
    ],
)
def test_wrong_options_are_named_and_secrets_are_not(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        WebSocketAuth(**options)
    assert str(caught.value).startswith(sentence)
    said = "".join(traceback.format_exception(caught.value))
    assert SECRET not in said and "pass@" not in said


def test_nothing_secret_in_a_representation() -> None:
    auth = WebSocketAuth(jwt_secret=SECRET)
    assert SECRET not in repr(auth) + repr(auth.options) + str(auth.options) + auth.options.model_dump_json()


def test_options_parsed_elsewhere(clock: ManualClock) -> None:
    options = AuthenticationOptions.parse(
        "authentication",
        {
            "jwt_secret": SECRET,
            "algorithms": "HS256, HS512",
            "audience": ["a", "b"],
            "issuer": "i",
            "leeway": timedelta(seconds=0),
            "expires_in": "15m",
            "exclude_paths": ["/health", "/status"],
        },
    )
    auth = WebSocketAuth.from_options(options, clock=clock)
    assert auth.options == options
    assert auth.identify_now(auth.issue(user_id="u")) is not None
    assert auth.is_excluded("/status") and not auth.is_excluded("/ready") and not auth.is_excluded("/status/")
    assert auth.expiry_grace == 25
    with pytest.raises(ConfigurationError, match="did you mean 'jwt_secret'"):
        AuthenticationOptions.parse("authentication", {"jwt_secert": SECRET})


def test_options_without_a_key_are_options_still() -> None:
    """The key may come later, from the environment or from `--demo`; `WebSocketAuth` is where it must be there."""
    with pytest.raises(ConfigurationError, match="exactly one of"):
        WebSocketAuth.from_options(AuthenticationOptions())


async def test_a_public_key_verifies_and_does_not_mint(clock: ManualClock) -> None:
    for private in (rsa_key(), ec_key()):
        auth = WebSocketAuth(public_key=pem(private), clock=clock)
        assert (await auth.identify(signed(private))).user.id == "user_123"
        assert not auth.can_issue
        with pytest.raises(ConfigurationError, match=r"^authentication\.jwt_secret: is required to issue tokens$"):
            auth.issue(user_id="a")
        with pytest.raises(AuthenticationError):
            await auth.identify(hs256())


async def test_start_and_stop_do_nothing_twice(auth: WebSocketAuth) -> None:
    async with auth:
        await auth.start()
    await auth.stop()


async def test_revoking_a_user(auth: WebSocketAuth, clock: ManualClock) -> None:
    old, other = auth.issue(user_id="a"), auth.issue(user_id="b")
    without_iat = hs256(good_claims(sub="a", iat=None))
    identity = await auth.identify(old)
    assert not auth.is_revoked(identity)
    await auth.revoke(user_id="a")
    assert auth.is_revoked(identity)
    for token in (old, without_iat):
        with pytest.raises(TokenRevoked):
            await auth.identify(token)
    assert await auth.identify(other)
    await clock.advance(0.001)
    assert await auth.identify(auth.issue(user_id="a")), "a token of the same second, but newer"


async def test_revoking_one_token(auth: WebSocketAuth) -> None:
    first, second = auth.issue(user_id="a", token_id="one"), auth.issue(user_id="a", token_id="two")
    await auth.revoke(token_id="one")
    with pytest.raises(TokenRevoked):
        await auth.identify(first)
    assert await auth.identify(second)


async def test_a_revocation_outlives_the_longest_token(auth: WebSocketAuth, clock: ManualClock) -> None:
    token = auth.issue(user_id="a", expires_in=timedelta(days=30))
    await auth.revoke(user_id="a")
    await clock.advance(30 * 86400 + 9)
    await auth.revoke(user_id="b")
    with pytest.raises(TokenRevoked):
        await auth.identify(token)
    await clock.advance(1)
    with pytest.raises(TokenExpired):
        await auth.identify(token)


async def test_listeners_hear_of_revocations_and_a_failing_one_costs_only_itself(auth: WebSocketAuth, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[tuple[str | None, str | None]] = []

    @auth.on_revoked
    def fail(user_id: str | None, token_id: str | None) -> None:
        raise RuntimeError(f"{user_id}")

    @auth.on_revoked
    async def note(user_id: str | None, token_id: str | None) -> None:
        await asyncio.sleep(0)
        heard.append((user_id, token_id))

    auth.on_revoked(lambda user_id, token_id: heard.append((user_id, token_id)))
    await auth.revoke(user_id="somebody")
    await auth.revoke(token_id="j")
    assert heard == [("somebody", None)] * 2 + [(None, "j")] * 2
    assert "A listener to revocations failed (RuntimeError)." in caplog.text and "somebody" not in caplog.text
    auth.note_revoked(user_id="b")
    assert len(heard) == 4


async def test_a_revocation_of_another_node_counts_from_its_own_time(auth: WebSocketAuth, clock: ManualClock) -> None:
    token = auth.issue(user_id="a")
    auth.note_revoked(user_id="a", at=NOW - 1)
    assert await auth.identify(token)
    auth.note_revoked(user_id="a", at=NOW + 1e9)
    assert not (await auth.authenticate(None, token)).success
    await clock.advance(10.5)
    assert await auth.identify(auth.issue(user_id="a")), "a time in the future is not believed further than the leeway"


class Kept:
    """Where revocations outlive a node."""

    def __init__(self, *revoked: Revoked) -> None:
        self.revoked = list(revoked)
        self.is_away = False

    async def add(self, revoked: Iterable[Revoked]) -> None:
        if self.is_away:
            raise BrokerUnavailable("away")
        self.revoked += revoked

    async def load(self) -> list[Revoked]:
        return self.revoked


async def test_of_several_nodes_a_revocation_is_kept_and_told(auth: WebSocketAuth, clock: ManualClock) -> None:
    bus, kept, heard = LocalBus(), Kept(), []
    auth.join(bus, kept)
    auth.on_revoked(lambda user_id, token_id: heard.append((user_id, token_id)))
    token = auth.issue(user_id="a")
    await auth.revoke(user_id="a")
    await auth.revoke(token_id="t")
    assert kept.revoked == [Revoked("user", "a", NOW), Revoked("token", "t", NOW)] and heard == [("a", None), (None, "t")]
    await bus.ask(Revoke("b", None, NOW - 1))
    assert heard[-1] == ("b", None), "another node's"
    kept.is_away = True
    with pytest.raises(BrokerUnavailable):
        await auth.revoke(user_id="c")
    assert heard[-1] == ("c", None), "done all the same, as far as it goes"
    with pytest.raises(TokenRevoked):
        await auth.identify(token)


async def test_what_was_kept_is_loaded(auth: WebSocketAuth, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    await auth.load_revocations()
    old = auth.issue(user_id="old")
    await clock.advance(1)
    token, other, later = auth.issue(user_id="a"), auth.issue(user_id="b", token_id="t"), []
    auth.join(LocalBus(), Kept(Revoked("all", "", NOW + 0.5), Revoked("user", "a", NOW + 1), Revoked("token", "t", NOW), Revoked("user", "\0", NOW)))
    auth.on_loaded(lambda: later.append(1))
    await auth.load_revocations()
    assert later == [1] and "passed over" in caplog.text
    for refused in (old, token, other):
        with pytest.raises(TokenRevoked):
            await auth.identify(refused)
    assert await auth.identify(auth.issue(user_id="b"))


async def test_what_was_lost_is_kept_again(auth: WebSocketAuth) -> None:
    await auth.revoke(user_id="a")
    await auth.revoke(token_id="t")
    await auth.keep_revocations()
    kept = Kept()
    auth.join(LocalBus(), kept)
    await auth.keep_revocations()
    assert kept.revoked == [Revoked("user", "a", NOW), Revoked("token", "t", NOW)]


@pytest.mark.parametrize("names", [{}, {"user_id": "a", "token_id": "b"}, {"user_id": ""}, {"token_id": "\0"}])
async def test_what_cannot_be_revoked(auth: WebSocketAuth, names: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        await auth.revoke(**names)


def test_where_a_token_travels(auth: WebSocketAuth) -> None:
    assert auth.token_from([(b"authorization", b"bearer a.b.c")], b"") == "a.b.c"
    assert auth.token_from([], b"token=a.b.c") is None
    assert auth.bearer_entry(["aibos.realtime.v1", "bearer.a.b.c"]) == "a.b.c"
    switched_on = WebSocketAuth(jwt_secret=SecretStr(SECRET), query_parameter="token", token_header="X-Token", token_prefix="")
    assert switched_on.token_from([(b"x-token", b"h")]) == "h"
    assert switched_on.token_from([], b"token=a.b.c") == "a.b.c"


async def test_keys_of_an_identity_provider(clock: ManualClock) -> None:
    with serve_keys() as provider:
        provider.publish(jwk(rsa_key(), "r"), jwk(ec_key(), "e"))
        async with WebSocketAuth(jwks_url=provider.url, audience="rt", clock=clock) as auth:
            good = signed(rsa_key(), "r", aud="rt")
            assert auth.identify_now(good) is None, "the key is still to come"
            assert await auth.identify(good) == auth.identify_now(good)
            assert (await auth.identify(signed(ec_key(), "e", aud="rt"))).user.id == "user_123"
            wrong = [
                signed(rsa_key(1), "r", aud="rt"),
                signed(ec_key(), "r", aud="rt"),
                signed(rsa_key(), "r", aud="rt", algorithm="RS384"),
                signed(rsa_key(), "e", aud="rt"),
                signed(rsa_key(), "unknown", aud="rt"),
                signed(rsa_key(), aud="rt"),
                signed(rsa_key(), "r", aud="other"),
                hs256(good_claims(aud="rt"), {"kid": "r"}, secret=pem(rsa_key())),
                f"{base64url(b'{}')}.e30.AAAA",
                "no token",
            ]
            for token in wrong:
                with pytest.raises(AuthenticationError, match=TEXT):
                    await auth.identify(token)
            assert not auth.can_issue
            assert provider.hits == 1


async def test_a_provider_that_fails_refuses_with_the_same_answer(clock: ManualClock) -> None:
    with serve_keys() as provider:
        provider.status = 500
        auth = WebSocketAuth(jwks_url=provider.url, clock=clock)
        for _ in range(3):
            with pytest.raises(AuthenticationError, match=TEXT):
                await auth.identify(signed(rsa_key(), "r"))
        assert provider.hits == 1
