"""Rooms over many connections, stepped by hand."""

from __future__ import annotations

from typing import Any

import pytest

from aibos_realtime import errors
from aibos_realtime.protocol.client_notices import Answered, Arrived, Departed, Faulted, Received, Refused, Resynced
from aibos_realtime.protocol.client_readings import JoinedRoom
from aibos_realtime.protocol.messages import Position

from .conversation import DATA, HERE, Talk, place

LOST = errors.ConnectionClosed()


def talk(streams: dict[str, Any] | None = None) -> Talk:
    one = Talk()
    one.connect(streams)
    return one


def lost_and_back(one: Talk, streams: dict[str, Any] | None = None) -> None:
    one.session.lose(LOST)
    one.connect(streams)


def test_joining() -> None:
    one = talk()
    ref = one.session.join("r", 0.0, presence=True)
    assert one.frame() == {"event": "join-room", "data": {"roomId": "r", "presence": True}, "ref": ref}
    one.joined(ref, 5)
    assert one.answer(ref) == JoinedRoom("r", "e1", 5)
    one.event(5)
    one.event(6)
    assert one.offsets() == [6]
    assert one.session.joined == ["r"]


@pytest.mark.parametrize("code", ["room_full", "room_limit", "guests_not_allowed", "unavailable"])
def test_a_first_join_that_is_refused_leaves_nothing_behind(code: str) -> None:
    one = talk()
    ref = one.session.join("r", 0.0)
    one.written()
    one.refuse(ref, code, retryable=code == "unavailable")
    assert one.notice(Refused).error.code == code
    lost_and_back(one)
    assert one.written() == []


def test_an_answer_that_is_not_of_the_protocol_is_a_refusal() -> None:
    one = talk()
    ref = one.session.join("r", 0.0)
    one.written()
    one.get("joined-room", {"roomId": "r"}, ref=ref)
    assert isinstance(one.refusal(ref), errors.ProtocolError)
    assert one.session.rooms == {}


def test_a_join_made_offline_waits_for_the_connection() -> None:
    one = Talk()
    ref = one.session.join("r", 0.0, rewind=3)
    one.connect()
    assert one.frame() == {"event": "join-room", "data": {"roomId": "r", "rewind": 3}, "ref": ref}


def test_a_join_that_the_connection_did_not_survive_is_made_again() -> None:
    one = talk()
    ref = one.session.join("r", 0.0)
    one.written()
    lost_and_back(one)
    assert one.frame()["ref"] == ref
    one.joined(ref, 4)
    assert one.answer(ref).offset == 4


def test_joining_twice_asks_for_the_answer_alone() -> None:
    one = talk()
    one.join()
    ref = one.session.join("r", 0.0)
    assert one.frame()["data"] == {"roomId": "r"}
    one.event(1)
    assert one.offsets() == [1], "a room that is live stays live"
    one.joined(ref, 7)
    one.answer(ref)
    one.event(2)
    assert one.offsets() == [2]


def test_after_a_loss_a_room_is_recovered_without_gap_and_without_double() -> None:
    one = talk()
    one.join(offset=10)
    one.event(11)
    assert one.offsets() == [11]
    lost_and_back(one)
    rejoin = one.frame()
    assert rejoin["data"] == {"roomId": "r", "recover": place("e1", 11)}
    one.event(14)
    assert one.notices() == []
    one.joined(rejoin["ref"], 14, recovered=True)
    assert isinstance(one.notice(Answered).value, JoinedRoom)
    for offset in (11, 12, 13, 14, 14):
        one.event(offset)
    assert one.offsets() == [12, 13, 14]


def test_a_room_that_cannot_be_recovered_is_resynced_before_any_later_event() -> None:
    one = talk()
    one.join(offset=10)
    lost_and_back(one)
    one.joined(one.frame()["ref"], 3, epoch="e2", recovered=False)
    one.event(4)
    resynced, answered, arrived = one.notices()
    assert resynced == Resynced("r", Position("e2", 3), Position("e1", 10))
    assert isinstance(answered, Answered)
    assert isinstance(arrived, Arrived) and arrived.event.position == Position("e2", 4)


