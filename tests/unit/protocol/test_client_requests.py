from __future__ import annotations

from typing import Any

import pytest

from aibos_realtime.errors import Overloaded
from aibos_realtime.protocol.client_requests import TRIES, WINDOW, Kind, Request, RequestLedger


def add(ledger: RequestLedger, kind: Kind = "publish", **keywords: Any) -> Request:
    return ledger.open(kind, {"event": kind}, now=0.0, **keywords)


def taken(ledger: RequestLedger, now: float = 0.0) -> list[int]:
    refs = []
    while (frame := ledger.take(now)) is not None:
        refs.append(frame["ref"])
    return refs


def test_what_flows_goes_out_at_once_in_order() -> None:
    ledger = RequestLedger()
    ledger.is_flowing = True
    made = [add(ledger).ref for _ in range(100)]
    assert taken(ledger) == made


def test_what_waits_goes_out_a_window_at_a_time() -> None:
    ledger = RequestLedger()
    made = [add(ledger).ref for _ in range(WINDOW + 3)]
    assert taken(ledger) == []
    ledger.is_flowing = True
    assert taken(ledger) == made[:WINDOW]
    assert taken(ledger) == []
    ledger.close(made[0])
    assert taken(ledger) == [made[WINDOW]]


def test_a_new_message_does_not_overtake_the_backlog() -> None:
    ledger = RequestLedger()
    first = add(ledger).ref
    ledger.is_flowing = True
    assert taken(ledger) == [first]
    second = add(ledger)
    assert second.is_backlog
    assert taken(ledger) == [second.ref]


def test_the_buffer_is_bounded() -> None:
    ledger = RequestLedger(buffer_size=2)
    add(ledger)
    add(ledger)
    with pytest.raises(Overloaded):
        add(ledger)
    assert len(ledger) == 2
    add(ledger, "join", is_held=True)


def test_giving_up_makes_place() -> None:
    ledger = RequestLedger(buffer_size=1)
    ledger.close(add(ledger).ref)
    assert ledger.waiting == 0
    add(ledger)


def test_the_deadline_runs_from_the_sending_on() -> None:
    ledger = RequestLedger(timeout=10.0)
    request = add(ledger)
    assert ledger.expire(1000.0) == []
    ledger.is_flowing = True
    taken(ledger, now=1000.0)
    assert ledger.next_deadline == 1010.0
    assert ledger.expire(1009.9) == []
    assert ledger.expire(1010.0) == [request]
    assert len(ledger) == 0


def test_a_deadline_of_its_own_runs_from_the_beginning() -> None:
    ledger = RequestLedger()
    request = add(ledger, timeout=3.0)
    assert ledger.next_deadline == 3.0
    assert ledger.expire(3.0) == [request]
    ledger.is_flowing = True
    assert taken(ledger) == []


def test_an_answered_request_has_no_deadline() -> None:
    ledger = RequestLedger()
    ledger.is_flowing = True
    request = add(ledger)
    taken(ledger)
    ledger.close(request.ref)
    assert ledger.next_deadline is None


def test_after_a_loss_what_may_be_repeated_is_repeated_in_order() -> None:
    ledger = RequestLedger()
    ledger.is_flowing = True
    publish, request, read, leave = add(ledger), add(ledger, "request"), add(ledger, "read"), add(ledger, "leave")
    taken(ledger)
    unsent = add(ledger, "request")
    over = ledger.lose(resend=True)
    assert over == [request, leave]
    assert not ledger.is_flowing
    assert ledger.next_deadline is None
    late = add(ledger)
    ledger.is_flowing = True
    assert taken(ledger) == [publish.ref, read.ref, unsent.ref, late.ref]


def test_after_a_complaint_nothing_is_repeated() -> None:
    ledger = RequestLedger()
    ledger.is_flowing = True
    sent = add(ledger)
    taken(ledger)
    waiting = add(ledger)
    assert ledger.lose(resend=False) == [sent]
    ledger.is_flowing = True
    assert taken(ledger) == [waiting.ref]


def test_joins_stay_open_over_a_loss_and_are_repeated_by_hand() -> None:
    ledger = RequestLedger()
    join = add(ledger, "join")
    taken(ledger)
    assert ledger.lose(resend=True) == []
    ledger.is_flowing = True
    assert taken(ledger) == []
    ledger.repeat(join, {"roomId": "r"})
    assert ledger.take(0.0) == {"event": "join", "ref": join.ref, "data": {"roomId": "r"}}


def test_a_message_of_the_backlog_that_came_too_fast_waits_for_its_turn() -> None:
    ledger = RequestLedger()
    made = [add(ledger) for _ in range(4)]
    ledger.is_flowing = True
    taken(ledger)
    for refused in (made[1], made[2]):
        ledger.close(refused.ref)
        assert ledger.put_back(refused, 0.5, now=10.0)
    assert taken(ledger, now=10.4) == []
    assert ledger.next_deadline == 10.0
    ledger.close(made[0].ref)
    ledger.close(made[3].ref)
    assert ledger.next_deadline == 10.5
    assert taken(ledger, now=10.5) == [made[1].ref]
    assert taken(ledger, now=99.0) == []
    ledger.close(made[1].ref)
    assert taken(ledger, now=99.0) == [made[2].ref]


def test_from_the_first_refusal_on_the_delay_lies_between_the_messages_of_the_backlog() -> None:
    """Only the refused one waited, and the next went out with its acknowledgement: every second one was refused, and after 50 the server hung up."""
    ledger = RequestLedger()
    made = [add(ledger) for _ in range(20)]
    ledger.is_flowing = True
    sent = taken(ledger)
    for request in made[:16]:
        ledger.close(request.ref)
    assert ledger.put_back(made[15], 0.5, now=1.0) and sent == [request.ref for request in made[:16]]
    seen: list[tuple[float, int]] = []
    now = 1.0
    while len(seen) < 5:
        now += 0.125
        for ref in taken(ledger, now=now):
            seen.append((now, ref))
            ledger.close(ref)
    assert seen == [(1.5 + 0.5 * number, made[15 + number].ref) for number in range(5)]
    fresh = add(ledger)
    assert taken(ledger, now=now) == [fresh.ref], "once the backlog is gone nothing waits"


def test_it_does_not_wait_for_ever() -> None:
    ledger = RequestLedger()
    request = add(ledger)
    ledger.is_flowing = True
    for turn in range(TRIES + 1):
        taken(ledger, now=float(turn))
        ledger.close(request.ref)
        assert ledger.put_back(request, 0.0, now=float(turn)) is (turn < TRIES)


def test_a_message_that_did_not_wait_is_not_put_back() -> None:
    ledger = RequestLedger()
    ledger.is_flowing = True
    request = add(ledger)
    taken(ledger)
    ledger.close(request.ref)
    assert not ledger.put_back(request, 1.0, now=0.0)


def test_giving_up_ends_everything() -> None:
    ledger = RequestLedger()
    ledger.is_flowing = True
    made = [add(ledger, kind) for kind in ("publish", "request", "read", "join", "leave", "authenticate")]
    assert ledger.give_up() == made
    assert (len(ledger), ledger.waiting, ledger.take(0.0)) == (0, 0, None)
