"""`conversations.json`, played against the real server in both forms; the Python client's decoder and session hear every word."""

from __future__ import annotations

import copy

import pytest

from tests.vectors.files import Vector, load, name_of
from tests.vectors.theatre import perform

CONVERSATIONS = load("conversations.json", "conversations")


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=name_of)
async def test_conversation(conversation: Vector, codec: str) -> None:
    await perform(conversation, codec)


def test_every_error_code_of_the_protocol_is_heard_somewhere() -> None:
    text = repr(CONVERSATIONS)
    codes = "bad_request unknown_event validation_failed not_authenticated permission_denied room_not_found room_full room_limit"
    codes += " guests_not_allowed not_in_room room_required rate_limited idempotency_conflict unrecoverable_position internal"
    assert [code for code in codes.split() if f"'{code}'" not in text] == []


async def test_a_wrong_expectation_fails() -> None:
    [conversation] = [copy.deepcopy(one) for one in CONVERSATIONS if one["name"] == "ping"]
    for wrong in ({"event": "pong", "ref": 8}, {"event": "pong"}, {"event": "pong", "ref": 7, "data": None}):
        conversation["steps"][2]["hears"] = wrong
        with pytest.raises(AssertionError, match="ann heard"):
            await perform(conversation, "json")