def test_a_resync_of_the_server() -> None:
    one = talk()
    one.join(offset=10)
    one.get("resync", {"roomId": "r", "epoch": "e2", "offset": 2})
    one.event(2)
    one.event(3)
    resynced, arrived = one.notices()
    assert resynced == Resynced("r", Position("e2", 2), Position("e1", 10))
    assert isinstance(arrived, Arrived) and arrived.event.position == Position("e2", 3)


def test_a_resync_that_makes_no_sense_is_a_fault() -> None:
    one = talk()
    one.get("resync", {"roomId": 5})
    assert isinstance(one.notice(Faulted).error, errors.ProtocolError)


def test_leaving() -> None:
    one = talk()
    one.join()
    ref = one.session.leave("r", 0.0)
    assert one.frame() == {"event": "leave-room", "data": {"roomId": "r"}, "ref": ref}
    one.event(1)
    assert one.notices() == [], "nothing is delivered of a room that is being left"
    one.get("left-room", {"roomId": "r"}, ref=ref)
    assert one.notices() == [Departed("r"), Answered(ref, None)]
    lost_and_back(one)
    assert one.written() == []


def test_leaving_a_room_one_is_not_in() -> None:
    one = talk()
    ref = one.session.leave("r", 0.0)
    one.written()
    one.refuse(ref, "not_in_room")
    departed, refused = one.notices()
    assert departed == Departed("r")
    assert isinstance(refused, Refused) and isinstance(refused.error, errors.NotInRoom)


def test_leaving_offline_needs_no_server() -> None:
    one = talk()
    one.join()
    one.session.lose(LOST)
    ref = one.session.leave("r", 0.0)
    assert one.notices() == [Departed("r"), Answered(ref, None)]
    ref = one.session.leave("r", 0.0)
    assert isinstance(one.refusal(ref), errors.NotInRoom)
    one.connect()
    assert one.written() == []


def test_leaving_offline_ends_a_join_that_waits() -> None:
    one = Talk()
    join, leave = one.session.join("r", 0.0), one.session.leave("r", 0.0)
    refused, departed, answered = one.notices()
    assert isinstance(refused, Refused) and refused.ref == join
    assert (departed, answered) == (Departed("r"), Answered(leave, None))


def test_the_end_of_the_connection_is_a_leave() -> None:
    one = talk()
    one.join()
    ref = one.session.leave("r", 0.0)
    one.written()
    one.session.lose(LOST)
    assert one.notices() == [Departed("r"), Answered(ref, None)]


def test_joining_again_while_leaving() -> None:
    one = talk()
    one.join(offset=5)
    leave, join = one.session.leave("r", 0.0), one.session.join("r", 0.0)
    assert [frame["event"] for frame in one.written()] == ["leave-room", "join-room"]
    one.get("left-room", {"roomId": "r"}, ref=leave)
    assert one.notices() == [Answered(leave, None)]
    one.joined(join, 8)
    one.notices()
    one.event(9)
    assert one.offsets() == [9]


def test_a_room_closed_by_the_server() -> None:
    one = talk()
    one.join()
    one.get("room-closed", {"roomId": "r", "reason": "kicked"})
    assert one.notice(Departed) == Departed("r", "kicked")
    lost_and_back(one)
    assert one.written() == []


def test_a_first_join_that_nobody_waits_for_is_taken_back() -> None:
    one = talk()
    ref = one.session.join("r", 0.0)
    one.written()
    one.session.forget(ref, 0.0)
    leave = one.frame()
    assert leave["event"] == "leave-room"
    one.joined(ref, 5)
    one.event(6)
    one.get("left-room", {"roomId": "r"}, ref=leave["ref"])
    assert [notice for notice in one.notices() if isinstance(notice, Arrived)] == []
    assert one.session.rooms == {}


def test_a_first_join_that_was_not_sent_is_just_forgotten() -> None:
    one = Talk()
    one.session.forget(one.session.join("r", 0.0), 0.0)
    one.connect()
    assert one.written() == []


def test_one_of_two_joins_may_be_forgotten() -> None:
    one = talk()
    first, second = one.session.join("r", 0.0), one.session.join("r", 0.0)
    one.written()
    one.session.forget(first, 0.0)
    assert one.written() == []
    one.joined(second, 5)
    one.answer(second)
    assert one.session.joined == ["r"]


