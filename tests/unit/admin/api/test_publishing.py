"""Publishing over HTTP: one, many, and again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.admin.api.rig import Rig, check_problem

EVENT = {"room": "tenant_1", "event": "invoice.created", "data": {"amount": 5}}


async def test_an_event_gets_its_position_and_is_in_the_history(rig: Rig) -> None:
    answer = await rig.ask("POST", "/publish", EVENT)
    assert answer.status_code == 200
    receipt = answer.json()
    assert receipt == {"id": receipt["id"], "room": "tenant_1", "epoch": receipt["epoch"], "offset": 1, "duplicate": False}
    (event,) = (await rig.ask("GET", "/rooms/tenant_1/history")).json()["events"]
    assert (event["data"], event["offset"], event["id"], event["userId"]) == ({"amount": 5}, 1, receipt["id"], None)


async def test_to_a_user_and_to_everybody(rig: Rig) -> None:
    assert (await rig.ask("POST", "/publish", {"userId": "ann/1 ü", "event": "told"})).json()["room"] == "user:ann/1 ü"
    assert (await rig.ask("POST", "/publish", {"all": True, "event": "told"})).json()["room"] == "all"
    (event,) = (await rig.ask("GET", "/rooms/user%3Aann%2F1%20%C3%BC/history")).json()["events"]
    assert event["event"] == "told"


async def test_a_volatile_event_has_no_position(rig: Rig) -> None:
    receipt = (await rig.ask("POST", "/publish", EVENT | {"volatile": True})).json()
    assert (receipt["offset"], receipt["epoch"]) == (None, None)


async def test_under_one_key_an_event_is_published_once(rig: Rig) -> None:
    first, again = [(await rig.ask("POST", "/publish", EVENT, headers={"Idempotency-Key": "job-1"})).json() for _ in range(2)]
    assert (first["id"], first["duplicate"], again["duplicate"], again["offset"]) == ("job-1", False, True, first["offset"])
    in_body = (await rig.ask("POST", "/publish", EVENT | {"idempotencyKey": "job-1"})).json()
    assert in_body["duplicate"] and in_body["offset"] == first["offset"]
    other = await rig.ask("POST", "/publish", EVENT | {"data": {"amount": 6}}, headers={"Idempotency-Key": "job-1"})
    check_problem(other, 409, "idempotency_conflict")
    elsewhere = await rig.ask("POST", "/publish", EVENT | {"room": "tenant_2"}, headers={"Idempotency-Key": "job-1"})
    assert not elsewhere.json()["duplicate"]


async def test_two_different_keys_for_one_event_are_refused(rig: Rig) -> None:
    answer = await rig.ask("POST", "/publish", EVENT | {"idempotencyKey": "a"}, headers={"Idempotency-Key": "b"})
    check_problem(answer, 422, "validation_failed")
    assert (await rig.ask("POST", "/publish", EVENT | {"idempotencyKey": "a"}, headers={"Idempotency-Key": "a"})).status_code == 200


@pytest.mark.parametrize("key", ["", "k" * 129, "tab\there"])
async def test_what_is_no_key(rig: Rig, key: str) -> None:
    check_problem(await rig.ask("POST", "/publish", EVENT, headers={"Idempotency-Key": key}), 422, "validation_failed")


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"event": None}, "$.event"),
        ({"event": "two words"}, "$.event"),
        ({"event": "connected"}, None),
        ({"room": None}, "$"),
        ({"all": True}, "$"),
        ({"room": ""}, "$.room"),
        ({"exlude": ["ann"]}, "$.exlude"),
        ({"exclude": "ann"}, "$.exclude"),
        ({"volatile": "yes"}, "$.volatile"),
        ({"filter": {"role__near": 1}}, None),
        ({"filter": "nobody_registered_this"}, None),
        ({"filter": 5}, "$.filter"),
        ({"data": {"a": 2**53 + 1}}, None),
    ],
)
async def test_what_is_no_event(rig: Rig, members: dict[str, Any], path: str | None) -> None:
    answer = await rig.ask("POST", "/publish", EVENT | members)
    if "data" in members:
        check_problem(answer, 400, "bad_request")
        return
    body = check_problem(answer, 422, "validation_failed")
    if path is not None:
        assert any(fault["path"].startswith(path) for fault in body["errors"])


async def test_conditions_and_exclusions_are_kept_beside_the_event(rig: Rig) -> None:
    await rig.publish(data=1, filter={"role__in": ["manager"], "tenant_id": "1"})
    await rig.publish(data=2, exclude=["manager_1"])
    await rig.publish(data=3, filter={"role": "somebody"})
    seen = (await rig.ask("GET", "/rooms/tenant_1/history", by="manager")).json()["events"]
    assert [event["data"] for event in seen] == [1]
    assert (await rig.ask("GET", "/rooms/tenant_1/history")).json()["events"] == []  # whom an event is for is kept to, by operators too


async def test_data_may_be_as_large_as_an_event_may_be(rig: Rig) -> None:
    assert (await rig.ask("POST", "/publish", EVENT | {"data": "x" * 262_000})).status_code == 200
    check_problem(await rig.ask("POST", "/publish", EVENT | {"data": "x" * 263_000}), 413, "message_too_large")


async def test_data_may_be_nested_as_deep_as_an_event_may_be(rig: Rig) -> None:
    def nested(depth: int) -> Any:
        return [nested(depth - 1)] if depth else "in"

    assert (await rig.ask("POST", "/publish", EVENT | {"data": nested(32)})).status_code == 200
    check_problem(await rig.ask("POST", "/publish", EVENT | {"data": nested(33)}), 422, "validation_failed")
    check_problem(await rig.ask("POST", "/publish", EVENT | {"data": nested(36)}), 400, "bad_request")
    batch = await rig.ask("POST", "/batch", {"items": [EVENT | {"data": nested(32)}]})
    assert batch.json()["published"] == 1


async def test_a_batch_has_a_result_for_each_item_in_order(rig: Rig) -> None:
    await rig.publish("tenant_1", "taken", idempotencyKey="taken")
    items = [
        EVENT,
        EVENT | {"room": "tenant_2"},
        EVENT | {"event": "error"},
        EVENT | {"idempotencyKey": "taken"},
        EVENT | {"data": "x" * 270_000},
        EVENT | {"filter": "unknown"},
        EVENT,
    ]
    body = (await rig.ask("POST", "/batch", {"items": items})).json()
    assert [one["status"] for one in body["results"]] == [200, 200, 422, 409, 413, 422, 200]
    assert (body["published"], body["failed"]) == (3, 4)
    assert [one["receipt"]["offset"] for one in body["results"] if one["receipt"]] == [2, 1, 3]
    assert body["results"][3]["problem"]["code"] == "idempotency_conflict" and body["results"][3]["receipt"] is None


async def test_a_batch_keeps_its_order_within_a_room(rig: Rig) -> None:
    items = [{"room": f"tenant_{number % 3}", "event": "counted", "data": number} for number in range(300)]
    body = (await rig.ask("POST", "/batch", {"items": items})).json()
    assert body["failed"] == 0
    for room in range(3):
        events = (await rig.ask("GET", f"/rooms/tenant_{room}/history?limit=300")).json()["events"]
        assert [event["data"] for event in events] == list(range(room, 300, 3))


async def test_a_batch_again_under_its_key_publishes_nothing_twice(rig: Rig) -> None:
    items = [EVENT | {"data": number} for number in range(3)] + [EVENT | {"idempotencyKey": "own"}]
    for is_again in (False, True):
        body = (await rig.ask("POST", "/batch", {"items": items}, headers={"Idempotency-Key": "batch-7"})).json()
        assert [one["receipt"]["duplicate"] for one in body["results"]] == [is_again] * 4
        assert [one["receipt"]["id"] for one in body["results"]] == ["batch-7.0", "batch-7.1", "batch-7.2", "own"]
    assert len((await rig.ask("GET", "/rooms/tenant_1/history")).json()["events"]) == 4


async def test_a_batch_that_does_not_fit_publishes_nothing(rig: Rig) -> None:
    body = check_problem(await rig.ask("POST", "/batch", {"items": [EVENT, {"room": "tenant_1"}]}), 422, "validation_failed")
    assert body["errors"][0]["path"] == "$.items[1].event"
    assert (await rig.ask("GET", "/rooms/tenant_1/history")).json()["events"] == []


@pytest.mark.parametrize("items", [[], [EVENT] * 1001, None, "x"])
async def test_how_many_a_batch_may_have(rig: Rig, items: Any) -> None:
    check_problem(await rig.ask("POST", "/batch", {"items": items}), 422, "validation_failed")


async def test_a_manager_publishes_to_his_room_alone(rig: Rig) -> None:
    items = [EVENT, EVENT | {"room": "tenant_2"}, {"event": "told", "all": True}, {"event": "told", "userId": "bob"}]
    body = (await rig.ask("POST", "/batch", {"items": items}, by="manager")).json()
    assert [one["status"] for one in body["results"]] == [200, 403, 403, 403]
    for target in ({"all": True}, {"userId": "bob"}, {"room": "all"}, {"room": "user:bob"}, {"room": "tenant_2"}):
        check_problem(await rig.ask("POST", "/publish", {"event": "told"} | target, by="manager"), 403, "permission_denied")


async def test_who_manages_every_room_writes_to_nobodys_own_stream(rig: Rig) -> None:
    assert (await rig.ask("POST", "/publish", {"event": "told", "room": "any"}, by="overseer")).status_code == 200
    for room in ("all", "user:bob"):
        check_problem(await rig.ask("POST", "/publish", {"event": "told", "room": room}, by="overseer"), 403, "permission_denied")
        check_problem(await rig.ask("GET", f"/rooms/{room}/history", by="overseer"), 403, "permission_denied")
