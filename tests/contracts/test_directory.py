"""What a directory of rooms must do, whatever the nodes do at the same time, and whatever else is in its Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import groupby

import pytest

from aibos_realtime import GuestsNotAllowed, RoomFull, RoomLimitExceeded, RoomNotFound, ValidationError
from aibos_realtime.backends.directory import PresentUser
from aibos_realtime.backends.redis.nodes import RedisNodes
from aibos_realtime.backends.redis.room_acts import Act
from tests.cluster.directories import Directories, Known, Node, draft, until_true


@pytest.fixture
async def rig(redis_url_any: str, redis_prefix: str) -> AsyncIterator[Directories]:
    rig = Directories(redis_url_any, redis_prefix)
    yield rig
    await rig.close()


async def keys_of(node: Node) -> list[str]:
    return [key.decode() for key in await node.client.scan(f"{node.layout.prefix}:*")]


# — rooms —


async def test_a_room_is_made_once_and_is_the_same_everywhere(rig: Directories) -> None:
    one, two = await rig.nodes(2)
    made = await one.create("lobby", name="The lobby", type="tenant", max_users=5, allow_guests=True)
    again = await two.create("lobby", name="other", max_users=9)
    assert made == again == await two.directory.find("lobby")
    assert (made.name, made.type, made.max_users, made.allow_guests, made.user_count) == ("The lobby", "tenant", 5, True, 0)
    assert one.heard.all == [("created", "lobby")] and two.heard.all == []


async def test_rooms_of_all_nodes_page_by_page(rig: Directories) -> None:
    one, two = await rig.nodes(2)
    for number in range(7):
        await (one if number % 2 else two).create(f"tenant_{number}")
    await one.create("other")
    page, more = await two.directory.page("tenant_", 5, None)
    assert ([room.id for room in page], more) == ([f"tenant_{number}" for number in range(5)], "tenant_4")
    page, more = await one.directory.page("tenant_", 5, more)
    assert ([room.id for room in page], more) == (["tenant_5", "tenant_6"], None)
    page, more = await one.directory.page("", 100, None)
    assert len(page) == 8 and page[0].id == "other" and not more
    assert (await one.directory.page("é", 10, None)) == ([], None)


async def test_the_limit_of_rooms_holds_on_all_nodes_together(rig: Directories) -> None:
    nodes = await rig.nodes(3)
    asked = [node.create(f"room_{node.id}_{number}", max_rooms=5) for node in nodes for number in range(10)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(result, RoomLimitExceeded) for result in results) == 25
    with pytest.raises(RoomLimitExceeded, match="All 5"):
        await nodes[0].enter("one_more", "ann", max_rooms=5)
    page, _ = await nodes[1].directory.page("", 100, None)
    assert len(page) == 5
    await nodes[0].create(page[0].id, max_rooms=5)
    await nodes[2].directory.destroy(page[0].id)
    await until_true(lambda: _takes(nodes[1], "one_more"))
    with pytest.raises(RoomLimitExceeded):
        await nodes[0].create("two_more", max_rooms=5)


async def _takes(node: Node, room: str) -> bool:
    try:
        await node.create(room, max_rooms=5)
    except RoomLimitExceeded:
        return False
    return True


async def test_a_room_that_is_not_made_by_entering(rig: Directories) -> None:
    (node,) = await rig.nodes(1)
    with pytest.raises(RoomNotFound):
        await node.enter("lobby", "ann", create=False)
    await node.create("lobby")
    await node.enter("lobby", "ann", create=False)


async def test_destroying_ends_everybodys_being_there(rig: Directories) -> None:
    one, two = await rig.nodes(2)
    made = (await one.enter("lobby", "ann")).room
    await two.enter("lobby", "bob")
    assert await two.directory.destroy("lobby") == made.birth
    assert sorted(two.heard.all) == [("destroyed", "lobby"), ("joined", "lobby", "bob"), ("left", "lobby", "ann"), ("left", "lobby", "bob")]
    assert await one.directory.find("lobby") is None and await one.users("lobby") == []
    with pytest.raises(RoomNotFound):
        await one.directory.destroy("lobby")
    again = await two.enter("lobby", "eve")
    assert again.room.birth != made.birth
    await one.leave("lobby", "ann")
    await two.leave("lobby", "bob")
    assert await one.users("lobby") == ["eve"] and one.heard.all == [("created", "lobby"), ("joined", "lobby", "ann")]
    await one.create("hall")
    first = await one.directory.destroy("hall")
    assert (await one.create("hall")).birth != first


async def test_who_enters_a_room_made_again_before_his_node_heard_of_its_end(rig: Directories) -> None:
    one, two = await rig.nodes(2)
    await one.enter("lobby", "ann")
    await two.directory.destroy("lobby")
    await one.enter("lobby", "ann")
    await two.enter("lobby", "ann")
    await two.leave("lobby", "ann")
    assert await two.users("lobby") == ["ann"], "he is still there on the first node"
    await one.leave("lobby", "ann")
    assert await two.users("lobby") == [] and one.heard.all[-1] == ("left", "lobby", "ann")


async def test_an_empty_room_goes_after_its_time_and_one_node_hears_of_it(rig: Directories) -> None:
    nodes = await rig.nodes(3, room_timeout=0.3)
    await nodes[0].create("never_used")
    await nodes[1].enter("used", "ann")
    await nodes[0].enter("kept", "ann")
    await nodes[1].leave("used", "ann")
    await until_true(lambda: _have_heard(nodes, 2))
    destroyed = [what for node in nodes for what in node.heard.all if what[0] == "destroyed"]
    assert sorted(destroyed) == [("destroyed", "never_used"), ("destroyed", "used")]
    assert await nodes[0].directory.find("used") is None and await nodes[2].users("kept") == ["ann"]


async def _have_heard(nodes: list[Node], count: int) -> bool:
    await nodes[0].directory.find("used")
    return sum(what[0] == "destroyed" for node in nodes for what in node.heard.all) >= count


# — users —


async def test_a_user_on_two_nodes_joins_once_and_leaves_once(rig: Directories) -> None:
    one, two = await rig.nodes(2)
    async with rig.hearing(one, "lobby") as heard:
        first = await one.enter("lobby", "ann", role="admin")
        second = await two.enter("lobby", "ann", role="admin")
        assert (first.room.user_count, second.room.user_count) == (1, 1)
        await one.enter("lobby", "ann", role="admin")
        await one.leave("lobby", "ann")
        await one.leave("lobby", "ann")
        assert await one.users("lobby") == ["ann"]
        await two.leave("lobby", "ann")
        await two.enter("lobby", "eve")
        assert one.heard.all == [("created", "lobby"), ("joined", "lobby", "ann")]
        assert two.heard.all == [("left", "lobby", "ann"), ("joined", "lobby", "eve")]
        payloads = [await asyncio.wait_for(heard.get(), 5) for _ in range(3)]
        assert heard.empty() and all(payload[:1] == b"p" for payload in payloads)
    notices = [json.loads(payload[1:]) for payload in payloads]
    assert [(notice["event"], notice["user"], notice["role"]) for notice in notices] == [
        ("user.joined", "ann", "admin"), ("user.left", "ann", "admin"), ("user.joined", "eve", "user")
    ]  # fmt: skip
    assert all(notice["since"].isdigit() for notice in notices)


async def test_what_a_room_tells_who_enters(rig: Directories) -> None:
    one, two = await rig.nodes(2)
    await one.enter("lobby", "ann", role="admin")
    entered = await two.enter("lobby", "bob", name="never used")
    assert entered.members is not None
    assert [(member.user_id, member.role) for member in entered.members] == [("ann", "admin"), ("bob", "user")]
    assert entered.members == await one.directory.members("lobby")
    assert (entered.room.name, entered.room.user_count) == ("lobby", 2)


async def test_many_users_are_counted_and_not_listed_at_entering(rig: Directories) -> None:
    one, two = await rig.nodes(2)
    await asyncio.gather(*(one.enter("hall", f"user_{number}", max_users=None) for number in range(1000)))
    entered = await two.enter("hall", "ann")
    assert entered.members is None and entered.room.user_count == 1001
    assert len(await two.users("hall")) == 1001 and len(await two.reachable("hall")) == 1001


async def test_the_last_place_goes_to_one(rig: Directories) -> None:
    nodes = await rig.nodes(3)
    for round in range(20):
        room = f"lobby_{round}"
        await nodes[0].enter(room, "ann", max_users=2)
        asked = [node.enter(room, f"user_{node.id}_{number}") for node in nodes for number in range(4)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(result, RoomFull) for result in results) == 11, results
        assert len(await nodes[1].users(room)) == 2
    with pytest.raises(RoomFull, match="2"):
        await nodes[1].enter("lobby_0", "late")
    await nodes[2].enter("lobby_0", "ann")


async def test_guests_need_a_room_that_takes_them(rig: Directories) -> None:
    one, two = await rig.nodes(2)
    with pytest.raises(GuestsNotAllowed):
        await one.enter("closed", "g", role="guest")
    assert await one.directory.find("closed") is None, "a refused guest leaves no room behind"
    await one.create("open", allow_guests=True)
    await two.enter("open", "g", role="guest", allow_guests=False)
    await one.create("closed")
    with pytest.raises(GuestsNotAllowed):
        await two.enter("closed", "g", role="guest", allow_guests=True)


async def test_a_join_that_is_given_up_leaves_nobody_behind(rig: Directories) -> None:
    one, two = await rig.nodes(2)
    await one.create("lobby")
    for turns in range(12):
        joining = asyncio.ensure_future(one.enter("lobby", "ann"))
        for _ in range(turns):
            await asyncio.sleep(0)
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)
        await one.leave("lobby", "ann")
        assert await two.users("lobby") == [], turns
    joined, left = one.heard.all.count(("joined", "lobby", "ann")), one.heard.all.count(("left", "lobby", "ann"))
    assert joined == left > 0


async def test_who_is_there_or_was_until_lately(rig: Directories) -> None:
    one, two = await rig.nodes(2)
    claims = {"plan": "gold", "teams": [], "big": 9007199254740993}
    await one.directory.enter(draft("lobby"), PresentUser("ann", "admin", "t1", claims), create=True, max_rooms=None)
    await two.enter("lobby", "bob")
    assert await two.directory.has("lobby", "bob") and not await two.directory.has("lobby", "eve") and not await two.directory.has("hall", "bob")
    await one.leave("lobby", "ann")
    found = {user.id: user for user in await two.directory.reachable("lobby", 300.0)}
    assert found == {"ann": PresentUser("ann", "admin", "t1", claims), "bob": PresentUser("bob", "user")}
    gone = two.layout.of_room("lobby", "gone")
    await one.enter("lobby", "ann")
    assert await one.client.command("ZCARD", gone) == 0, "who is back is not gone"
    await one.leave("lobby", "ann")
    await two.client.command("ZADD", gone, 1, "ann")
    assert await two.reachable("lobby") == ["bob"]
    await two.leave("lobby", "bob")
    assert await two.reachable("lobby") == ["bob"]
    assert await one.client.command("ZRANGE", gone, 0, -1) == [b"bob"], "who cannot be reached any more is forgotten"
    assert await one.client.command("HKEYS", two.layout.of_room("lobby", "who")) == [b"bob"]


async def test_what_a_user_is_can_change(rig: Directories) -> None:
    one, two = await rig.nodes(2)
    await one.enter("lobby", "ann", role="user")
    one.directory.renew("lobby", PresentUser("ann", "admin", None, {"a": 1}))
    one.directory.renew("lobby", PresentUser("nobody", "admin"))
    assert [user.role for user in await one.directory.reachable("lobby", 300.0)] == ["admin"]
    assert [(member.user_id, member.role) for member in await two.directory.members("lobby")] == [("ann", "admin")]
    await two.directory.enter(draft("lobby"), PresentUser("ann"), create=True, max_rooms=None)
    assert [user.role for user in await two.directory.reachable("lobby", 300.0)] == ["admin"], "who knows less changes nothing"


async def test_sockets_are_counted_over_all_nodes(rig: Directories) -> None:
    one, two = await rig.nodes(2)
    await one.enter("lobby", "ann")
    await two.enter("lobby", "ann")
    one.directory.count("lobby", 3)
    two.directory.count("lobby", 2)
    await asyncio.gather(one.directory.told("lobby"), two.directory.told("lobby"))
    found = await one.directory.find("lobby")
    assert found is not None and (found.user_count, found.connection_count) == (1, 5)
    two.directory.count("lobby", 0)
    await two.directory.told("lobby")
    assert (await one.directory.page("", 10, None))[0][0].connection_count == 3


async def test_a_node_that_ends_takes_back_what_it_told(rig: Directories) -> None:
    one, two = await rig.nodes(2)
    for user in ("ann", "bob"):
        await one.enter("lobby", user)
    one.directory.count("lobby", 2)
    await two.enter("lobby", "bob")
    await one.directory.stop()
    assert await two.users("lobby") == ["bob"] and one.heard.all[-1] == ("left", "lobby", "ann")
    assert not [key for key in await keys_of(two) if key.endswith(one.id)]
    found = await two.directory.find("lobby")
    assert found is not None and found.connection_count == 0


@pytest.mark.parametrize("user", ["half \ud800", "x" * 2000])
async def test_users_that_cannot_be_kept(rig: Directories, user: str) -> None:
    one, two = await rig.nodes(2)
    with pytest.raises(ValidationError, match="user id"):
        await one.enter("lobby", user)
    with pytest.raises(ValidationError, match="name"):
        await one.create("lobby", name=user)
    await one.directory.enter(draft("lobby"), PresentUser("ann", "half \ud800", "\ud800", {"x": "\ud800"}), create=True, max_rooms=None)
    one.directory.renew("lobby", PresentUser("ann", "user \ud800", None, {"x": object()}))
    await one.directory.told("lobby")
    assert [(found.id, found.role) for found in await two.directory.reachable("lobby", 1.0)] == [("ann", "user ?")]


# — nodes that die, and a directory that forgets —


async def test_what_a_dead_node_told_is_taken_back(rig: Directories) -> None:
    one, two, three = await rig.nodes(3)
    for number in range(250):
        await one.enter(f"room_{number % 5}", f"user_{number}")
    await two.enter("room_0", "user_0")
    one.directory.count("room_0", 50)
    await one.directory.told("room_0")
    await asyncio.gather(two.directory.clean_up(one.id), three.directory.clean_up(one.id))
    left = [what for node in (two, three) for what in node.heard.all if what[0] == "left"]
    assert len(left) == len(set(left)) == 249 and ("left", "room_0", "user_0") not in left
    for number in range(5):
        assert await two.users(f"room_{number}") == (["user_0"] if number == 0 else [])
    found = await two.directory.find("room_0")
    assert found is not None and found.connection_count == 0


async def test_a_dead_node_is_marked_and_taken_back_in_one_step(rig: Directories, monkeypatch: pytest.MonkeyPatch) -> None:
    """bob's dead node was marked as cleaned up after, and then cleaned up after: a fail-over that lost the second alone kept him there for ever."""
    one, dead = await rig.nodes(2)
    await dead.enter("lobby", "bob")
    steps: list[int] = []
    take_back = one.directory._housekeeping._take_back

    async def record(shard: int, node: str, acts: list[Act]) -> None:
        steps.append(len(acts))
        await take_back(shard, node, acts)

    monkeypatch.setattr(one.directory._housekeeping, "_take_back", record)
    await one.directory.clean_up(dead.id)
    assert sorted(steps) == [0] * (one.layout.shards - 1) + [2]