def test_the_join_of_a_room_that_is_joined_goes_on_when_nobody_waits_for_it() -> None:
    """It may be what brings the room up to date after a loss. Forgotten, it left the room joining, and every message waiting, until the next loss."""
    one = talk()
    ref = one.session.join("r", 0.0)
    one.written()
    one.joined(ref, 5)
    one.notices()
    one.session.lose(LOST)
    again = one.session.join("r", 0.0)
    one.connect()
    one.session.publish("tick", DATA, "r", "a", 0.0)
    assert one.frame()["ref"] == again
    one.session.forget(again, 0.0)
    assert one.written() == []
    one.joined(again, 7, recovered=True)
    one.answer(again)
    one.event(6)
    assert one.frame()["id"] == "a", "nothing waits any more"
    assert one.offsets() == [6]


def test_a_first_join_without_an_answer_times_out_and_is_taken_back() -> None:
    one = talk()
    ref = one.session.join("r", 0.0)
    one.written()
    one.session.tick(10.0)
    assert isinstance(one.refusal(ref), errors.RequestTimeout)
    assert one.frame()["event"] == "leave-room"


@pytest.mark.parametrize(("code", "wait"), [("rate_limited", 7.0), ("unavailable", 1.0)])
def test_a_rejoin_that_is_refused_for_now_is_tried_again(code: str, wait: float) -> None:
    one = talk()
    one.join(offset=5)
    lost_and_back(one)
    one.refuse(one.frame()["ref"], code, retryable=True, retryAfter=7)
    one.notices()
    assert one.session.next_deadline == wait
    one.session.tick(wait - 0.1)
    assert one.written() == []
    one.now = wait
    one.session.tick(wait)
    rejoin = one.frame()
    assert rejoin["data"]["recover"] == place("e1", 5)
    one.joined(rejoin["ref"], 6, recovered=True)
    one.notices()
    one.event(6)
    assert one.offsets() == [6]


def test_a_rejoin_without_an_answer_is_tried_again() -> None:
    one = talk()
    one.join()
    lost_and_back(one)
    one.written()
    one.session.tick(10.0)
    one.now = 11.0
    one.session.tick(11.0)
    assert one.frame()["event"] == "join-room"


def test_a_rejoin_that_is_refused_for_good_closes_the_room() -> None:
    one = talk()
    one.join()
    lost_and_back(one)
    one.refuse(one.frame()["ref"], "room_not_found")
    _, departed, fault = one.notices()
    assert departed == Departed("r", "room_not_found")
    assert isinstance(fault, Faulted) and isinstance(fault.error, errors.RoomNotFound)
    lost_and_back(one)
    assert one.written() == []


def test_messages_wait_for_every_rejoin_also_for_the_refused() -> None:
    one = talk()
    one.join("a")
    one.join("b")
    one.session.lose(LOST)
    one.session.publish("tick", DATA, "a", "i", 0.0)
    one.connect()
    first, second = one.written()
    one.joined(first["ref"], room="a", recovered=True)
    assert one.written() == []
    one.refuse(second["ref"], "unavailable", retryable=True)
    assert one.frame()["event"] == "tick"


# Own streams, and rooms that the server chose.


def test_events_of_own_streams_come_without_a_join() -> None:
    one = talk({"user:u": place("e1", 3), "all": place("e9", 0)})
    assert one.written() == []
    one.event(4, "user:u")
    one.event(3, "user:u")
    one.event(1, "all")
    assert [(event.room, event.position) for event in one.events()] == [("user:u", Position("e1", 4)), ("all", Position("e9", 1))]
    assert one.session.joined == []


def test_an_own_stream_that_moved_on_is_recovered() -> None:
    one = talk({"all": place("e1", 3)})
    one.event(4, "all")
    assert one.offsets() == [4]
    lost_and_back(one, {"all": place("e1", 9)})
    rejoin = one.frame()
    assert rejoin["data"] == {"roomId": "all", "recover": place("e1", 4)}
    one.event(10, "all")
    assert one.notices() == []
    one.joined(rejoin["ref"], 10, room="all", recovered=True)
    one.notices()
    for n in range(5, 11):
        one.event(n, "all")
    assert one.offsets() == [5, 6, 7, 8, 9, 10]


