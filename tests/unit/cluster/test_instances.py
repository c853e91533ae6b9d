"""What an instance is, and how it goes up and down."""

from __future__ import annotations

import json
import pickle

import pytest

from aibos_realtime.cluster.instances import Instance, Standing
from aibos_realtime.errors import ConfigurationError


def test_an_instance_is_the_text_of_its_url() -> None:
    instance = Instance("ws://instance1:3001", weight=2)
    assert instance == "ws://instance1:3001" == str(instance) == instance.url and instance.weight == 2
    assert {str(instance): 1}[instance] == 1 and hash(instance) == hash("ws://instance1:3001")
    assert json.dumps([instance]) == '["ws://instance1:3001"]'
    copy = pickle.loads(pickle.dumps(instance))
    assert (copy, copy.weight) == (instance, 2)


@pytest.mark.parametrize(
    ("url", "name", "ready", "secure"),
    [
        ("ws://instance1:3001", "instance1:3001", "/ready", False),
        ("ws://instance1:3001/", "instance1:3001", "/ready", False),
        ("ws://instance1:3001/ws", "instance1:3001", "/ready", False),
        ("wss://app.example.com", "app.example.com:443", "/ready", True),
        ("wss://app.example.com/realtime/ws?x=1", "app.example.com:443", "/realtime/ready", True),
        ("http://[::1]:3001/realtime/", "[::1]:3001", "/realtime/ready", False),
        ("https://app.example.com", "app.example.com:443", "/ready", True),
    ],
)
def test_where_it_is_and_where_it_says_whether_it_is_ready(url: str, name: str, ready: str, secure: bool) -> None:
    instance = Instance(url)
    assert (instance.name, instance.ready_path, instance.is_secure) == (name, ready, secure)


def test_http_is_taken_as_ws() -> None:
    assert Instance("http://instance1:3001/x") == "ws://instance1:3001/x" and Instance("https://a.example") == "wss://a.example"


@pytest.mark.parametrize(
    "url", ["instance1:3001", "redis://a:1", "ws://", "ws://a:0", "ws://a:99999", "ws://u:pass@a:1", "ws://a/\n", "ws://[::1", 7, None]
)
def test_what_is_no_instance_is_told_without_its_secrets(url: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Instance.parse("load_balancer.instances.1", url)
    assert str(caught.value).startswith("load_balancer.instances.1") and "pass" not in str(caught.value)


def test_the_long_form_and_its_mistakes() -> None:
    assert Instance.parse("x", {"url": "ws://a:1", "weight": 3}).weight == 3
    for wrong in ({"url": "ws://a:1", "wieght": 3}, {"weight": 3}, {"url": "ws://a:1", "weight": 0}):
        with pytest.raises(ConfigurationError, match=r"^x\."):
            Instance.parse("x", wrong)


def standing() -> Standing:
    return Standing(Instance("ws://a:1"), failures=2, successes=2)


def test_two_failures_in_a_row_turn_it_down_and_two_successes_up() -> None:
    found = standing()
    assert [found.note(ok, 1.0) for ok in (False, True, False)] == [False, False, False]
    assert found.note(False, 5.0)
    assert (found.is_up, found.down_at) == (False, 5.0)
    assert [found.note(ok, 6.0) for ok in (True, False, True)] == [False, False, False]
    assert (found.is_up, found.down_at) == (False, 6.0), "a failed check while down counts as found down again"
    assert found.note(True, 7.0)
    assert (found.is_up, found.streak) == (True, 0)


def test_a_word_from_outside_forgets_what_was_counted() -> None:
    found = standing()
    found.note(False, 1.0)
    found.set(True, 2.0)
    assert not found.note(False, 3.0) and found.is_up
    found.set(False, 4.0)
    found.note(True, 5.0)
    found.set(False, 6.0)
    assert not found.note(True, 7.0)
    assert (found.is_up, found.down_at) == (False, 6.0)
