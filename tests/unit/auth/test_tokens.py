"""The matrix of tokens: each row is one token, and only what is right in every way passes."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from aibos_realtime.auth import tokens
from aibos_realtime.auth.keys import key_of_pem, key_of_secret
from aibos_realtime.auth.tokens import MAX_HEADERS, Refusal, TokenReader, is_kid, is_name, is_plain, unverified_kid
from aibos_realtime.auth.user import NO_CLAIMS, Identity, User

from .material import NOW, SECRET, base64url, ec_key, good_claims, hs256, jwk, pem, raw_token, rsa_key, signed

KEY = key_of_secret(SECRET, None)
AUDIENCE, ISSUER = "https://rt.example", "https://id.example"
HEADER = b'{"alg":"HS256","typ":"JWT"}'
SUB = b'"sub":"user_123"'
EXP = b'"exp":1700003600'


def reader(**changes: Any) -> TokenReader:
    return TokenReader(**{"algorithms": ("HS256",), "audience": (), "issuer": (), "leeway": 10.0, "max_lifetime": 30 * 86400.0, **changes})


STRICT = reader(audience=(AUDIENCE,), issuer=(ISSUER,))


def strict_payload(**changes: Any) -> bytes:
    return json.dumps(good_claims(**{"aud": AUDIENCE, "iss": ISSUER, **changes})).encode()


def strict(header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A token for STRICT: right but for the changes."""
    return hs256(good_claims(**{"aud": AUDIENCE, "iss": ISSUER, **changes}), header)


def payload(members: bytes) -> str:
    return raw_token(HEADER, b"{" + members + b"}")


def nested(opening: bytes, depth: int, closing: bytes) -> bytes:
    return opening * depth + b"1" + closing * depth


RIGHT = strict()

