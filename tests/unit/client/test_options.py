from __future__ import annotations

import ssl
from datetime import timedelta
from typing import Any

import pytest

from aibos_realtime.client.client import RealtimeClient
from aibos_realtime.client.options import name_server, parse_url
from aibos_realtime.errors import ConfigurationError

URL = "ws://localhost:3001"


def test_the_literals_of_the_source_document_carry_over() -> None:
    client = RealtimeClient(
        URL, token="your_jwt_token", reconnect=True, reconnect_attempts=5, reconnect_interval=5, heartbeat={"interval": 30, "timeout": 60}
    )
    assert client.state == "disconnected"
    assert (client.options.reconnect_attempts, client.options.heartbeat.timeout) == (5, 60.0)


def test_durations_may_be_timedeltas() -> None:
    client = RealtimeClient(URL, reconnect_interval=timedelta(milliseconds=500), heartbeat={"interval": timedelta(minutes=1)})
    assert (client.options.reconnect_interval, client.options.heartbeat.interval) == (0.5, 60.0)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"reconnect_interval": 0}, "client.reconnect_interval: 0"),
        ({"reconnect_interval": float("inf")}, "client.reconnect_interval"),
        ({"reconnect_attempts": -1}, "client.reconnect_attempts"),
        ({"request_timeout": "soon"}, "client.request_timeout"),
        ({"buffer_size": 0}, "client.buffer_size"),
        ({"codec": "xml"}, "client.codec"),
        ({"compression": "zip"}, "client.compression"),
        ({"heartbeat": {"interval": -1}}, "heartbeat.interval"),
        ({"heartbeat": {"intervall": 1}}, "heartbeat.intervall: there is no such option; did you mean 'interval'?"),
        ({"reconect": True}, "client.reconect: there is no such option; did you mean 'reconnect'?"),
        ({"token": 5}, "client.token: int was given"),
        ({"ssl": ssl.create_default_context()}, "client.ssl: goes with wss"),
    ],
)
def test_a_mistake_is_named_by_its_path(keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RealtimeClient(URL, **keywords)
    assert words in str(caught.value)


@pytest.mark.parametrize("token", ["", "two words", "line\r\nfeed", "umläut"])
def test_a_token_that_fits_no_header_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RealtimeClient(URL, token=token)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("ws://localhost:3001", "ws://localhost:3001/"),
        ("wss://node.example/ws?a=1", "wss://node.example/ws?a=1"),
        ("http://localhost:3001/ws", "ws://localhost:3001/ws"),
        ("https://node.example#part", "wss://node.example/"),
        ("ws://[::1]:3001", "ws://[::1]:3001/"),
    ],
)
def test_urls(url: str, meant: str) -> None:
    assert parse_url("client.url", url) == meant


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:3001",
        "ftp://localhost",
        "ws://",
        "ws:///path",
        "ws://localhost:99999",
        "ws://localhost:0",
        "ws://[::1",
        "ws://localhost/a b",
        5,
        None,
    ],
)
def test_what_is_no_url(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="^client.url: "):
        RealtimeClient(url)


def test_no_part_of_a_bad_url_is_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        RealtimeClient("ftp://someone:hunter2@localhost/?token=abc")
    assert "hunter2" not in str(caught.value) and "abc" not in str(caught.value)


def test_a_list_names_the_wrong_one() -> None:
    with pytest.raises(ConfigurationError, match="^client.url.1: "):
        RealtimeClient([URL, "ftp://localhost"])
    with pytest.raises(ConfigurationError, match="^client.url: "):
        RealtimeClient([])


def test_a_server_is_named_by_host_and_port() -> None:
    names = [name_server(url) for url in ("ws://u:p@localhost:3001/x", "wss://node.example/", "ws://node.example/", "ws://[::1]/")]
    assert names == ["localhost:3001", "node.example:443", "node.example:80", "[::1]:80"]
