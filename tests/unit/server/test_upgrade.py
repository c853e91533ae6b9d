"""The request that opens a WebSocket, read strictly; and whose word is believed about where it came from."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibos_realtime.errors import ConfigurationError
from aibos_realtime.server.upgrade import TrustedProxies, Upgrade, subscriber_of
from aibos_realtime.transport.http import UpgradeRequest

GOOD = {b"host": b"app.example.com", b"sec-websocket-version": b"13", b"sec-websocket-key": b"dGhlIHNhbXBsZSBub25jZQ=="}


def upgrade(*more: tuple[bytes, bytes], without: bytes = b"", is_raw: bool = True, **request: Any) -> Upgrade:
    headers = [(name, value) for name, value in GOOD.items() if name != without] + list(more)
    given: dict[str, Any] = {
        "method": "GET",
        "path": "/",
        "query": b"",
        "http_version": "1.1",
        "peer_address": "192.0.2.1",
        "is_secure": False,
    } | request
    return Upgrade(UpgradeRequest(headers=headers, is_raw=is_raw, **given))


def test_a_good_request() -> None:
    found = upgrade((b"origin", b"https://app.example.com"), (b"sec-websocket-protocol", b"aibos.realtime.v1, bearer.abc"))
    assert found.fault() is None and found.accept() == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "the example of RFC 6455, section 1.3"
    assert (found.host, found.origin, found.protocols) == ("app.example.com", "https://app.example.com", ["aibos.realtime.v1", "bearer.abc"])


HEAD, KEY = (b"host", b"other"), b"sec-websocket-key"


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (upgrade(method="POST"), 405),
        (upgrade(http_version="1.0"), 400),
        (upgrade(without=b"host"), 400),
        (upgrade(HEAD), 400),
        (upgrade((b"host", b""), without=b"host"), 400),
        (upgrade((b"host", b"app.example.com, evil.example"), without=b"host"), 400),
        (upgrade((b"host", b"app.example.com/ws"), without=b"host"), 400),
        (upgrade((b"host", b"user@app.example.com"), without=b"host"), 400),
        (upgrade((b"content-length", b"5")), 400),
        (upgrade((b"transfer-encoding", b"chunked")), 400),
        (upgrade(without=KEY), 400),
        (upgrade((KEY, GOOD[KEY])), 400),
        (upgrade((KEY, b"short"), without=KEY), 400),
        (upgrade((KEY, b"!" * 24), without=KEY), 400),
        (upgrade((KEY, b"\xe9" * 24), without=KEY), 400),
        (upgrade(without=b"sec-websocket-version"), 426),
        (upgrade((b"sec-websocket-version", b"8"), without=b"sec-websocket-version"), 426),
        (upgrade((b"sec-websocket-version", b"13")), 426),
        (upgrade((b"origin", b"https://a.example"), (b"origin", b"https://b.example")), 400),
        (upgrade((b"sec-websocket-protocol", b"a, a")), 400),
        (upgrade((b"sec-websocket-protocol", b"a,,b")), 400),
        (upgrade((b"sec-websocket-protocol", b"a b")), 400),
        (upgrade((b"sec-websocket-protocol", b"bearer.x"), (b"sec-websocket-protocol", b"bearer.y")), 400),
    ],
)
def test_what_is_refused(found: Upgrade, status: int) -> None:
    refusal = found.fault()
    assert refusal is not None and refusal.status == status
    if status == 426:
        assert ("Sec-WebSocket-Version", "13") in refusal.headers


def test_under_another_server_only_our_own_part_is_checked() -> None:
    assert upgrade(without=KEY, is_raw=False).fault() is None
    assert upgrade((b"sec-websocket-protocol", b"a, a"), is_raw=False).fault() is not None


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (b"", None),
        (b"chat", None),
        (b"aibos.realtime.v1.msgpack, aibos.realtime.v1", "aibos.realtime.v1.msgpack"),
        (b"chat, aibos.realtime.v1", "aibos.realtime.v1"),
        (b"aibos.realtime.v9, bearer.x", "aibos.realtime.v9"),
        (b"aibos.realtime.v9, aibos.realtime.v1", "aibos.realtime.v1"),
    ],
)
def test_the_subprotocol(offered: bytes, chosen: str | None) -> None:
    found = upgrade((b"sec-websocket-protocol", offered))
    assert found.fault() is None and found.subprotocol() == chosen


def test_headers_that_carry_secrets_are_not_kept() -> None:
    secrets = [(name, b"hunter2") for name in (b"authorization", b"cookie", b"proxy-authorization", b"x-api-key", b"sec-websocket-protocol")]
    kept = upgrade(*secrets, (b"user-agent", b"x")).kept_headers()
    assert b"hunter2" not in kept and b"user-agent: x" in kept


# — proxies —


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, nonsense", "10.0.0.1"),
        ("10.0.0.1", "nonsense, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", " 2001:db8::1 ", "2001:db8::1"),
        ("", "203.0.113.9", ""),
    ],
)
def test_whose_word_is_believed(peer: str, forwarded: str, address: str) -> None:
    assert TrustedProxies(["10.0.0.0/8"]).client_address(peer, forwarded) == address


def test_a_mapped_address_is_its_ipv4_address() -> None:
    proxies = TrustedProxies(["10.0.0.0/8"])
    assert proxies.client_address("::ffff:10.0.0.1", "203.0.113.9") == "203.0.113.9" and proxies.is_secure("::ffff:10.0.0.1", False, "https")


@given(st.text(max_size=40))
def test_nobody_is_believed_by_default(forwarded: str) -> None:
    assert TrustedProxies([]).client_address("192.0.2.1", forwarded) == "192.0.2.1"


def test_tls_at_the_proxy() -> None:
    proxies = TrustedProxies(["10.0.0.1"])
    assert proxies.is_secure("10.0.0.1", False, "https") and not proxies.is_secure("10.0.0.1", True, "http")
    assert not proxies.is_secure("192.0.2.1", False, "https") and proxies.is_secure("192.0.2.1", True, "http")


def test_what_is_no_network() -> None:
    with pytest.raises(ConfigurationError, match="^trusted_proxies: 'proxy' was given"):
        TrustedProxies(["10.0.0.0/8", "proxy"])


def test_limits_count_ipv6_addresses_by_the_network_of_a_subscriber() -> None:
    same = ["2001:db8:1:2::", "2001:db8:1:2::1", "2001:DB8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::1%eth0"]
    assert {subscriber_of(address) for address in same} == {"2001:db8:1:2::"}
    assert subscriber_of("2001:db8:1:3::1") == "2001:db8:1:3::"
    assert subscriber_of("::ffff:192.0.2.1") == subscriber_of("192.0.2.1") == "192.0.2.1"
    assert subscriber_of("") == "" and subscriber_of("no:address") == "no:address"
