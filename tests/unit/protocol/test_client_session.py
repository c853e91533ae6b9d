"""Conversations of the client, stepped by hand."""

from __future__ import annotations

from typing import Any

import pytest

from aibos_realtime import errors
from aibos_realtime.protocol.client_notices import Answered, Arrived, Expiring, Faulted, Notice, Parting, Received, Refused
from aibos_realtime.protocol.client_session import OVERHEAD, ClientSession
from aibos_realtime.protocol.messages import Position

from .conversation import DATA, HERE, Talk, place

LOST = errors.ConnectionClosed()


def talk(**options: Any) -> Talk:
    one = Talk(**options)
    one.connect()
    return one


def test_the_greeting_is_kept() -> None:
    one = talk()
    assert (one.session.user, one.session.socket_id, one.session.is_connected, one.session.connection) == ({"id": "u"}, "s", True, 1)


@pytest.mark.parametrize("greeting", [None, [], "hello", {"protocol": 1, "streams": {"all": 5}}])
def test_a_greeting_that_is_none_may_be_a_passing_fault(greeting: Any) -> None:
    with pytest.raises(errors.ProtocolError) as caught:
        ClientSession().connect(greeting, 0.0)
    assert caught.value.retryable


def test_another_version_is_final() -> None:
    with pytest.raises(errors.ProtocolError) as caught:
        ClientSession().connect({"protocol": 2}, 0.0)
    assert not caught.value.retryable


def test_a_publish_and_its_acknowledgement() -> None:
    one = talk()
    ref = one.session.publish("tick", DATA, "r", "id_1", 0.0)
    assert one.frame() == {"event": "tick", "data": DATA, "room": "r", "id": "id_1", "ref": ref}
    one.get("ack", {"id": "id_1", "offset": 5, "epoch": "e1", "duplicate": False}, ref=ref)
    assert one.answer(ref)["offset"] == 5


def test_answers_find_their_requests_in_any_order() -> None:
    one = talk()
    first, second = one.session.request("a", DATA, "i", 0.0), one.session.request("b", DATA, "j", 0.0)
    one.written()
    one.get("ack", 2, ref=second)
    one.get("ack", 1, ref=first)
    assert one.notices() == [Answered(second, 2), Answered(first, 1)]


@pytest.mark.parametrize("ref", [99, "text", 1])
def test_late_second_and_strange_answers_are_dropped(ref: int | str) -> None:
    one = talk()
    mine = one.session.request("a", DATA, "i", 0.0)
    one.written()
    one.get("ack", 1, ref=mine)
    one.notices()
    one.get("ack", 2, ref=ref)
    one.get("error", {"code": "internal"}, ref=ref)
    assert one.notices() == []


def test_a_refusal_is_the_error_of_its_request() -> None:
    one = talk()
    ref = one.session.publish("tick", DATA, "r", "i", 0.0)
    one.written()
    one.refuse(ref, "idempotency_conflict")
    assert isinstance(one.refusal(ref), errors.IdempotencyConflict)


def test_permission_denied_answers_a_request_too() -> None:
    one = talk()
    ref = one.session.publish("tick", DATA, "r", "i", 0.0)
    one.written()
    one.get("permission_denied", {"code": "permission_denied", "resource": "r", "action": "write"}, ref=ref)
    error = one.refusal(ref)
    assert isinstance(error, errors.PermissionDenied) and error.action == "write"


def test_no_answer_in_time_means_unknown() -> None:
    one = talk(timeout=10.0)
    ref = one.session.publish("tick", DATA, "r", "i", 0.0)
    one.written()
    assert one.session.next_deadline == 10.0
    one.session.tick(10.0)
    assert isinstance(one.refusal(ref), errors.RequestTimeout)
    one.session.lose(LOST)
    one.connect()
    assert one.written() == []


def test_a_publish_is_repeated_under_its_id_until_it_is_acknowledged() -> None:
    one = talk()
    refs = [one.session.publish("tick", DATA, "r", f"id_{n}", 0.0) for n in range(3)]
    one.written()
    one.get("ack", None, ref=refs[0])
    one.session.lose(LOST)
    one.notices()
    one.connect()
    assert [frame["id"] for frame in one.written()] == ["id_1", "id_2"]


