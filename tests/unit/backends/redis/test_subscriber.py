"""Sharded channels are heard again after everything, and each time that something may have been missed the subscriber says so."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Iterator

import pytest

from aibos_realtime import BrokerUnavailable
from aibos_realtime.backends.redis import link
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.subscriber import Subscriber
from aibos_realtime.backends.redis.urls import read_url
from aibos_realtime.clock import SYSTEM_CLOCK
from tests.faults.proxy import Blackhole, Pass, Proxy, Reset
from tests.servers.redis import PROGRAMS, RedisServer, running_redis

from .heard import listening


@pytest.fixture(params=list(PROGRAMS) or ["valkey"])
def own(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with running_redis(PROGRAMS.get(request.param)) as server:
        yield server


async def test_channels_are_heard_in_order_from_their_confirmation_on(redis_url_any: str, redis_prefix: str) -> None:
    async with listening(redis_url_any) as heard:
        channels = [f"{{{redis_prefix}:{number % 5}}}:{number}" for number in range(20)]
        await asyncio.gather(*(heard.subscriber.subscribe(channel) for channel in channels))
        assert heard.subscriber.is_connected and sorted(heard.subscriber.channels) == sorted(channels)
        assert heard.confirmed == dict.fromkeys(channels, 1), "who waited for a channel goes on after it was told"
        payloads = [b"\0\r\n\xff", b"", b"x" * 2**20, *(b"%d" % number for number in range(50))]
        for channel in channels:
            for payload in payloads:
                await heard.publish(channel, payload)
        await heard.until(lambda: len(heard.messages) == len(channels) * len(payloads))
        for channel in channels:
            assert [payload for name, payload in heard.messages if name == channel] == payloads
        assert heard.lost == 0


async def test_a_confirmation_is_told_before_what_is_heard_after_it(redis_server: RedisServer, redis_prefix: str) -> None:
    async with listening(redis_server.url) as heard, listening(redis_server.url) as other:
        for number in range(50):
            channel = f"{redis_prefix}:{number}"
            waiting = heard.subscriber.subscribe(channel)
            while not waiting.done():
                await other.publish(channel, "news")
            await heard.hears(channel)
            assert heard.log.index(channel) < min(place for place, entry in enumerate(heard.log) if entry[0] == channel)


async def test_what_is_heard_already_is_confirmed_at_once(redis_url_any: str, redis_prefix: str) -> None:
    async with listening(redis_url_any) as heard:
        first, second = heard.subscriber.subscribe(redis_prefix), heard.subscriber.subscribe(redis_prefix)
        first.cancel()
        await second
        assert heard.subscriber.subscribe(redis_prefix).done() and list(heard.subscriber.channels) == [redis_prefix]
        await heard.hears(redis_prefix)
        assert heard.confirmed == {redis_prefix: 1}


async def test_what_is_unsubscribed_is_not_heard_and_nobody_waits_for_it(redis_url_any: str, redis_prefix: str) -> None:
    async with listening(redis_url_any) as heard:
        subscriber, (kept, left, never) = heard.subscriber, (f"{{{redis_prefix}}}:{name}" for name in ("kept", "left", "never"))
        waiting = subscriber.subscribe(never)
        subscriber.unsubscribe(never)
        subscriber.unsubscribe("unknown")
        assert waiting.cancelled()
        await asyncio.gather(subscriber.subscribe(kept), subscriber.subscribe(left))
        subscriber.unsubscribe(left)
        for channel in (never, left, kept):
            await heard.publish(channel, "news")
        await heard.until(lambda: (kept, b"news") in heard.messages)
        assert heard.messages == [(kept, b"news")] and set(heard.confirmed) == {kept, left} and list(subscriber.channels) == [kept]
        assert subscriber.is_connected
        numbers = await heard.client.command("PUBSUB", "SHARDNUMSUB", kept, left, never, key=kept)
        assert numbers[1::2] == [1, 0, 0], "the server knows it too"


async def test_coming_and_going_in_any_order_ends_as_it_was_asked(redis_url_any: str, redis_prefix: str) -> None:
    """With a few turns of the loop between the steps, or none."""
    random.seed(3)
    channels = [f"{{{redis_prefix}:{number % 3}}}:{number}" for number in range(12)]
    async with listening(redis_url_any) as heard:
        waiting: dict[str, asyncio.Future[None]] = {}
        for _ in range(600):
            channel = random.choice(channels)
            if random.random() < 0.5:
                waiting[channel] = heard.subscriber.subscribe(channel)
            else:
                heard.subscriber.unsubscribe(channel)
            for _ in range(random.choice((0, 0, 1, 5))):
                await asyncio.sleep(0)
        wanted = set(heard.subscriber.channels)
        async with asyncio.timeout(5):
            await asyncio.gather(*waiting.values(), return_exceptions=True)
        assert all(future.done() for future in waiting.values()) and all(waiting[channel].result() is None for channel in wanted)
        for channel in sorted(wanted):
            await heard.hears(channel)
        assert heard.subscriber.is_connected and heard.lost == 0
        for channel in channels:
            await heard.publish(channel, "last")
        await heard.until(lambda: {name for name, payload in heard.messages if payload == b"last"} == wanted)


async def test_a_subscriber_that_is_stopped_fails_those_who_wait(own: RedisServer) -> None:
    async with listening(own.url) as heard:
        await heard.subscriber.subscribe("a")
        own.pause()
        waiting = heard.subscriber.subscribe("b")
        await heard.subscriber.stop()
        for future in (waiting, heard.subscriber.subscribe("c")):
            with pytest.raises(BrokerUnavailable, match="closed"):
                await future
        assert not heard.subscriber.is_connected and not heard.subscriber.channels and heard.lost == 0
        own.go_on()
        await heard.subscriber.stop()


async def test_a_subscriber_needs_an_open_client() -> None:
    subscriber = Subscriber(Client(read_url("redis://127.0.0.1:1")), on_message=print, on_subscribed=print)
    with pytest.raises(BrokerUnavailable, match="closed"):
        await subscriber.start()
    await subscriber.stop()


async def test_killed_connections_come_again_and_every_channel_is_confirmed_again(redis_url_any: str, redis_prefix: str) -> None:
    async with listening(redis_url_any) as heard:
        channels = [f"{{{redis_prefix}:{number}}}" for number in range(30)]
        await asyncio.gather(*(heard.subscriber.subscribe(channel) for channel in channels))
        for round in range(2, 5):
            for channel in channels:
                await heard.client.command("CLIENT", "KILL", "TYPE", "pubsub", key=channel)
            await heard.until(lambda wanted=round: heard.lost > 0 and min(heard.confirmed.values()) >= wanted)  # type: ignore[misc]
            heard.lost = 0
            for channel in channels:
                await heard.hears(channel)
        assert heard.subscriber.is_connected


async def test_reconnect_drops_what_is_deaf(redis_url_any: str, redis_prefix: str) -> None:
    async with listening(redis_url_any) as heard:
        await heard.subscriber.subscribe(redis_prefix)
        heard.subscriber.reconnect()
        await heard.until(lambda: heard.confirmed[redis_prefix] == 2)
        assert heard.lost == 1
        await heard.hears(redis_prefix)


async def test_a_server_that_was_away_is_heard_when_it_is_back(own: RedisServer) -> None:
    async with listening(own.url) as heard:
        await heard.subscriber.subscribe("a")
        own.stop()
        await heard.until(lambda: heard.lost == 1)
        assert not heard.subscriber.is_connected
        waiting = heard.subscriber.subscribe("b")
        heard.subscriber.unsubscribe("never")
        own.start()
        await asyncio.wait_for(waiting, 5)
        await heard.until(lambda: heard.confirmed == {"a": 2, "b": 1})
        await heard.hears("a")


async def test_a_line_that_is_cut_silently_is_noticed(own: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half open, in one direction or both: nothing is reset, and nothing arrives."""
    monkeypatch.setattr(link, "CONNECT_TIMEOUT", 0.3)
    async with Proxy(str(own.path)) as proxy, listening(own.url) as publisher:
        async with listening(f"redis://127.0.0.1:{proxy.port}", ping_after=0.1, lost_after=0.3) as heard:
            await heard.subscriber.subscribe("a")
            for count, mode in enumerate((Blackhole("up"), Blackhole("down"), Blackhole()), 1):
                started = time.monotonic()
                proxy.mode = mode
                await heard.until(lambda count=count: heard.lost == count)  # type: ignore[misc]
                assert time.monotonic() - started > 0.15 and not heard.subscriber.is_connected
                proxy.mode = Pass()
                await heard.until(lambda count=count: heard.confirmed["a"] == count + 1)  # type: ignore[misc]
                await publisher.publish("a", f"{count}")
                await heard.until(lambda count=count: ("a", b"%d" % count) in heard.messages)  # type: ignore[misc]


