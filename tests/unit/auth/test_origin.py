"""The matrix of origins: what passes is what is written down, and nothing that looks like it."""

from __future__ import annotations

from typing import Any

import pytest

from aibos_realtime.auth.origin import CorsOptions, OriginPolicy
from aibos_realtime.errors import ConfigurationError

LIST = OriginPolicy({"origin": ["https://app.example", "https://bank.example:8443", "capacitor://localhost"], "credentials": True})


@pytest.mark.parametrize(
    ("origin", "verdict"),
    [
        pytest.param(None, True, id="no origin: not a browser"),
        pytest.param("null", False, id="null"),
        pytest.param("https://app.example", True, id="listed"),
        pytest.param("https://bank.example:8443", True, id="listed with its port"),
        pytest.param("capacitor://localhost", True, id="listed with a scheme of its own"),
        pytest.param("http://app.example", False, id="http for https"),
        pytest.param("wss://app.example", False, id="wss for https"),
        pytest.param("https://app.example:8443", False, id="another port"),
        pytest.param("https://bank.example", False, id="default port for another"),
        pytest.param("https://app.example:443", True, id="default port, written out"),
        pytest.param("https://app.example:0443", False, id="port with a zero before it"),
        pytest.param("https://app.example:70000", False, id="port that is none"),
        pytest.param("https://app.example:", False, id="empty port"),
        pytest.param("https://evilapp.example", False, id="suffix"),
        pytest.param("https://a.app.example", False, id="subdomain"),
        pytest.param("https://app.example.evil.test", False, id="prefix"),
        pytest.param("https://app.example".upper(), True, id="upper case"),
        pytest.param("https://app.example.", False, id="trailing dot"),
        pytest.param("https://app.example@evil.test", False, id="host as user"),
        pytest.param("https://evil@app.example", False, id="user before the host"),
        pytest.param("https://app.example, https://evil.test", False, id="two fields"),
        pytest.param("https://app.example https://evil.test", False, id="two values"),
        pytest.param("https://app.example/", False, id="path"),
        pytest.param("https://app.example\n", False, id="line feed"),
        pytest.param(" https://app.example", False, id="blank before"),
        pytest.param("https://\u0430pp.example", False, id="look-alike: Cyrillic a"),
        pytest.param("https://ban\u212a.example:8443", False, id="look-alike: Kelvin sign"),
        pytest.param("https://xn--pp-6kc.example", False, id="look-alike in punycode"),
        pytest.param("", False, id="empty"),
        pytest.param("*", False, id="star"),
        pytest.param("https://", False, id="no host"),
        pytest.param("app.example", False, id="no scheme"),
    ],
)
def test_allow_list(origin: str | None, verdict: bool) -> None:
    for secure in (False, True):
        assert LIST.is_allowed(origin, "rt.example", secure) is verdict


def test_a_list_is_the_whole_list() -> None:
    assert not LIST.is_allowed("https://rt.example", "rt.example", True)


@pytest.mark.parametrize(
    ("origin", "host", "secure", "verdict"),
    [
        ("https://rt.example", "rt.example", True, True),
        ("https://rt.example", "RT.example:443", True, True),
        ("https://rt.example", "rt.example", False, True),  # TLS ended at a proxy
        ("http://rt.example", "rt.example", False, True),
        ("http://rt.example", "rt.example", True, False),
        ("http://localhost:3001", "localhost:3001", False, True),
        ("http://localhost:3000", "localhost:3001", False, False),
        ("http://localhost", "localhost:3001", False, False),
        ("http://[::1]:3001", "[::1]:3001", False, True),
        ("http://127.0.0.1:3001", "localhost:3001", False, False),
        ("https://app.example", "rt.example", True, False),
        ("https://ban\u212a.example", "bank.example", True, False),
        ("https://bank.example", "ban\u212a.example", True, False),
        ("ftp://rt.example", "rt.example", False, False),
        ("https://rt.example", None, True, False),
        ("https://rt.example", "", True, False),
        ("https://rt.example", "rt.example:x", True, False),
        ("null", "null", True, False),
        (None, "rt.example", True, True),
        (None, None, False, True),
    ],
)
def test_same_host_without_a_list(origin: str | None, host: str | None, secure: bool, verdict: bool) -> None:
    variants: tuple[dict[str, Any] | None, ...] = (
        None,
        {},
        {"origin": []},
        {"origin": ""},
        {"origin": " , "},
        {"origin": None, "credentials": True},
    )
    for options in variants:
        assert OriginPolicy(options).is_allowed(origin, host, secure) is verdict


def test_star_takes_every_origin_but_null() -> None:
    policy = OriginPolicy({"origin": "*"})
    assert policy.is_allowed("https://anybody.example", None, True)
    assert not policy.is_allowed("null", "rt.example", True)


def test_a_text_with_commas_is_a_list() -> None:
    assert CorsOptions.parse("cors", {"origin": "https://a.example, https://b.example:81,"}).origin == (
        "https://a.example",
        "https://b.example:81",
    )
    policy = OriginPolicy(CorsOptions(origin=("https://a.example",)))
    assert policy.is_allowed("https://a.example", None, True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"origin": "*", "credentials": True}, 'cors.origin: "*" was given beside credentials'),
        ({"credentials": True, "origin": ["https://a.example", "*"]}, 'cors.origin: "*" was given beside credentials'),
        ({"origin": ["https://a.example/"]}, "cors.origin: 'https://a.example/' was given; allowed is scheme://host"),
        ({"origin": ["https://*.a.example"]}, "cors.origin: "),
        ({"origin": ["a.example"]}, "cors.origin: "),
        ({"origin": ["null"]}, "cors.origin: "),
        ({"origin": 5}, "cors.origin: 5 was given"),
        ({"orign": []}, "cors.orign: there is no such option; did you mean 'origin'?"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        OriginPolicy(options)
    assert str(caught.value).startswith(sentence)


def test_response_headers() -> None:
    assert LIST.response_headers("https://app.example", "rt.example", True) == [
        (b"vary", b"Origin"),
        (b"access-control-allow-origin", b"https://app.example"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"Allow, Retry-After"),
    ]
    assert LIST.response_headers("https://evil.test", "rt.example", True, preflight=True) == [(b"vary", b"Origin")]
    assert LIST.response_headers(None, "rt.example", True) == [(b"vary", b"Origin")]
    star = dict(OriginPolicy({"origin": "*"}).response_headers("https://a.example", None, True, preflight=True))
    assert star[b"access-control-allow-origin"] == b"*"
    assert b"access-control-allow-credentials" not in star
    assert b"Authorization" in star[b"access-control-allow-headers"] and b"POST" in star[b"access-control-allow-methods"]
