"""Keys of an identity provider on loopback: fetched in the background, once for all who wait, and never because of a token's own words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest

from aibos_realtime.auth import jwks
from aibos_realtime.auth.jwks import KeySet, keys_in
from aibos_realtime.testing.clock import ManualClock, settle

from .material import Provider, ec_key, jwk, rsa_key, serve_keys

ALL = ("RS256", "ES256")


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serve_keys() as provider:
        provider.publish(jwk(rsa_key(), "first"))
        yield provider


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def keys(provider: Provider, clock: ManualClock) -> AsyncIterator[KeySet]:
    key_set = KeySet(provider.url, algorithms=ALL, clock=clock)
    yield key_set
    await key_set.stop()


async def wait_for_requests(provider: Provider, count: int) -> None:
    async with asyncio.timeout(5):
        while provider.hits < count:
            await asyncio.to_thread(provider.asked.wait, 1)
            provider.asked.clear()


async def test_a_key_is_fetched_when_it_is_looked_for(keys: KeySet, provider: Provider) -> None:
    assert keys.find("first") is None and keys.can_fetch("first")
    found = await keys.look_for("first")
    assert found is not None and found.kid == "first" and keys.find("first") is found
    assert provider.hits == 1


async def test_nothing_is_fetched_at_construction_and_start_does_not_wait(keys: KeySet, provider: Provider) -> None:
    assert provider.hits == 0
    provider.gate.clear()
    await keys.start()
    await keys.start()
    await wait_for_requests(provider, 1)
    assert keys.find("first") is None
    provider.gate.set()
    assert await keys.refresh()
    assert keys.find("first") is not None
    assert provider.hits == 1, "the refresh joined the fetch under way"


async def test_one_fetch_for_all_who_wait(keys: KeySet, provider: Provider) -> None:
    provider.gate.clear()
    waiting = [asyncio.create_task(keys.look_for(name)) for name in ["first", "unknown"] * 50]
    await wait_for_requests(provider, 1)
    provider.gate.set()
    found = await asyncio.gather(*waiting)
    assert [key is not None for key in found] == [True, False] * 50
    assert provider.hits == 1


async def test_a_cancelled_caller_leaves_the_fetch_to_the_others(keys: KeySet, provider: Provider) -> None:
    provider.gate.clear()
    first, second = (asyncio.create_task(keys.look_for("first")) for _ in range(2))
    await wait_for_requests(provider, 1)
    first.cancel()
    await asyncio.wait([first])
    provider.gate.set()
    assert first.cancelled() and await second is not None


async def test_unknown_ids_cause_one_fetch_per_cool_down(keys: KeySet, provider: Provider, clock: ManualClock) -> None:
    for number in range(100):
        assert await keys.look_for(f"unknown-{number}") is None
    assert provider.hits == 1
    await clock.advance(jwks.COOLDOWN)
    for number in range(100, 200):
        assert await keys.look_for(f"unknown-{number}") is None
    assert provider.hits == 2


async def test_an_id_that_was_missing_is_not_asked_for_again_at_once(keys: KeySet, provider: Provider, clock: ManualClock) -> None:
    assert await keys.look_for("late") is None
    await clock.advance(jwks.COOLDOWN)
    assert not keys.can_fetch("late") and keys.can_fetch("other")
    await clock.advance(jwks.UNKNOWN_TTL)
    provider.publish(jwk(ec_key(), "late"))
    assert await keys.look_for("late") is not None


async def test_the_memory_of_missing_ids_is_bounded(keys: KeySet, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "MAX_UNKNOWN", 2)
    monkeypatch.setattr(jwks, "UNKNOWN_TTL", 1000.0)
    for name in ("a", "b", "c"):
        await keys.look_for(name)
        await clock.advance(jwks.COOLDOWN)
    assert [keys.can_fetch(name) for name in ("a", "b", "c")] == [True, False, False]


@pytest.mark.parametrize("kid", ["../keys", "/etc/passwd", "a b", "' OR 1=1", "x\n", "\u00e9"])
async def test_an_id_that_is_none_causes_no_fetch(keys: KeySet, provider: Provider, kid: str) -> None:
    assert await keys.look_for(kid) is None
    assert provider.hits == 0


async def test_keys_are_renewed_in_the_background(keys: KeySet, provider: Provider, clock: ManualClock) -> None:
    await keys.start()
    assert await keys.refresh()
    await settle()
    assert clock.planned == [jwks.REFRESH_INTERVAL]
    provider.publish(jwk(ec_key(), "second"))
    await clock.advance(jwks.REFRESH_INTERVAL)
    await wait_for_requests(provider, 2)
    await keys.refresh()
    assert keys.find("first") is None and keys.find("second") is not None


async def test_old_keys_stay_good_while_the_provider_fails(
    keys: KeySet, provider: Provider, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    assert await keys.look_for("first") is not None
    provider.status = 503
    assert not await keys.refresh()
    assert keys.find("first") is not None
    assert "could not be fetched (HTTPError)" in caplog.text
    assert not keys.can_fetch("other")
    await clock.advance(jwks.RETRY_DELAY)
    assert keys.can_fetch("other")
    await clock.advance(jwks.MAX_STALE)
    assert keys.find("first") is None


async def test_retries_back_off_and_recover(keys: KeySet, provider: Provider, clock: ManualClock) -> None:
    provider.status = 500
    await keys.start()
    planned = []
    for number in range(1, 4):
        await wait_for_requests(provider, number)
        await keys.refresh()
        await settle()
        planned += clock.planned
        provider.status = 200 if number == 2 else 500
        await clock.advance(clock.planned[0])
    assert planned == [jwks.RETRY_DELAY, 2 * jwks.RETRY_DELAY, jwks.REFRESH_INTERVAL]


@pytest.mark.parametrize(
    "document",
    [b"", b"null", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[]}', b'{"keys":[{"kty":"oct","k":"AAAA","kid":"a"}]}', b"[" * 100_000, b"\xff"],
)
async def test_a_document_that_is_no_key_set_changes_nothing(keys: KeySet, provider: Provider, document: bytes) -> None:
    assert await keys.refresh()
    provider.body = document
    assert not await keys.refresh()
    assert keys.find("first") is not None


async def test_stopping_while_a_fetch_is_under_way(keys: KeySet, provider: Provider) -> None:
    provider.gate.clear()
    await keys.start()
    waiting = asyncio.create_task(keys.look_for("first"))
    await wait_for_requests(provider, 1)
    await keys.stop()
    assert await waiting is None, "who waited is refused, not cancelled"
    await keys.stop()
    provider.gate.set()
    assert await keys.look_for("first") is not None, "it can be used again"


def test_entries_of_other_kinds_are_passed_over() -> None:
    entries = [5, jwk(rsa_key(), "rsa"), jwk(rsa_key(1), "rsa"), jwk(ec_key(), "enc", use="enc"), jwk(ec_key(), "ec")]
    found = keys_in(json.dumps({"keys": entries}).encode(), ALL)
    assert list(found) == ["rsa", "ec"]
    assert found["rsa"].key.public_numbers() == rsa_key().public_key().public_numbers(), "the first of two with one id"
    with pytest.raises(ValueError, match="not a key set"):
        keys_in(json.dumps({"keys": entries * 21}).encode(), ALL)