async def test_a_server_that_stands_still_is_given_up_and_taken_again(own: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "CONNECT_TIMEOUT", 0.3)
    async with listening(own.url, ping_after=0.1, lost_after=0.3) as heard:
        await heard.subscriber.subscribe("a")
        own.pause()
        waiting = heard.subscriber.subscribe("b")
        await heard.until(lambda: heard.lost >= 1)
        own.go_on()
        await asyncio.wait_for(waiting, 10)
        await heard.until(lambda: heard.confirmed["a"] >= 2)
        await heard.hears("b")


async def test_silence_is_no_loss(own: RedisServer) -> None:
    async with listening(own.url, ping_after=0.02, lost_after=10) as heard:
        await heard.subscriber.subscribe("a")
        asked = 0
        async with asyncio.timeout(10):
            while asked < 6:
                asked = counted(await heard.client.command("INFO", "commandstats"), "ping", "calls")
        assert heard.lost == 0 and heard.confirmed == {"a": 1}


def counted(stats: bytes, command: str, field: str) -> int:
    """A number of INFO commandstats."""
    found = re.search(rf"cmdstat_{command}:.*?\b{field}=(\d+)".encode(), stats)
    return int(found[1]) if found else 0


class Hurried:
    """The system's clock, except that whoever sleeps goes on at once; `pauses`: for how long they meant to."""

    now, monotonic, call_later = staticmethod(SYSTEM_CLOCK.now), staticmethod(SYSTEM_CLOCK.monotonic), staticmethod(SYSTEM_CLOCK.call_later)

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.paused = asyncio.Event()

    async def sleep(self, delay: float) -> None:
        self.pauses.append(delay)
        self.paused.set()
        await asyncio.sleep(0)