async def test_a_node_that_was_taken_for_dead_tells_again_and_everybody_hears_of_it(rig: Directories) -> None:
    one, two = await rig.nodes(2)
    await one.enter("lobby", "ann")
    await two.directory.clean_up(one.id)
    assert await two.users("lobby") == [] and two.heard.all == [("left", "lobby", "ann")]
    one.directory.tell_again()
    await one.heard.until("joined", "lobby", "ann")
    await until_true(lambda: two.directory.has("lobby", "ann"))
    await until_true(lambda: _joined_twice(one))


async def _joined_twice(node: Node) -> bool:
    return node.heard.all.count(("joined", "lobby", "ann")) == 2


async def test_what_is_left_of_a_node_that_nobody_knows_is_found(rig: Directories, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aibos_realtime.backends.redis.housekeeping.STALE", 0.2)
    known = Known()
    one, two = await rig.nodes(2, nodes=known, tend=0.05)
    known.ids = {one.id, two.id}
    await one.enter("lobby", "ann")
    await two.enter("lobby", "bob")
    dead = await rig.node(nodes=known, tend=1000.0)
    known.ids.add(dead.id)
    await dead.enter("lobby", "eve")
    known.ids.remove(dead.id)
    await until_true(lambda: _has_not(one, "eve"))
    assert await one.users("lobby") == ["ann", "bob"]
    assert sum(node.heard.all.count(("left", "lobby", "eve")) for node in (one, two)) == 1


async def test_what_a_node_told_a_redis_that_was_emptied_does_not_outlive_it(rig: Directories, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis was emptied, eve joined, and her node died before it had told everything else again: nobody knew that it had ever told anything, and
    eve was in the room for ever.
    """
    monkeypatch.setattr("aibos_realtime.backends.redis.housekeeping.STALE", 0.2)
    known = Known()
    one = await rig.node(nodes=known, tend=0.05)
    dead = await rig.node(nodes=known, tend=1000.0)
    known.ids = {one.id, dead.id}
    await one.enter("lobby", "ann")
    await dead.enter("lobby", "bob")
    for _, keys in groupby(await keys_of(one), lambda key: key.partition("}")[0]):
        await one.client.command("DEL", *keys)
    for teller in dead.directory._tellers:
        monkeypatch.setattr(teller, "_tell_all", lambda volume: None)  # it dies before that
    await dead.enter("lobby", "eve")
    assert await one.directory.has("lobby", "eve")
    known.ids.remove(dead.id)
    await until_true(lambda: _has_not(one, "eve"))


async def _has_not(node: Node, user: str) -> bool:
    return not await node.directory.has("lobby", user)


async def test_the_register_says_whom_to_clean_up_after(rig: Directories) -> None:
    one, dead = await rig.nodes(2)
    await one.enter("lobby", "ann")
    await dead.enter("lobby", "bob")
    registered = [RedisNodes(node.client, node.layout, id=node.id, name=node.id, interval=0.05, life=0.3) for node in (one, dead)]
    registered[0].on_gone(one.directory.clean_up)
    for nodes in registered:
        await nodes.start()
    await registered[1].stop()  # and what it told stays behind
    await one.heard.until("left", "lobby", "bob")
    assert await one.users("lobby") == ["ann"]
    await registered[0].stop()


async def test_a_redis_that_comes_back_empty_is_told_again_and_nobody_hears_of_it(rig: Directories) -> None:
    one, two = await rig.nodes(2, tend=0.05)
    made = await one.create("lobby", name="The lobby", max_users=2, allow_guests=True)
    await one.enter("lobby", "ann", role="admin")
    before = (await two.enter("lobby", "bob")).room
    one.directory.count("lobby", 1)
    await one.directory.told("lobby")
    since = [member.since for member in await one.directory.members("lobby")]
    async with rig.hearing(one, "lobby") as heard:
        for _, keys in groupby(await keys_of(one), lambda key: key.partition("}")[0]):
            await one.client.command("DEL", *keys)
        await until_true(lambda: _has_both(one))
        found = await two.directory.find("lobby")
        assert found is not None and found.birth == made.birth == before.birth
        assert (found.name, found.allow_guests, found.max_users) == ("The lobby", True, 2)
        assert [member.since for member in await one.directory.members("lobby")] == since
        assert [user.role for user in await two.directory.reachable("lobby", 1.0) if user.id == "ann"] == ["admin"]
        with pytest.raises(RoomFull):
            await two.enter("lobby", "eve")
        assert heard.empty()
    assert one.heard.all == [("created", "lobby"), ("joined", "lobby", "ann")] and two.heard.all == [("joined", "lobby", "bob")]


async def test_who_is_told_anew_hears_in_which_life_of_the_room_he_is(rig: Directories) -> None:
    one, two = await rig.nodes(2)
    await one.enter("lobby", "ann")
    for _, keys in groupby(await keys_of(one), lambda key: key.partition("}")[0]):
        await one.client.command("DEL", *keys)
    anew = (await two.enter("lobby", "bob")).room
    one.directory.tell_again()
    for _ in ("it is found out", "it is told"):
        await one.directory.told("lobby")
    assert one.heard.births == {("lobby", "ann"): anew.birth} and await two.users("lobby") == ["ann", "bob"]


async def _has_both(node: Node) -> bool:
    found = await node.directory.find("lobby")
    return await node.users("lobby") == ["ann", "bob"] and found is not None and found.connection_count == 1


async def test_a_redis_that_lost_the_last_moments_is_put_right(rig: Directories) -> None:
    """As after a failover: what was told last never reached the replica."""
    one, two = await rig.nodes(2, tend=0.05)
    await one.enter("lobby", "stays")
    await one.enter("lobby", "left")
    keys = await keys_of(one)
    before = {key: await one.client.command("DUMP", key) for key in keys}
    await one.leave("lobby", "left")
    await one.enter("lobby", "came")
    told = list(one.heard.all)
    for key in keys:
        await one.client.command("RESTORE", key, 0, before[key], "REPLACE")
    await until_true(lambda: _has_users(two, ["stays", "came"]))
    assert one.heard.all == told


async def _has_users(node: Node, users: list[str]) -> bool:
    return await node.users("lobby") == users


# — what is none of ours —


async def test_things_of_another_kind_are_passed_over_and_other_rooms_do_not_notice(rig: Directories) -> None:
    one, two = await rig.nodes(2, tend=0.05, room_timeout=1000.0)
    await one.enter("lobby", "ann")
    await one.enter("other", "bob")
    for part in ("meta", "users", "members", "who", "gone", "sockets"):
        key = one.layout.of_room("lobby", part)
        await one.client.command("SET", key, "x" * 10_000_000)
        assert await two.users("other") == ["bob"] and len(await two.directory.page("", 10, None)) == 2
        assert isinstance(await two.reachable("lobby"), list)
        await two.enter("lobby", "eve")
        await until_true(lambda: _has_users(two, ["ann", "eve"]))
        await two.leave("lobby", "eve")
    assert one.metrics.foreign_records + two.metrics.foreign_records >= 6
    for name in ("rooms", "empty", "told", f"present:{one.id}"):
        key = one.layout.of_shard(one.layout.shard("lobby"), name)
        await one.client.command("SET", key, "x")
        await two.enter("lobby", "eve")
        await two.leave("lobby", "eve")
        await until_true(lambda: _is_listed(two, "lobby"))
    await until_true(lambda: _has_users(two, ["ann"]))
    assert await two.users("other") == ["bob"]


async def _is_listed(node: Node, room: str) -> bool:
    return room in [found.id for found in (await node.directory.page("", 10, None))[0]]


async def test_entries_that_no_node_wrote_are_passed_over(rig: Directories) -> None:
    one, two = await rig.nodes(2, room_timeout=1000.0)
    await one.enter("lobby", "ann")
    layout, command = one.layout, one.client.command
    shard = layout.shard("lobby")
    await command("HSET", layout.of_room("lobby", "users"), "huge", "x" * 10_000_000, b"\xff\xfe", "1 1 user", "bad", "many since user", "", "1 1 x")
    await command("HSET", layout.of_room("lobby", "who"), "ann", "x" * 10_000_000)
    await command("ZADD", layout.of_room("lobby", "gone"), 1e15, b"\xff", 1e15, "ghost", "inf", "for_ever")
    await command("HSET", layout.of_room("lobby", "who"), "ghost", "{]", "for_ever", '{"role": 5}')
    await command("HSET", layout.of_room("lobby", "sockets"), "x", "-5", "y", "9" * 50, "z", "2")
    await command("ZADD", layout.of_shard(shard, "rooms"), 0, b"\xff\xff", 0, "x" * 10_000, 0, "a b", 0, "never_made")
    await command("ZADD", layout.of_shard(shard, "empty"), 0, "no room", 0, "lobby", 0, "never_made")
    await command("HSET", layout.of_shard(shard, "told"), "no node", "5", "x" * 5000, "1", "other-node", "x" * 5000)
    await command("SADD", layout.of_shard(shard, "present:dead"), b"\xff", "no room\0ann", "lobby", "lobby\0", "all\0ann", "lobby\0nobody")
    assert await two.users("lobby") == ["ann"]
    assert await two.reachable("lobby") == ["ann"]
    assert [room.id for room in (await two.directory.page("", 10, None))[0]] == ["lobby"]
    found = await two.directory.find("lobby")
    assert found is not None and found.connection_count == 2
    entered = await two.enter("lobby", "bob")
    assert entered.members is not None and [member.user_id for member in entered.members] == ["ann", "bob"]
    await two.directory.clean_up("dead")
    empty = layout.of_shard(shard, "empty")
    assert await command("ZSCORE", empty, "lobby") is None, "it is not empty"
    await command("ZADD", empty, 0, "lobby")
    await two.directory.look_after()
    assert await two.users("lobby") == ["ann", "bob"], "nobody is taken out of his room by this"
    assert await command("EXISTS", layout.of_shard(shard, "present:dead")) == 0
    assert await command("HEXISTS", layout.of_shard(shard, "told"), "no node") == 0
    assert two.metrics.foreign_records > 0


async def test_a_room_whose_description_is_none_is_made_anew(rig: Directories) -> None:
    one, two = await rig.nodes(2)
    await one.enter("lobby", "ann")
    for wrong in (("max_users", "many"), ("birth", "x" * 100), ("name", "x" * 10_000), ("created", "")):
        await one.client.command("HSET", one.layout.of_room("lobby", "meta"), *wrong)
        await two.enter("lobby", "bob")
        found = await one.directory.find("lobby")
        assert found is not None and (found.name, found.max_users) == ("lobby", 100)
    await one.client.command("HSET", one.layout.of_room("lobby", "meta"), "name", b"\xff")
    found = await one.directory.find("lobby")
    assert found is not None and found.name == "\ufffd"
    await two.enter("lobby", "eve")
    await one.client.command("HSET", one.layout.of_room("lobby", "meta"), "created", "1" + "0" * 311)
    await two.enter("lobby", "dan")
