"""Who is in which room, and who sends."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from aibos_realtime.load.layout import Layout


@given(clients=st.integers(1, 60), rooms=st.integers(1, 20), data=st.data())
def test_every_room_has_its_members_and_clients_are_in_as_many_rooms_as_others(clients: int, rooms: int, data: st.DataObject) -> None:
    members = data.draw(st.integers(1, clients))
    senders = data.draw(st.integers(0, clients))
    layout = Layout(clients, rooms, members, senders)
    sizes = Counter(room for joined in layout.memberships for room in joined)
    assert sizes == {room: members for room in range(rooms)}
    assert all(len(set(joined)) == len(joined) for joined in layout.memberships), "nobody joins twice"
    counts = [len(joined) for joined in layout.memberships]
    assert max(counts) - min(counts) <= 1 and layout.rooms_of_one == max(counts)
    assert sorted(layout.sender_numbers.values()) == list(range(senders))


@given(rooms=st.integers(1, 10), members=st.integers(1, 10), data=st.data())
def test_senders_are_members_of_the_rooms_that_they_send_to(rooms: int, members: int, data: st.DataObject) -> None:
    layout = Layout(rooms * members, rooms, members, data.draw(st.integers(0, rooms * members)))
    assert all(number % rooms in layout.memberships[client] for client, number in layout.sender_numbers.items())


def test_without_rooms_all_may_send() -> None:
    layout = Layout(3, 0, 0, 3)
    assert layout.memberships == [[], [], []] and layout.sender_numbers == {0: 0, 1: 1, 2: 2}