def test_a_request_that_was_sent_is_not_repeated() -> None:
    one = talk()
    sent = one.session.request("approve", DATA, "i", 0.0)
    one.written()
    waiting = one.session.request("approve", DATA, "j", 0.0)
    one.session.lose(LOST)
    assert one.refusal(sent) is LOST
    one.connect()
    assert one.frame()["ref"] == waiting


def test_a_message_that_ended_the_connection_is_not_sent_again() -> None:
    one = talk()
    ref = one.session.publish("tick", DATA, "r", "i", 0.0)
    one.written()
    one.session.lose(LOST, resend=False)
    assert one.refusal(ref) is LOST
    one.connect()
    assert one.written() == []


def test_what_is_asked_while_offline_waits_and_goes_out_behind_the_rejoins() -> None:
    one = talk()
    one.join()
    one.session.lose(LOST)
    for n in range(3):
        one.session.publish("tick", DATA, "r", f"id_{n}", 0.0)
    one.connect()
    rejoin = one.frame()
    assert rejoin["event"] == "join-room"
    one.joined(rejoin["ref"], recovered=True)
    assert [frame["id"] for frame in one.written()] == ["id_0", "id_1", "id_2"]


def test_the_buffer_is_bounded() -> None:
    one = Talk(buffer_size=2)
    one.session.publish("tick", DATA, "r", "a", 0.0)
    one.session.request("tick", DATA, "b", 0.0)
    with pytest.raises(errors.Overloaded):
        one.session.publish("tick", DATA, "r", "c", 0.0)


def test_giving_up_tells_every_waiter() -> None:
    one = talk()
    refs = [one.session.publish("tick", DATA, "r", "a", 0.0), one.session.join("x", 0.0), one.session.read("history", {}, 0.0)]
    one.session.lose(LOST)
    assert one.notices() == []
    over = errors.ConnectionError("spent")
    one.session.stop(over)
    assert one.notices() == [Refused(ref, over) for ref in refs]
    assert one.session.rooms == {}


def test_a_forgotten_message_that_waits_is_never_sent() -> None:
    one = Talk()
    ref = one.session.publish("tick", DATA, "r", "a", 0.0)
    one.session.forget(ref, 0.0)
    one.connect()
    assert one.written() == []


def test_a_frame_that_cannot_be_sent_is_refused_here() -> None:
    one = talk()
    ref = one.session.publish("tick", DATA, "r", "a", 0.0)
    one.written()
    one.session.refuse(ref, errors.MessageTooLarge(), 0.0)
    assert isinstance(one.refusal(ref), errors.MessageTooLarge)


def test_too_fast_a_backlog_slows_down_and_keeps_its_order() -> None:
    one = Talk()
    refs = [one.session.publish("tick", DATA, "r", f"id_{n}", 0.0) for n in range(3)]
    one.connect()
    one.written()
    one.get("ack", None, ref=refs[0])
    for ref in refs[1:]:
        one.refuse(ref, "rate_limited", retryable=True, retryAfter=0.5)
    assert one.notices() == [Answered(refs[0], None)]
    assert one.written() == []
    one.now = 0.5
    one.session.tick(0.5)
    assert one.frame()["id"] == "id_1"
    one.get("ack", None, ref=refs[1])
    assert one.written() == []
    one.now = 1.0
    one.session.tick(1.0)
    assert one.frame()["id"] == "id_2"


def test_too_fast_without_a_backlog_is_the_callers_error() -> None:
    one = talk()
    ref = one.session.publish("tick", DATA, "r", "a", 0.0)
    one.written()
    one.refuse(ref, "rate_limited", retryable=True, retryAfter=2)
    error = one.refusal(ref)
    assert isinstance(error, errors.RateLimitExceeded) and error.retry_after == 2


def test_an_emit_is_sent_now_or_not_at_all() -> None:
    one = Talk()
    with pytest.raises(errors.ConnectionError):
        one.session.emit("typing", DATA, "r")
    one.connect()
    one.session.emit("typing", DATA, "r")
    assert one.frame() == {"event": "typing", "data": DATA, "room": "r"}
    one.session.emit("typing", DATA, None)
    one.session.lose(LOST)
    one.connect()
    assert one.written() == []


def test_a_call_of_the_server_is_answered_on_its_own_connection_only() -> None:
    one = talk()
    one.get("confirm", {"n": 1}, ref="c1")
    call = one.notice(Received)
    assert (call.event, call.ref) == ("confirm", "c1")
    one.session.answer("c1", DATA, call.connection)
    assert one.frame() == {"event": "ack", "ref": "c1", "data": DATA}
    one.session.lose(LOST)
    one.connect()
    one.session.answer("c1", DATA, call.connection)
    assert one.written() == []