HOSTILE: dict[str, tuple[Any, Refusal]] = {
    # what is no token
    "empty": ("", Refusal.MALFORMED),
    "one part": ("abc", Refusal.MALFORMED),
    "two parts": (RIGHT.rsplit(".", 1)[0], Refusal.MALFORMED),
    "four parts": (RIGHT + ".abc", Refusal.MALFORMED),
    "blank": (" " + RIGHT, Refusal.MALFORMED),
    "line feed": (RIGHT + "\n", Refusal.MALFORMED),
    "padding": (RIGHT + "=", Refusal.MALFORMED),
    "surrogate": ("\ud800" + RIGHT, Refusal.MALFORMED),
    "not a text": (b"a.b.c", Refusal.MALFORMED),
    "one megabyte": (RIGHT[:-1] + "A" * 2**20, Refusal.TOO_LARGE),
    "one over the limit": ("a." * 2 + "a" * 8189, Refusal.TOO_LARGE),
    "header is a list": (raw_token(b"[]", b"{}"), Refusal.MALFORMED),
    "header is no JSON": (raw_token(b"{", b"{}"), Refusal.MALFORMED),
    "header is no UTF-8": (raw_token(b'{"alg":"\xff"}', b"{}"), Refusal.MALFORMED),
    "deep header": (raw_token(nested(b'{"a":', 800, b"}"), b"{}"), Refusal.ALGORITHM),
    "very deep header": (raw_token(nested(b"[", 2800, b"]"), b"{}"), Refusal.MALFORMED),
    "5,000 digits in the header": (raw_token(b'{"alg":"HS256","x":' + b"9" * 5000 + b"}", b"{}"), Refusal.MALFORMED),
    # algorithm and signature
    "none": (raw_token(b'{"alg":"none"}', json.dumps(good_claims()).encode()), Refusal.ALGORITHM),
    "nOnE": (raw_token(b'{"alg":"nOnE"}', json.dumps(good_claims()).encode()), Refusal.ALGORITHM),
    "none, unsigned": (jwt.encode(good_claims(), "", algorithm="none"), Refusal.MALFORMED),
    "no algorithm": (raw_token(b"{}", json.dumps(good_claims()).encode()), Refusal.ALGORITHM),
    "list of algorithms": (strict({"alg": ["HS256"]}), Refusal.ALGORITHM),
    "HS384, not listed": (
        raw_token(b'{"alg":"HS384"}', json.dumps(good_claims()).encode(), digest="sha384"),
        Refusal.ALGORITHM,
    ),
    "lower case": (strict({"alg": "hs256"}), Refusal.ALGORITHM),
    "RS256 for an HMAC key": (signed(rsa_key(), aud=AUDIENCE, iss=ISSUER), Refusal.ALGORITHM),
    "wrong secret": (hs256(secret="another secret, just as long as needed"), Refusal.SIGNATURE),
    "empty secret": (hs256(secret=""), Refusal.SIGNATURE),
    "changed payload": (".".join((RIGHT.split(".")[0], base64url(b'{"sub":"admin"}'), RIGHT.split(".")[2])), Refusal.SIGNATURE),
    "cut signature": (RIGHT[:-7], Refusal.SIGNATURE),
    # header fields
    "crit": (strict({"crit": ["exp"]}), Refusal.MALFORMED),
    "crit with b64": (strict({"crit": ["b64"], "b64": True}), Refusal.HEADER),
    "b64": (strict({"b64": False}), Refusal.MALFORMED),
    "jku": (strict({"jku": "https://evil.test/keys"}), Refusal.HEADER),
    "x5u": (strict({"x5u": "https://evil.test/chain"}), Refusal.HEADER),
    "x5c": (strict({"x5c": ["AAAA"]}), Refusal.HEADER),
    "embedded jwk": (strict({"jwk": jwk(rsa_key(), "a")}), Refusal.HEADER),
    "kid is a path": (strict({"kid": "../../../dev/null"}), Refusal.HEADER),
    "kid is an absolute path": (strict({"kid": "/etc/passwd"}), Refusal.HEADER),
    "kid is SQL": (strict({"kid": "a' OR '1'='1"}), Refusal.HEADER),
    "kid is a number": (strict({"kid": 1}), Refusal.MALFORMED),
    "wrong typ": (strict({"typ": "secevent+jwt"}), Refusal.HEADER),
    "typ is a number": (strict({"typ": 1}), Refusal.HEADER),
    # payload
    "payload is a list": (raw_token(HEADER, b"[]"), Refusal.PAYLOAD),
    "payload is no JSON": (raw_token(HEADER, b"{" + SUB), Refusal.PAYLOAD),
    "something after the payload": (raw_token(HEADER, strict_payload() + b" x"), Refusal.PAYLOAD),
    "payload is no UTF-8": (payload(b'"sub":"\xff"'), Refusal.PAYLOAD),
    "duplicate claims": (payload(SUB + b"," + EXP + b',"sub":"admin"'), Refusal.PAYLOAD),
    "duplicate names inside": (payload(SUB + b"," + EXP + b',"x":{"a":1,"a":2}'), Refusal.PAYLOAD),
    "deep payload": (payload(SUB + b"," + EXP + b',"x":' + nested(b"[", 40, b"]")), Refusal.PAYLOAD),
    "very deep payload": (payload(SUB + b"," + EXP + b',"x":' + nested(b"[", 2800, b"]")), Refusal.PAYLOAD),
    "NUL in a claim": (payload(SUB + b"," + EXP + b',"x":{"y":["\\u0000"]}'), Refusal.PAYLOAD),
    "NUL in a name": (payload(SUB + b"," + EXP + b',"\\u0000":1'), Refusal.PAYLOAD),
    "lone surrogate in a claim": (payload(SUB + b"," + EXP + b',"x":"\\ud800"'), Refusal.PAYLOAD),
    "huge integer in a claim": (payload(SUB + b"," + EXP + b',"x":9007199254740993'), Refusal.PAYLOAD),
    "infinite number in a claim": (payload(SUB + b"," + EXP + b',"x":1e999'), Refusal.PAYLOAD),
    # exp, iat, nbf
    "no exp": (strict(exp=None), Refusal.TIMES),
    "exp is null": (raw_token(HEADER, strict_payload(exp=1).replace(b'"exp": 1', b'"exp": null')), Refusal.TIMES),
    "exp past": (strict(exp=int(NOW) - 10), Refusal.EXPIRED),
    "exp past, with a fraction": (strict(exp=NOW - 10.5), Refusal.EXPIRED),
    "exp negative": (strict(exp=-1), Refusal.EXPIRED),
    "exp 10^30": (strict(exp=10**30), Refusal.TOO_LONG),
    "exp 10^400": (strict(exp=10**400), Refusal.TIMES),
    "exp beyond max_lifetime": (strict(exp=int(NOW) + 30 * 86400 + 12), Refusal.TOO_LONG),
    "exp is a text": (strict(exp=str(int(NOW) + 3600)), Refusal.TIMES),
    "exp is true": (strict(exp=True), Refusal.TIMES),
    "exp is a list": (strict(exp=[int(NOW) + 3600]), Refusal.TIMES),
    "exp NaN": (payload(SUB + b',"exp":NaN'), Refusal.PAYLOAD),
    "exp Infinity": (payload(SUB + b',"exp":Infinity'), Refusal.PAYLOAD),
    "exp 1e400": (raw_token(HEADER, strict_payload(exp=1).replace(b'"exp": 1', b'"exp": 1e400')), Refusal.TIMES),
    "exp of 5,000 digits": (payload(SUB + b',"exp":' + b"9" * 5000), Refusal.PAYLOAD),
    "nbf in the future": (strict(nbf=int(NOW) + 60), Refusal.NOT_YET),
    "nbf is a text": (strict(nbf="0"), Refusal.TIMES),
    "iat in the future": (strict(iat=int(NOW) + 60), Refusal.NOT_YET),
    "iat is a text": (strict(iat="0"), Refusal.TIMES),
    # audience and issuer
    "wrong aud": (strict(aud="https://other.example"), Refusal.AUDIENCE),
    "missing aud": (strict(aud=None), Refusal.AUDIENCE),
    "array of other aud": (strict(aud=["https://other.example", AUDIENCE + "/"]), Refusal.AUDIENCE),
    "array of aud with a number": (strict(aud=[AUDIENCE, 5]), Refusal.AUDIENCE),
    "aud is an object": (strict(aud={AUDIENCE: 1}), Refusal.AUDIENCE),
    "missing iss": (strict(iss=None), Refusal.ISSUER),
    "prefix of iss": (strict(iss=ISSUER[:-1]), Refusal.ISSUER),
    "longer iss": (strict(iss=ISSUER + ".evil.test"), Refusal.ISSUER),
    "iss is a list": (strict(iss=[ISSUER]), Refusal.ISSUER),
    # who
    "no sub": (strict(sub=None), Refusal.SUBJECT),
    "empty sub": (strict(sub=""), Refusal.SUBJECT),
    "sub is a number": (strict(sub=123), Refusal.SUBJECT),
    "sub with NUL": (strict(sub="user\0"), Refusal.SUBJECT),
    "sub with a line feed": (strict(sub="user\n"), Refusal.SUBJECT),
    "sub with a surrogate": (strict(sub="\ud800"), Refusal.SUBJECT),
    "sub with a bidirectional override": (strict(sub="user\u202e"), Refusal.SUBJECT),
    "long sub": (strict(sub="x" * 129), Refusal.SUBJECT),
    "role is null": (raw_token(HEADER, strict_payload(role="x").replace(b'"x"', b"null")), Refusal.ROLE),
    "role is a list": (strict(role=["admin"]), Refusal.ROLE),
    "empty role": (strict(role=""), Refusal.ROLE),
    "tenant_id is a number": (strict(tenant_id=5), Refusal.TENANT),
    "empty tenant_id": (strict(tenant_id=""), Refusal.TENANT),
    "jti is a number": (strict(jti=5), Refusal.TOKEN_ID),
    "long jti": (strict(jti="x" * 129), Refusal.TOKEN_ID),
}


