from __future__ import annotations

from aibos_realtime.protocol.client_readings import JoinedRoom
from aibos_realtime.protocol.client_rooms import RECENT_IDS, ClientRoom
from aibos_realtime.protocol.messages import Position, ServerMessage


def event(offset: int | None, id: str | None = None) -> ServerMessage:
    return ServerMessage("tick", None, room="r", offset=offset, id=id)


def joined(offset: int = 10) -> ClientRoom:
    room = ClientRoom("r", "asked")
    room.settle(JoinedRoom("r", "e1", offset))
    return room


def test_a_first_join_asks_for_nothing_and_takes_the_place_of_the_answer() -> None:
    room = ClientRoom("r", "asked", presence=True)
    assert room.join_data() == {"roomId": "r", "presence": True}
    assert room.settle(JoinedRoom("r", "e1", 10)) is False
    assert (room.position, room.handled, room.phase) == (Position("e1", 10), Position("e1", 10), "live")


def test_each_event_once_by_its_place() -> None:
    room = joined()
    assert [room.admit(event(n)) is not None for n in (10, 11, 11, 9, 13, 12)] == [False, True, False, False, True, False]
    assert room.position == Position("e1", 13)


def test_a_jump_of_offsets_is_no_gap() -> None:
    room = joined()
    admitted = room.admit(event(500))
    assert admitted is not None and admitted.position == Position("e1", 500)


def test_each_event_once_by_its_id_too_and_the_place_moves_on() -> None:
    room = joined()
    assert room.admit(event(11, "a")) is not None
    assert room.admit(event(12, "a")) is None
    assert room.position == Position("e1", 12)


def test_ids_are_remembered_over_a_new_epoch_and_within_bounds() -> None:
    room = joined(0)
    for n in range(1, RECENT_IDS + 2):
        room.admit(event(n, f"id-{n}"))
    room.place(Position("e2", 0))
    assert room.admit(event(1, f"id-{RECENT_IDS}")) is None
    assert room.admit(event(2, "id-1")) is not None


def test_a_volatile_event_has_no_place() -> None:
    room = joined()
    admitted = room.admit(event(None))
    assert admitted is not None and admitted.position is None and admitted.epoch is None
    assert room.position == Position("e1", 10)


def test_a_rejoin_asks_to_recover_from_the_last_place() -> None:
    room = joined()
    room.admit(event(12))
    assert room.join_data() == {"roomId": "r", "recover": {"epoch": "e1", "offset": 12}}
    assert room.settle(JoinedRoom("r", "e1", 20, recovered=True)) is False
    assert room.position == Position("e1", 12)
    assert room.admit(event(13)) is not None


def test_without_recovery_the_place_is_the_answers() -> None:
    room = joined()
    assert room.settle(JoinedRoom("r", "e1", 20, recovered=False)) is True
    assert room.position == Position("e1", 20)


def test_a_recovery_into_another_epoch_is_none() -> None:
    room = joined()
    assert room.settle(JoinedRoom("r", "e2", 3, recovered=True)) is True
    assert room.position == Position("e2", 3)


def test_nothing_missed_is_a_recovery_whatever_the_server_calls_it() -> None:
    assert joined().settle(JoinedRoom("r", "e1", 10, recovered=None)) is False


def test_a_position_kept_by_the_application() -> None:
    room = ClientRoom("r", "asked", recover=Position("e1", 4), rewind=10)
    assert room.join_data() == {"roomId": "r", "recover": {"epoch": "e1", "offset": 4}}
    assert room.handled == Position("e1", 4)


def test_rewound_events_lie_before_the_place_of_the_answer() -> None:
    room = ClientRoom("r", "asked", rewind=2)
    assert room.join_data() == {"roomId": "r", "rewind": 2}
    room.settle(JoinedRoom("r", "e1", 10))
    assert room.join_data() == {"roomId": "r", "rewind": 2}, "nothing came yet: the same again"
    assert [room.admit(event(n)) is not None for n in (9, 10, 11)] == [True, True, True]
    assert room.join_data() == {"roomId": "r", "recover": {"epoch": "e1", "offset": 11}}


def test_plain_data_leaves_the_place_alone() -> None:
    assert joined().plain_data() == {"roomId": "r"}