@pytest.mark.parametrize(
    ("event", "data", "notice"),
    [
        ("reconnect", {"delayMin": 1, "delayMax": 4, "reason": "draining"}, Parting(1, 4, "draining")),
        ("token-expiring", {"expiresAt": 5}, Expiring({"expiresAt": 5})),
        ("pong", None, None),
        ("ack", {"stray": 1}, None),
        ("connected", {}, None),
    ],
)
def test_words_of_the_protocol(event: str, data: Any, notice: Notice | None) -> None:
    one = talk()
    one.get(event, data)
    assert one.notices() == ([] if notice is None else [notice])


def test_an_error_without_a_ref_is_told() -> None:
    one = talk()
    one.get("error", {"code": "bad_request", "message": "What?"})
    assert one.notice(Faulted).error.code == "bad_request"


def test_a_refusal_without_a_ref_is_an_error_and_an_event() -> None:
    one = talk()
    one.get("permission_denied", {"resource": "r", "action": "write"})
    fault, event = one.notices()
    assert isinstance(fault, Faulted) and isinstance(event, Received)


def test_authenticating_on_the_live_connection() -> None:
    one = Talk()
    with pytest.raises(errors.ConnectionError):
        one.session.authenticate("t", 0.0)
    one.connect(user=None)
    ref = one.session.authenticate("t", 0.0)
    assert one.frame() == {"event": "authenticate", "data": {"token": "t"}, "ref": ref}
    one.get("authenticated", {"success": True, "user": {"id": "u"}, "streams": {"user:u": place("e1", 3)}}, ref=ref)
    assert one.answer(ref)["success"]
    assert one.session.user == {"id": "u"}
    one.event(4, "user:u")
    assert one.offsets() == [4]


@pytest.mark.parametrize("data", [{"success": False, "error": "no"}, None, {"success": "yes"}])
def test_a_refused_token(data: Any) -> None:
    one = talk()
    ref = one.session.authenticate("t", 0.0)
    one.written()
    one.get("authenticated", data, ref=ref)
    assert isinstance(one.refusal(ref), errors.AuthenticationError)


def test_a_token_on_its_way_when_the_connection_goes_has_failed() -> None:
    one = talk()
    ref = one.session.authenticate("t", 0.0)
    one.session.lose(LOST)
    assert one.refusal(ref) is LOST


def test_an_inbox_that_is_full_makes_rooms_fall_behind_and_recover() -> None:
    one = talk(inbox_bytes=1000)
    one.join()
    for n in range(1, 6):
        one.event(n, size=300)
    arrived = [notice for notice in one.notices() if isinstance(notice, Arrived)]
    assert [notice.event.offset for notice in arrived] == [1, 2]
    assert one.written() == []
    one.session.handled(arrived[0].size, 0.0, "r", arrived[0].event.position)
    assert one.written() == []
    one.session.handled(arrived[1].size, 0.0, "r", arrived[1].event.position)
    rejoin = one.frame()
    assert rejoin["data"]["recover"] == place("e1", 2)
    one.event(6)
    assert one.notices() == [], "live events are discarded until the answer"
    one.joined(rejoin["ref"], 6, recovered=True)
    one.notices()
    for n in (3, 4, 5, 6):
        one.event(n)
    assert one.offsets() == [3, 4, 5, 6]


def test_a_full_inbox_takes_what_cannot_come_again_for_longer_and_drops_the_volatile() -> None:
    one = talk(inbox_bytes=1000)
    one.join()
    one.event(1, size=1000)
    one.event(None, size=10)
    one.get("notice", None, size=10)
    assert [type(notice) for notice in one.notices()] == [Arrived, Received]
    one.get("notice", None, size=1000)
    one.get("notice", None, size=10)
    assert len(one.notices()) == 1
    assert one.session.held == 1000 + OVERHEAD + 10 + OVERHEAD + 1000 + OVERHEAD


def test_what_the_application_is_done_with() -> None:
    one = talk()
    one.join()
    one.event(1)
    arrived = one.notice(Arrived)
    assert one.session.rooms["r"].handled == HERE
    one.session.handled(arrived.size, 0.0, "r", arrived.event.position)
    assert one.session.rooms["r"].handled == Position("e1", 1)
    assert one.session.held == 0
