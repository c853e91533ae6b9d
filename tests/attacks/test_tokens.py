"""Tokens that are made to be believed: one answer for all of them, wherever they travel, and nothing is fetched, opened or waited for on their word.

The table is that of `tests/unit/auth/test_tokens.py`, on real sockets; the server's wall clock stands where the table's does.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import Any
from urllib.parse import quote

import pytest

from aibos_realtime.auth.document import fetch_document
from aibos_realtime.auth.keys import key_of_secret
from aibos_realtime.protocol.messages import SUBPROTOCOL
from tests.attacks.arena import Arena, Field
from tests.network.raw import PATIENCE, raw, request, serving
from tests.unit.auth.material import NOW, SECRET, ec_key, hs256, jwk, pem, raw_token, rsa_key, serve_keys, signed
from tests.unit.auth.test_tokens import AUDIENCE, GOOD, HOSTILE, ISSUER, RIGHT, STRICT, UNUSUAL, strict

SOON_OTHERWISE = ("exp beyond max_lifetime", "exp within the leeway")
"""Rows that are right for a second only: here time goes on."""
TABLE = {name: token for name, (token, _) in (HOSTILE | UNUSUAL).items() if isinstance(token, str) and name not in SOON_OTHERWISE}
RULES = {"jwt_secret": SECRET, "audience": AUDIENCE, "issuer": ISSUER, "query_parameter": "token"}
UNPUNISHED = {"failed_authentications_per_minute": None, "messages_per_second": None}
HEADER_BYTES = 8000
"""Of a token that fits a header beside the rest; longer ones are refused as headers."""


def there() -> dict[str, Any]:
    """The options of a server that lives at NOW."""
    return {"authentication": RULES, "limits": UNPUNISHED, "ahead": NOW - time.time()}


def can_travel(token: str) -> bool:
    """Whether a header carries this text as it is."""
    return token.isascii() and token.isprintable() and token == token.strip() and len(token) < HEADER_BYTES


async def by_header(field: Field, token: str) -> tuple[Any, ...]:
    """The answer to a handshake with this token."""
    async with field.raw() as connection:
        await connection.send(request(f"Authorization: Bearer {token}"))
        response = await connection.response()
        return response.status, response.body, response.fields.get("www-authenticate")


async def by_query(field: Field, token: str) -> tuple[Any, ...]:
    async with field.raw() as connection:
        await connection.send(request(line=f"GET /?token={quote(token, safe='', errors='surrogatepass')} HTTP/1.1"))
        response = await connection.response()
        return response.status, response.body, response.fields.get("www-authenticate")


async def by_api(field: Field, token: str) -> tuple[Any, ...]:
    response = await field.http("GET", "/api/v1/rooms", token=token)
    return response.status, response.body, response.fields.get("www-authenticate")


async def by_protocol(field: Field, token: str) -> tuple[Any, ...]:
    """What a browser sees, which cannot read a refusal: the code and reason of the close."""
    async with field.upgraded(f"Sec-WebSocket-Protocol: {SUBPROTOCOL}, bearer.{token}") as connection:
        return await connection.frame()


async def by_message(field: Field, token: str) -> tuple[Any, ...]:
    async with field.upgraded() as connection:
        await connection.message("connected")
        connection.say("authenticate", token, ref=1)
        answer = await connection.message("authenticated")
        return answer["data"], await connection.frame()


ROADS = {
    "header": (by_header, can_travel),
    "query": (by_query, lambda token: len(quote(token, errors="surrogatepass")) < HEADER_BYTES),
    "api": (by_api, lambda token: token and can_travel(token)),
    "protocol": (by_protocol, lambda token: can_travel(token) and all(letter.isalnum() or letter in "_.-" for letter in token) and token),
    "message": (by_message, lambda token: len(token) < 60_000 and "\ud800" not in token),
}


@pytest.mark.parametrize("road", ROADS)
async def test_one_answer_for_every_token(arena: Arena, road: str) -> None:
    ask, fits = ROADS[road]
    tokens = {name: token for name, token in TABLE.items() if fits(token)}
    assert len(tokens) >= 34
    async with arena(f"{len(tokens)} tokens by {road}", attackers=len(tokens), api=True, **there()) as field:
        assert 200 <= (await by_api(field, RIGHT))[0] < 300
        usual = await ask(field, "no.good.token")
        await field.report()
        odd = {name: answer for name, token in tokens.items() if (answer := await ask(field, token)) != usual}
        assert odd == {}
        reached = [one for one in (await field.report())["reached"] if "/proc/self/" not in one]
        assert reached == [], "something was opened or asked for on a token's word"


async def test_tokens_that_are_right_pass(arena: Arena) -> None:
    """Without this, a server that refuses everything would pass the others."""
    async with arena("tokens that are right", attackers=len(GOOD), **there()) as field:
        for name in GOOD.keys() - SOON_OTHERWISE:
            token = GOOD[name]
            async with field.upgraded(f"Authorization: Bearer {token}") as connection:
                assert (await connection.message("connected"))["data"]["user"]["id"] == "user_123", name


async def test_tokens_that_no_header_carries(arena: Arena) -> None:
    async with arena("tokens of 8 KB and 1 MB", **there()) as field:
        for token, status in ((RIGHT + "A" * 2**13, 431), (RIGHT + "A" * 2**20, 431), (RIGHT + "\0", 400), (RIGHT + "\r\n x", 400)):
            async with field.raw() as connection:
                await connection.send(request(f"Authorization: Bearer {token}"))
                assert (await connection.response()).status == status
        async with field.upgraded() as connection:
            await connection.message("connected")
            connection.say("authenticate", RIGHT + "A" * 2**20)
            assert await connection.close_code() == 1009


async def test_a_verdict_takes_no_time_that_tells_anything(arena: Arena) -> None:
    """Neither does a token cost much to refuse, nor does the time tell how far it was right."""
    key = key_of_secret(SECRET, None)
    costs = []
    for token in TABLE.values():
        for _ in range(20):
            begin = time.thread_time()
            STRICT.read(token, key, NOW)
            costs.append(time.thread_time() - begin)
    costs.sort()
    kinds = {name: TABLE[name] for name in ("wrong secret", "cut signature", "exp past", "wrong aud", "one part", "crit")} | {"right": RIGHT}
    async with arena("a good token or a bad one, by time", **there()) as field:
        async with field.upgraded(f"Authorization: Bearer {RIGHT}") as connection:
            await connection.message("connected")
            times: dict[str, list[float]] = {name: [] for name in kinds}
            for _ in range(100):
                for name, token in kinds.items():
                    begin = time.perf_counter()
                    answer = await connection.ask("authenticate", token)
                    times[name].append(time.perf_counter() - begin)
                    assert answer["data"]["success"] is (name == "right")
        medians = {name: statistics.median(found) for name, found in times.items()}
        spread = max(medians.values()) - min(medians.values())
        field.figures["verdict, p99 µs"] = round(1e6 * costs[int(0.99 * len(costs))])
        field.figures["spread of medians, µs"] = round(1e6 * spread)
        assert costs[int(0.99 * len(costs))] < 0.001
        assert spread < 0.001, medians


# — one connection, several tokens —


async def test_another_users_token_on_a_live_connection(arena: Arena) -> None:
    """A connection keeps its user, with everything that is his, also where the other token is right."""
    async with arena("another user's token") as field, field.member("eve", "tenant_1") as eve:
        for user_id in ("ann", "eve ", "Eve", "\u0435ve", "eve:1"):
            assert (await eve.ask("authenticate", field.token(user_id)))["data"] == {
                "success": False,
                "error": "A connection cannot change its user.",
            }
        assert (await eve.ask("presence", "tenant_1"))["data"]["members"][0]["userId"] == "eve"


async def test_a_token_of_another_tenant_takes_the_rooms_along(arena: Arena) -> None:
    """Whoever works for two tenants may change: from then on he has the rights of the second alone, also where he is in a room of the first."""
    async with arena("a token of another tenant") as field, field.member("eve", "tenant_1") as eve, field.member("ann", "tenant_1") as ann:
        assert (await eve.ask("authenticate", field.token("eve", tenant_id="2")))["data"]["user"]["tenantId"] == "2"
        ann.say("secret", "of the first", room="tenant_1")
        assert (await ann.ask("ping"))["event"] == "pong"
        for event, data in (("history", {"roomId": "tenant_1"}), ("presence", "tenant_1"), ("join-room", "tenant_1")):
            assert (await eve.ask(event, data))["data"]["code"] == "permission_denied"
        assert (await eve.ask("x", 1, room="tenant_1"))["data"]["code"] == "permission_denied"
        assert [one["userId"] for one in (await ann.ask("presence", "tenant_1"))["data"]["members"]] == ["ann"]
        assert (await eve.ask("join-room", "tenant_2"))["event"] == "joined-room"
        connection_lost = asyncio.ensure_future(eve.message("secret"))
        assert not (await asyncio.wait((connection_lost,), timeout=0.2))[0]
        connection_lost.cancel()


async def test_a_shorter_token_ends_the_connection_earlier(arena: Arena) -> None:
    """A refresh is what the newest token says, not the longest: a token of a second ends a connection of an hour."""
    async with arena("a shorter token", authentication={"expiry_grace": 0, "leeway": 1}) as field, field.member("eve") as eve:
        assert (await eve.ask("authenticate", field.token("eve", expires_in=1)))["data"]["success"] is True
        await eve.message("token-expiring")
        assert await eve.close_code() == 4005


# — clocks that are apart —


async def test_clocks_that_are_apart(arena: Arena) -> None:
    """`iat` by an issuer whose clock is ahead, and `exp` by one that is behind: 10 s are forgiven, and no more."""
    async with arena("issuers' clocks 5 to 300 s off", **there()) as field:
        for off, status in ((5, 101), (-5, 101), (30, 401), (-30, 401), (300, 401), (-300, 401)):
            moved = strict(iat=int(NOW) + off, exp=int(NOW) + off + 3600) if off > 0 else strict(iat=int(NOW) - 600, exp=int(NOW) + off)
            assert (await by_header(field, moved))[0] == status, off


# — public keys, and who publishes them —


async def test_a_public_key_is_no_secret() -> None:
    """The text of a public key, which everybody has, signed "tokens" with HMAC where a server took the algorithm from the token (CVE-2015-9235)."""
    public = pem(rsa_key())
    claims = {"sub": "eve", "exp": int(time.time()) + 600}
    async with serving(authentication={"public_key": public}, limits=UNPUNISHED) as server:
        confused = [hs256(claims, secret=public), hs256(claims, secret=public.strip()), hs256(claims, {"alg": "RS256"}, secret=public)]
        confused += [hs256(claims, {"alg": alg}, secret=public) for alg in ("HS384", "HS512", "ES256", "PS256", "none", "")]
        answers = set()
        for token in confused:
            async with raw(server.port) as connection:
                await connection.send(request(f"Authorization: Bearer {token}"))
                answers.add((await connection.response())[::2])
        assert len(answers) == 1 and answers.pop()[0] == 401
        good = signed(rsa_key(), iat=None, exp=claims["exp"])
        async with raw(server.port) as connection:
            await connection.send(request(f"Authorization: Bearer {good}"))
            assert (await connection.response()).status == 101


async def test_a_key_comes_from_its_own_provider_alone(arena: Arena) -> None:
    """Whatever a token names as the place of its key, one place is asked, which is the configured one; and a `kid` means a key of that alone."""
    with serve_keys() as ours, serve_keys() as evil:
        ours.publish(jwk(rsa_key(), "first"), jwk(ec_key(), "second"))
        evil.publish(jwk(rsa_key(1), "first"))
        claims: dict[str, Any] = {"iat": None, "exp": int(time.time()) + 600}
        places = {"jku": evil.url, "x5u": evil.url, "iss": evil.url}
        limits = {"handshakes_per_second": None, "handshakes_per_second_per_address": None, **UNPUNISHED}
        async with serving(authentication={"jwks_url": ours.url}, limits=limits) as server:

            async def status(token: str) -> int:
                async with raw(server.port) as connection:
                    await connection.send(request(f"Authorization: Bearer {token}"))
                    return (await connection.response()).status

            assert await status(signed(rsa_key(), "first", **claims)) == 101
            asked = ours.hits
            hostile = [
                signed(rsa_key(1), "first", **claims),
                signed(rsa_key(1), evil.url, **claims),
                signed(rsa_key(), "second", **claims),
                signed(ec_key(), "first", **claims),
                signed(rsa_key(1), "first", **claims | {"iss": evil.url}),
                *(raw_token(json.dumps({"alg": "RS256", "kid": "first", name: url}).encode(), b"{}") for name, url in places.items()),
                *(signed(rsa_key(1), f"unknown-{number}", **claims) for number in range(20)),
            ]
            assert {await status(token) for token in hostile} == {401}
            assert evil.hits == 0 and ours.hits - asked <= 1


async def test_a_provider_that_answers_byte_by_byte_holds_nobody() -> None:
    """A head that came a byte at a time held its thread for ever: no key was fetched any more, and the process did not end when it was told to."""
    ended = asyncio.Event()

    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                writer.write(b"H")
                await writer.drain()
                await asyncio.wait((asyncio.get_running_loop().create_future(),), timeout=0.01)
        except OSError:
            pass
        writer.close()
        ended.set()

    provider = await asyncio.start_server(dribble, "127.0.0.1", 0)
    async with provider:
        begin = time.perf_counter()
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(fetch_document, f"http://127.0.0.1:{provider.sockets[0].getsockname()[1]}/keys", timeout=0.2)
        assert time.perf_counter() - begin < PATIENCE
        await asyncio.wait_for(ended.wait(), PATIENCE)