def test_an_own_stream_that_stands_still_costs_no_recovery() -> None:
    one = talk({"all": place("e1", 3)})
    lost_and_back(one, {"all": place("e1", 3)})
    assert one.written() == []
    one.event(4, "all")
    assert one.offsets() == [4]


def test_an_own_stream_in_another_epoch_is_resynced() -> None:
    one = talk({"all": place("e1", 3)})
    lost_and_back(one, {"all": place("e2", 1)})
    one.joined(one.frame()["ref"], 1, room="all", epoch="e2", recovered=False)
    assert one.notices()[0] == Resynced("all", Position("e2", 1), Position("e1", 3))


def test_an_own_stream_whose_recovery_is_refused_goes_on_after_a_resync() -> None:
    one = talk({"all": place("e1", 3)})
    lost_and_back(one, {"all": place("e1", 9)})
    one.refuse(one.frame()["ref"], "permission_denied")
    assert one.notices()[1] == Resynced("all", Position("e1", 9), Position("e1", 3))
    one.event(9, "all")
    one.event(10, "all")
    assert one.offsets() == [10]


def test_the_stream_of_another_user_is_forgotten() -> None:
    one = talk({"user:u": place("e1", 3)})
    lost_and_back(one, {"user:v": place("e1", 0)})
    assert list(one.session.rooms) == ["user:v"]


def test_a_connection_without_a_user_joins_nothing_before_it_has_one() -> None:
    one = talk()
    one.join(offset=2)
    one.session.lose(LOST)
    one.connect(user=None)
    assert one.written() == []
    ref = one.session.authenticate("t", 0.0)
    one.written()
    one.get("authenticated", {"success": True, "user": {"id": "u"}}, ref=ref)
    assert one.frame()["data"]["recover"] == place("e1", 2)


def test_a_room_into_which_the_server_put_us() -> None:
    one = talk()
    one.get("joined-room", {"roomId": "g", "epoch": "e1", "offset": 5})
    assert isinstance(one.notice(Received), Received)
    one.event(5, "g")
    one.event(6, "g")
    assert one.offsets() == [6]
    lost_and_back(one)
    assert one.frame()["data"] == {"roomId": "g", "recover": place("e1", 6)}


def test_events_of_a_room_nobody_told_us_of_are_delivered_and_a_loss_is_not_silent() -> None:
    one = talk()
    one.event(5, "g")
    assert one.offsets() == [5]
    lost_and_back(one)
    assert one.notice(Resynced) == Resynced("g", None, None)
    one.event(1, "g", id="new")
    assert one.offsets() == [1]


def test_an_applications_own_joined_room_is_just_an_event() -> None:
    one = talk()
    one.get("joined-room", "hello")
    one.notice(Received)
    assert one.session.rooms == {}


def test_a_kick_while_the_rejoin_is_on_its_way_speaks_of_the_time_before() -> None:
    one = talk()
    one.join()
    lost_and_back(one)
    rejoin = one.frame()
    one.get("room-closed", {"roomId": "r", "reason": "kicked"})
    assert one.notices() == []
    one.joined(rejoin["ref"], recovered=True)
    one.notices()
    one.event(1)
    assert one.offsets() == [1]


def test_a_position_that_the_application_kept() -> None:
    one = talk()
    ref = one.session.join("r", 0.0, recover=HERE)
    assert one.frame()["data"] == {"roomId": "r", "recover": place("e1", 0)}
    one.joined(ref, 2, recovered=True)
    one.answer(ref)
    one.event(1)
    one.event(2)
    assert one.offsets() == [1, 2]


def test_a_join_that_waits_for_its_turn_outlives_the_end_of_the_room() -> None:
    """A server that did not know the client yet said that a room had ended whose join waited to be sent: it never was, and the call hung."""
    one = Talk()
    ref = one.session.join("r", 0.0)
    one.connect(user=None)
    one.get("room-closed", {"roomId": "r", "reason": "gone"})
    lost_and_back(one)
    assert [frame["ref"] for frame in one.written()] == [ref]
    one.joined(ref, 5)
    assert one.answer(ref) == JoinedRoom("r", "e1", 5)
