"""The protocol: what was missed comes back in order, or the client is told that it cannot. Recovery, rewind, history, `resync`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aibos_realtime import RealtimeServer
from aibos_realtime.server.handshake import Arrival
from aibos_realtime.transport.memory import MemoryTransport
from tests.contracts.peer import PROTOCOL, Message, Peer, connecting, joined, serving

ROOM = "tenant_1"
SOMEWHERE = {"epoch": "e", "offset": 1}


async def publish(server: RealtimeServer, count: int, room: str = ROOM, start: int = 1) -> list[Any]:
    return [await server.broadcaster.broadcast_to_room(room, "x", {"n": n}) for n in range(start, start + count)]


async def position(peer: Peer) -> Message:
    state = await peer.data("join-room", ROOM)
    return {"epoch": state["epoch"], "offset": state["offset"]}


def offsets(messages: list[Message]) -> list[int]:
    return [message["offset"] for message in messages]


async def test_what_was_missed_follows_the_answer(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        last = await position(peer)
    await publish(server, 30)
    async with joined(server) as peer:
        await peer.send("join-room", {"roomId": ROOM, "recover": last}, ref=1)
        answer = await peer.next("joined-room")
        assert answer["data"]["recovered"] is True and answer["data"]["epoch"] == last["epoch"]
        await publish(server, 3, start=31)
        heard = await peer.heard()
        assert offsets(heard) == list(range(1, 34)) and [message["data"]["n"] for message in heard] == list(range(1, 34))
        assert all(message["room"] == ROOM and message["id"] for message in heard)


async def test_from_the_middle(server: RealtimeServer) -> None:
    receipts = await publish(server, 10)
    async with joined(server) as peer:
        epoch = receipts[0].position.epoch
        data = await peer.data("join-room", {"roomId": ROOM, "recover": {"epoch": epoch, "offset": 7}})
        assert data["recovered"] is True
        assert offsets(await peer.heard()) == [8, 9, 10]


async def test_nothing_missed_is_a_recovery(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        last = await position(peer)
    async with joined(server) as peer:
        assert (await peer.data("join-room", {"roomId": ROOM, "recover": last}))["recovered"] is True
        assert await peer.heard() == []


@pytest.mark.parametrize("change", [{"epoch": "another"}, {"offset": 99}], ids=["another epoch", "ahead of the log"])
async def test_what_cannot_be_proven_is_no_recovery(server: RealtimeServer, change: dict[str, Any]) -> None:
    receipts = await publish(server, 3)
    async with joined(server) as peer:
        last = {"epoch": receipts[0].position.epoch, "offset": 1} | change
        data = await peer.data("join-room", {"roomId": ROOM, "recover": last})
        assert data["recovered"] is False and data["offset"] == 3
        assert await peer.heard() == []


async def test_a_part_is_no_recovery() -> None:
    async with serving(rooms={"patterns": {"tenant_*": {"history_size": 5}}}, persistence={"database": {"url": "memory://"}}) as server:
        epoch = (await publish(server, 20))[0].position.epoch
        async with joined(server) as peer:
            assert (await peer.data("join-room", {"roomId": ROOM, "recover": {"epoch": epoch, "offset": 3}}))["recovered"] is False
            assert await peer.heard() == []
        async with joined(server) as peer:
            assert (await peer.data("join-room", {"roomId": ROOM, "recover": {"epoch": epoch, "offset": 17}}))["recovered"] is True
            assert offsets(await peer.heard()) == [18, 19, 20]


async def test_rewind(server: RealtimeServer) -> None:
    await publish(server, 10)
    async with joined(server) as peer:
        data = await peer.data("join-room", {"roomId": ROOM, "rewind": 3})
        assert data["recovered"] is None
        assert offsets(await peer.heard()) == [8, 9, 10]


async def test_rewind_beyond_the_beginning(server: RealtimeServer) -> None:
    await publish(server, 2)
    async with joined(server) as peer:
        await peer.data("join-room", {"roomId": ROOM, "rewind": 50})
        assert offsets(await peer.heard()) == [1, 2]


async def test_own_streams_recover_as_rooms_do(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        pass
    async with joined(server) as peer:
        streams = {name: (await peer.data("history", {"roomId": name}))["epoch"] for name in ("user:user_1", "all")}
    await server.broadcaster.broadcast_to_user("user_1", "x", {"n": 1})
    await server.broadcaster.broadcast_to_all("x", {"n": 1})
    async with joined(server) as peer:
        for name, epoch in streams.items():
            data = await peer.data("join-room", {"roomId": name, "recover": {"epoch": epoch, "offset": 0}})
            assert data["recovered"] is True
            assert [(message["room"], message["offset"]) for message in await peer.heard()] == [(name, 1)]


async def test_the_positions_of_own_streams_in_connected_are_where_to_recover_from(server: RealtimeServer) -> None:
    token = server.auth.issue(user_id="user_1")
    async with connecting(server, token) as peer:
        streams = (await peer.next("connected"))["data"]["streams"]
    await server.broadcaster.broadcast_to_user("user_1", "x", {"n": 1})
    async with connecting(server, token) as peer:
        assert (await peer.next("connected"))["data"]["streams"]["user:user_1"]["offset"] == 1
        data = await peer.data("join-room", {"roomId": "user:user_1", "recover": streams["user:user_1"]})
        assert data["recovered"] is True and offsets(await peer.heard()) == [1]


async def test_filters_and_exclusions_hold_in_recovery_and_history(server: RealtimeServer) -> None:
    async with joined(server) as peer, joined(server, ROOM, user_id="other") as other:
        last = await position(peer)
        for n, exclude in enumerate((["user_1"], [], ["user_1"]), 1):
            await server.broadcaster.broadcast_to_room(ROOM, "x", {"n": n}, exclude=exclude)
        assert offsets(await peer.heard()) == [2]
        assert offsets(await other.heard()) == [1, 2, 3]
    async with joined(server) as peer:
        assert (await peer.data("join-room", {"roomId": ROOM, "recover": last}))["recovered"] is True
        assert offsets(await peer.heard()) == [2]
        assert offsets((await peer.data("history", {"roomId": ROOM}))["events"]) == [2]
    async with joined(server, user_id="other") as peer:
        assert offsets((await peer.data("history", {"roomId": ROOM}))["events"]) == [1, 2, 3]


# — history —


async def test_history(server: RealtimeServer) -> None:
    async with joined(server, ROOM) as peer:
        await peer.data("x", {"n": 1}, room=ROOM, id="key")
        live = await peer.next("x")
        answer = await peer.ask("history", {"roomId": ROOM, "limit": 10}, ref=3)
        assert answer["event"] == "history" and answer["ref"] == 3
        assert set(answer["data"]) == {"roomId", "epoch", "events", "more"}
        assert answer["data"]["roomId"] == ROOM and answer["data"]["more"] is False
        [event] = answer["data"]["events"]
        assert event | {"room": ROOM} == live


async def test_history_backwards_page_by_page(server: RealtimeServer) -> None:
    await publish(server, 7)
    async with joined(server) as peer:
        page = await peer.data("history", {"roomId": ROOM, "limit": 3})
        seen, pages = [sorted(offsets(page["events"]))], 1
        while page["more"]:
            before = {"epoch": page["epoch"], "offset": min(offsets(page["events"]))}
            page = await peer.data("history", {"roomId": ROOM, "limit": 3, "before": before})
            seen.append(sorted(offsets(page["events"])))
            pages += 1
            assert pages < 10
        assert seen == [[5, 6, 7], [2, 3, 4], [1]]


async def test_history_forwards_page_by_page(server: RealtimeServer) -> None:
    epoch = (await publish(server, 7))[0].position.epoch
    async with joined(server) as peer:
        seen, more, last = [], True, 0
        while more:
            page = await peer.data("history", {"roomId": ROOM, "limit": 3, "after": {"epoch": epoch, "offset": last}})
            assert page["epoch"] == epoch
            seen.append(sorted(offsets(page["events"])))
            more, last = page["more"], max(offsets(page["events"]))
            assert len(seen) < 10
        assert seen == [[1, 2, 3], [4, 5, 6], [7]]


async def test_history_of_a_room_without_one(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        data = await peer.data("history", {"roomId": ROOM})
        assert data["events"] == [] and data["more"] is False


async def test_history_after_a_position_that_is_not_in_the_log(server: RealtimeServer) -> None:
    await publish(server, 3)
    async with joined(server) as peer:
        data = await peer.refusal("history", {"roomId": ROOM, "after": {"epoch": "another", "offset": 1}})
        assert data["code"] == "unrecoverable_position" and data["retryable"] is False


@pytest.mark.parametrize(
    "members",
    [
        {"limit": 0},
        {"limit": -1},
        {"limit": "many"},
        {"before": {"epoch": "e", "offset": 1}, "after": {"epoch": "e", "offset": 1}},
        {"after": 5},
    ],
    ids=str,
)
async def test_history_asked_for_wrongly(server: RealtimeServer, members: dict[str, Any]) -> None:
    async with joined(server) as peer:
        assert (await peer.refusal("history", {"roomId": ROOM, **members}))["code"] == "bad_request"


async def test_history_can_be_paged_past_events_that_are_for_others(server: RealtimeServer) -> None:
    """Whatever a page hides, a client that follows `more` gets to the event before it."""
    await publish(server, 1)
    for n in range(2, 12):
        await server.broadcaster.broadcast_to_room(ROOM, "x", {"n": n}, exclude=["user_1"])
    async with joined(server) as peer:
        page = await peer.data("history", {"roomId": ROOM, "limit": 3})
        for _ in range(10):
            assert page["events"] or not page["more"], "no event on the page and more to come: before which position?"
            if not page["more"]:
                break
            before = {"epoch": page["epoch"], "offset": min(offsets(page["events"]))}
            page = await peer.data("history", {"roomId": ROOM, "limit": 3, "before": before})
        assert offsets(page["events"]) == [1]


async def test_volatile_events_take_no_place(server: RealtimeServer) -> None:
    async with joined(server, ROOM) as peer:
        await server.broadcaster.broadcast_to_room(ROOM, "cursor", {"x": 1}, volatile=True)
        event = await peer.next("cursor")
        assert event["room"] == ROOM and "offset" not in event
        assert (await publish(server, 1))[0].position.offset == 1
        assert offsets((await peer.data("history", {"roomId": ROOM}))["events"]) == [1]


async def test_an_ephemeral_room_keeps_nothing() -> None:
    async with serving(rooms={"patterns": {"tenant_*": {"ephemeral": True}}}) as server:
        async with joined(server) as peer:
            last = await position(peer)
            await publish(server, 1)
            assert (await peer.next("x"))["data"] == {"n": 1}
        async with joined(server) as peer:
            assert (await peer.data("join-room", {"roomId": ROOM, "recover": last}))["recovered"] is False


# — resync —


async def test_resync_where_the_log_is_trimmed_under_a_slow_replay() -> None:
    """The one way in which the broker in memory loses continuity: a member that reads more slowly than the log forgets."""
    async with serving(rooms={"patterns": {"tenant_*": {"history_size": 150}}}, persistence={"database": {"url": "memory://"}}) as server:
        await publish(server, 150)
        transport = MemoryTransport(soft_limit=1000)
        identity = server.auth.identify_now(server.auth.issue(user_id="slow", tenant_id="1"))
        server.sockets.welcome(Arrival("", PROTOCOL, b"", identity=identity), transport)
        far = transport.far

        async def receive() -> Message:
            message: Message = json.loads(await far.receive())
            return message

        connected = await receive()
        assert connected["event"] == "connected"
        far.send(json.dumps({"event": "history", "data": {"roomId": ROOM, "limit": 1}, "ref": 1}))
        epoch = (await receive())["data"]["epoch"]
        far.send(json.dumps({"event": "join-room", "data": {"roomId": ROOM, "recover": {"epoch": epoch, "offset": 0}}, "ref": 2}))
        assert (await receive())["data"]["recovered"] is True
        await publish(server, 150, start=151)
        heard: list[Message] = []
        while not heard or heard[-1]["event"] != "resync":
            heard.append(await receive())
        assert offsets(heard[:-1]) == list(range(1, len(heard))), "no gap before the notice"
        assert set(heard[-1]["data"]) == {"roomId", "epoch", "offset"} and heard[-1]["data"]["offset"] == 300
        await publish(server, 1, start=301)
        assert (await receive())["offset"] == 301
