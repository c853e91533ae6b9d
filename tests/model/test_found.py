"""What the model has found in whole servers, each told as plainly as it can be."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator

import pytest

from tests.model.cluster import ROOM_TIMEOUT
from tests.model.world import World

ROOM = "tenant_a:1"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Three servers; ann is on the first, bob on the second."""
    world = World(1, nodes=3, has_store=False)
    async with world.cluster:
        await world.connect(0, "ann", "user", 3600.0, "json")
        await world.connect(1, "bob", "user", 3600.0, "json")
        yield world


async def test_a_room_whose_end_redis_forgot_can_be_joined(world: World) -> None:
    """bob asked to join and was never answered, and his node asked Redis without a pause: it knew that this life of the room had ended, and Redis,
    after a fail-over, that it had not.
    """
    await world.join(0, ROOM, "plain")
    shelf = world.cluster.meeting.shelf
    before = copy.deepcopy((shelf.rooms, shelf.told, shelf.present))
    await world.cluster.nodes[2].server.rooms.destroy_room(ROOM)
    await world.settle()
    shelf.rooms, shelf.told, shelf.present = before
    await world.join(1, ROOM, "plain")
    assert set(world.views[1].rooms) == {ROOM}, "he was not answered"
    await world.publish(0, ROOM, 1)
    assert world.views[1].rooms[ROOM] is not None


async def test_the_sockets_of_a_room_are_counted_anew_after_a_fail_over(world: World) -> None:
    """Everybody had left a room of which Redis then lost the last writes, and it was told for ever to have one socket, and no user."""
    await world.join(0, ROOM, "plain")
    await world.join(1, ROOM, "plain")
    shelf = world.cluster.meeting.shelf
    before = copy.deepcopy((shelf.rooms, shelf.told, shelf.present))
    await world.request(0, "leave-room", ROOM)
    shelf.rooms, shelf.told, shelf.present = before
    await world.advance(ROOM_TIMEOUT / 2)
    info = await world.ask(world.cluster.nodes[2].server.rooms.get_room_info(ROOM))
    assert (info.user_count, info.connection_count) == (1, 1)


async def test_what_comes_while_a_position_is_looked_for_is_not_lost(world: World) -> None:
    """bob came back with a position that could not be recovered, was told so, and never got the event that was published while his node looked: it
    had waited for him, and was thrown away with what waits for those who missed nothing.
    """
    await world.join(1, ROOM, "plain")
    await world.join(0, ROOM, "plain")
    world.cluster.nodes[1].link.lose_connection()
    await world.publish(0, ROOM, 1)
    await world.join(1, ROOM, "huge")
    await world.advance(2.0)
    assert world.views[1].rooms[ROOM] == world.views[0].rooms[ROOM]
    assert world.views[1].answers[-1][1]["data"]["recovered"] is False


async def test_nobody_is_authenticated_by_halves(world: World) -> None:
    """cat's token was good, but where her streams stood could not be asked: she was told of an error, and got events of streams of which she had
    never been told, as a user whom she did not know to be.
    """
    node = world.cluster.nodes[2]
    node.link.is_cut_off = True
    await world.connect(2, "cat", "user", 3600.0, "late")
    await world.advance(5.0)
    assert node.server.metrics.close_codes == {4015: 1}
    assert node.server.pool.count_users() == len(node.server.pool) == 0


async def test_who_leaves_while_he_cannot_come_back_is_gone(world: World) -> None:
    """bob, a member, joined once more while Redis was away, lost his connection before that failed, and stayed in the room for as long as the node
    lived: what he asked for had not changed anything, and so nobody took him out.
    """
    await world.join(0, ROOM, "plain")
    await world.join(1, ROOM, "plain")
    world.cluster.log.is_hung = True
    await world.join(1, ROOM, "true")
    await world.part(1, is_rude=True)
    await world.advance(4.0)
    world.cluster.heal()
    await world.advance(10.0)
    users = await world.ask(world.cluster.nodes[0].server.rooms.get_room_users(ROOM))
    assert [member.user_id for member in users] == ["ann"]


async def test_a_member_whose_second_join_fails_knows_that_he_is_out(world: World) -> None:
    """bob was a member, joined once more, and was told that Redis did not answer: from then on he got no event, and believed to be in the room."""
    await world.join(1, ROOM, "plain")
    world.rush = 1
    await world.join(1, ROOM, "rewind")
    world.cluster.nodes[1].link.replies_lost = 3
    await world.advance(3.0)
    world.cluster.heal()
    await world.advance(3.0)
    view = world.views[1]
    assert set(view.rooms) == set(view.socket.rooms)


async def test_a_room_that_redis_forgot_and_that_is_destroyed_is_left_by_everybody(world: World) -> None:
    """Redis was emptied, and ann's joining once more made the room anew, as another life of it, in which both were. When that was destroyed, they
    stayed members: their nodes took them for members of the first life. In Redis they were not, and no node knew of them any more.
    """
    await world.join(0, ROOM, "plain")
    await world.join(1, ROOM, "plain")
    world.forget_all()
    await world.join(0, ROOM, "plain")
    await world.advance(10.0)
    await world.ask(world.cluster.nodes[2].server.rooms.destroy_room(ROOM))
    await world.settle()
    assert [view.socket.rooms for view in world.views[:2]] == [frozenset(), frozenset()]