@pytest.mark.parametrize(("token", "refusal"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_tokens(token: str, refusal: Refusal) -> None:
    assert STRICT.read(token, KEY, NOW) is refusal


GOOD = {
    "plain": RIGHT,
    "array of aud with ours": strict(aud=["https://other.example", AUDIENCE]),
    "typ left out": raw_token(b'{"alg":"HS256"}', strict_payload()),
    "spaces around the payload": raw_token(HEADER, b" " + strict_payload() + b"\r\n"),
    "typ of an access token": strict({"typ": "at+JWT"}),
    "usual kid": strict({"kid": "2024-key_1"}),
    "kid in base64": strict({"kid": "HAXp/W6Zc+Zz6aOe0dN0C1oc4hV2U1aF="}),
    "exp within the leeway": strict(exp=int(NOW) - 9),
    "exp with a fraction": strict(exp=NOW + 60.5),
    "exp at max_lifetime": strict(exp=int(NOW) + 30 * 86400),
    "iat and nbf within the leeway": strict(iat=int(NOW) + 9, nbf=int(NOW) + 9),
    "no iat": strict(iat=None),
    "tenant_id is null": raw_token(HEADER, strict_payload(tenant_id="x").replace(b'"x"', b"null")),
}


@pytest.mark.parametrize("token", GOOD.values(), ids=GOOD.keys())
def test_good_tokens(token: str) -> None:
    outcome = STRICT.read(token, KEY, NOW)
    assert isinstance(outcome, Identity)
    assert outcome.user == User("user_123")
    assert outcome.user.claims is NO_CLAIMS


KNOWING = reader(audience=(AUDIENCE,), issuer=(ISSUER,))
for usual in (RIGHT, strict({"kid": "2024-key_1"})):
    KNOWING.read(usual, KEY, NOW)

UNUSUAL = {
    "another spelling of the signature": (RIGHT[:-1] + chr(ord(RIGHT[-1]) + 1), Refusal.MALFORMED),
    "a signature of 4n+1 characters": (RIGHT + "AA", Refusal.MALFORMED),
    "an empty payload": (f"{RIGHT.split('.')[0]}.AA.{RIGHT.split('.')[2]}", Refusal.SIGNATURE),
    "a payload of 4n+1 characters": (f"{RIGHT.split('.')[0]}.AAAAA.{RIGHT.split('.')[2]}", Refusal.MALFORMED),
}


@pytest.mark.parametrize(("token", "refusal"), (HOSTILE | UNUSUAL).values(), ids=(HOSTILE | UNUSUAL).keys())
def test_a_header_that_is_known_spares_no_check(token: str, refusal: Refusal) -> None:
    assert len(KNOWING._headers) == 2
    assert KNOWING.read(token, KEY, NOW) is refusal and STRICT.read(token, KEY, NOW) is refusal
    assert len(KNOWING._headers) == 2, "the header of a bad token is not kept"
    assert isinstance(KNOWING.read(RIGHT, KEY, NOW), Identity)


def test_a_header_that_is_known_under_another_key() -> None:
    one = reader(audience=(AUDIENCE,), issuer=(ISSUER,))
    other = key_of_secret("another secret, just as long as needed", None)
    fresh = hs256(good_claims(aud=AUDIENCE, iss=ISSUER), secret="another secret, just as long as needed")
    assert isinstance(one.read(RIGHT, KEY, NOW), Identity)
    assert one.read(RIGHT, other, NOW) is Refusal.SIGNATURE and one.read(fresh, KEY, NOW) is Refusal.SIGNATURE
    assert isinstance(one.read(fresh, other, NOW), Identity)
    assert [known[0] for known in one._headers.values()] == [other], "the newest counts"
    assert isinstance(one.read(fresh, other, NOW), Identity) and isinstance(one.read(RIGHT, KEY, NOW), Identity)


def test_public_keys_with_a_header_that_is_known() -> None:
    for private, stranger in ((rsa_key(), rsa_key(1)), (ec_key(), ec.generate_private_key(ec.SECP256R1()))):
        key = key_of_pem(pem(private), None)
        one = reader(algorithms=key.algorithms)
        for _ in range(2):
            assert isinstance(one.read(signed(private), key, NOW), Identity)
            assert one.read(signed(stranger), key, NOW) is Refusal.SIGNATURE
        assert len(one._headers) == 1


def test_only_so_many_headers_are_kept() -> None:
    one = reader(audience=(AUDIENCE,), issuer=(ISSUER,))
    for number in range(MAX_HEADERS + 5):
        assert isinstance(one.read(strict({"kid": f"key-{number}"}), KEY, NOW), Identity)
        assert 1 <= len(one._headers) <= MAX_HEADERS


def test_what_many_users_share_is_kept_once_and_only_so_much_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "SHARED_NAMES", 8)
    monkeypatch.setattr(tokens, "_names", {})

    def user(number: int) -> User:
        token = hs256(good_claims(sub=f"user-{number}", role="accountant", tenant_id=f"tenant-{number // 2}"))
        identity = reader().read(token, KEY, NOW)
        assert isinstance(identity, Identity)
        return identity.user

    one, other = user(0), user(1)
    assert one.tenant_id is other.tenant_id and one.role is other.role
    for number in range(40):
        assert user(number).tenant_id == f"tenant-{number // 2}"
        assert len(tokens._names) <= 8


def test_what_a_token_says() -> None:
    further = {"plan": "pro", "seats": {"n": [1, 2.5, None, True]}}
    token = hs256(good_claims(role="admin", tenant_id="tenant_123", jti="id-1", nbf=0, iss="x", **further))
    user = User("user_123", "admin", "tenant_123", further)
    assert reader().read(token, KEY, NOW) == Identity(user, NOW + 3600, NOW, "id-1")


def test_an_audience_that_nobody_configured_is_refused() -> None:
    assert reader().read(hs256(good_claims(aud="https://other.example")), KEY, NOW) is Refusal.AUDIENCE_NOT_SET


def test_expiry_is_judged_last() -> None:
    assert STRICT.read(strict(exp=0, iss="x"), KEY, NOW) is Refusal.ISSUER


def test_a_public_key_never_serves_as_a_secret() -> None:
    """RFC 8725, 2.1: a token signed with HMAC, the secret being the text of the public key."""
    for private in (rsa_key(), ec_key()):
        key = key_of_pem(pem(private), None)
        both = reader(algorithms=key.algorithms)
        assert isinstance(both.read(signed(private), key, NOW), Identity)
        assert both.read(hs256(secret=pem(private)), key, NOW) is Refusal.ALGORITHM
        assert both.read(hs256(header={"alg": key.algorithms[0]}, secret=pem(private)), key, NOW) is Refusal.SIGNATURE


def test_another_key_of_the_same_kind() -> None:
    key = key_of_pem(pem(rsa_key()), None)
    assert reader(algorithms=key.algorithms).read(signed(rsa_key(1)), key, NOW) is Refusal.SIGNATURE
    assert reader(algorithms=key.algorithms).read(signed(rsa_key(), algorithm="RS512"), key, NOW) is Refusal.ALGORITHM


def test_a_published_key_takes_tokens_of_its_own_id_alone() -> None:
    key = key_of_pem(pem(ec_key()), None)._replace(kid="a")
    one = reader(algorithms=key.algorithms)
    assert isinstance(one.read(signed(ec_key(), "a"), key, NOW), Identity)
    assert one.read(signed(ec_key(), "b"), key, NOW) is Refusal.HEADER
    assert one.read(signed(ec_key()), key, NOW) is Refusal.HEADER


def test_the_key_id_is_only_read() -> None:
    assert unverified_kid(signed(rsa_key(), "k-1")) == "k-1"
    unusable = (b"5", b'""', b'"\xff"', b"null", b'"' + b"x" * 129 + b'"', nested(b"[", 2800, b"]"))
    for header in (b"{}", b"[]", b"{", *(b'{"kid":' + kid + b"}" for kid in unusable)):
        assert unverified_kid(raw_token(header, b"{}")) is None
    assert unverified_kid("A.A.A") is None


def test_names_and_plain_values() -> None:
    assert is_name("Zoë \u5f20") and not is_name(None) and not is_name("a\u2028b")
    assert is_kid("urn:ietf:a.b=") and not is_kid("a/../b") and not is_kid("a\n") and not is_kid("")
    assert is_plain(json.loads(nested(b"[", 32, b"]"))) and not is_plain(json.loads(nested(b"[", 33, b"]")))
    assert not is_plain({1: 2}) and not is_plain({"a": {1}}) and not is_plain(-(2**53) - 1)