async def test_attempts_come_at_once_and_then_with_growing_pauses(
    own: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    clock = Hurried()
    async with Proxy(str(own.path)) as proxy, listening(f"redis://127.0.0.1:{proxy.port}", clock=clock) as heard:
        await heard.subscriber.subscribe("a")
        proxy.mode = Reset()
        async with asyncio.timeout(5):
            while len(clock.pauses) < 7:
                clock.paused.clear()
                await clock.paused.wait()
        assert clock.pauses[:7] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
        proxy.mode = Pass()
        await heard.until(lambda: heard.confirmed["a"] == 2)
        clock.pauses.clear()
        proxy.reset()
        await heard.until(lambda: heard.confirmed["a"] == 3)
        assert clock.pauses == [] and heard.lost == 2
    assert len([record for record in caplog.records if "are not heard" in record.message]) == 1, "once for each outage"


async def test_an_error_of_those_who_are_told_costs_that_call_only(
    redis_server: RedisServer, redis_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[bytes] = []

    def on_message(channel: str, payload: bytes) -> None:
        got.append(payload)
        heard.on_message(channel, payload)
        if payload == b"bad":
            raise RuntimeError("a fault")

    def fail(*arguments: object) -> None:
        raise RuntimeError("another fault")

    async with listening(redis_server.url, on_message=on_message, on_subscribed=fail, on_lost=fail) as heard:
        await heard.subscriber.subscribe(redis_prefix)
        for payload in ("bad", "good"):
            await heard.publish(redis_prefix, payload)
        await heard.until(lambda: got == [b"bad", b"good"])
        heard.subscriber.reconnect()
        await heard.hears(redis_prefix)
    assert caplog.text.count("An error in the code that is told what Redis says") == 4
    assert caplog.text.count("RuntimeError: a fault") == 1 and caplog.text.count("RuntimeError: another fault") == 2, "two have a trace in a second"


async def test_channels_that_the_user_may_not_hear_are_offered_again(own: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    own.execute("ACL", "SETUSER", "app", "on", ">hunter2", "~mine:*", "&mine:*", "+@all", "-@dangerous")
    async with listening(f"unix://app:hunter2@{own.path}") as heard:
        await heard.subscriber.subscribe("mine:a")
        waiting = heard.subscriber.subscribe("other:a")
        await heard.hears("mine:a")
        async with asyncio.timeout(5):
            while counted(own.execute("INFO", "commandstats"), "ssubscribe", "rejected_calls") < 4:
                await heard.hears("mine:a")
        assert not waiting.done() and heard.lost == 0 and not heard.subscriber.is_connected
        own.execute("ACL", "SETUSER", "app", "&other:*")
        await asyncio.wait_for(waiting, 5)
        assert heard.confirmed == {"mine:a": 1, "other:a": 1}
    assert caplog.text.count("refuses to let channels be heard (NOPERM)") == 1


async def test_ten_thousand_channels_come_again_soon_and_leave_the_loop_free(redis_url_any: str, redis_prefix: str) -> None:
    async with listening(redis_url_any) as heard:
        channels = [f"{{{redis_prefix}:{number % 64}}}:{number}" for number in range(10_000)]
        await asyncio.gather(*(heard.subscriber.subscribe(channel) for channel in channels))
        heard.subscriber.reconnect()
        await heard.until(lambda: heard.confirmed.total() == 20_000, 5)
        assert heard.subscriber.is_connected
        await heard.hears(channels[-1])
