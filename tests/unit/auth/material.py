"""Keys, tokens right and wrong, and a little identity provider, for the tests of this folder."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

NOW = 1_700_000_000.0
SECRET = "k7Qz-0pLr5Tn2Wx8" * 3
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def good_claims(**changes: Any) -> dict[str, Any]:
    """Claims that are right at NOW; a change to None takes the claim out."""
    claims = {"sub": "user_123", "exp": int(NOW) + 3600, "iat": int(NOW)} | changes
    return {name: value for name, value in claims.items() if value is not None}


def raw_token(header: bytes, payload: bytes, *, secret: str = SECRET, digest: str = "sha256") -> str:
    """A token of any two texts, with a right HMAC signature."""
    content = f"{base64url(header)}.{base64url(payload)}"
    return f"{content}.{base64url(hmac.new(secret.encode(), content.encode(), getattr(hashlib, digest)).digest())}"


def hs256(claims: dict[str, Any] | None = None, header: dict[str, Any] | None = None, *, secret: str = SECRET) -> str:
    """A token with these claims; `header`: further header fields."""
    head = {"alg": "HS256", "typ": "JWT"} | (header or {})
    return raw_token(json.dumps(head).encode(), json.dumps(good_claims() if claims is None else claims).encode(), secret=secret)


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(key: PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def signed(key: PrivateKey, kid: str | None = None, algorithm: str | None = None, **changes: Any) -> str:
    """A token signed with RS256 or ES256, or `algorithm`."""
    algorithm = algorithm or ("RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256")
    return jwt.encode(good_claims(**changes), key, algorithm=algorithm, headers={"kid": kid} if kid is not None else None)


def jwk(key: PrivateKey, kid: str, /, **changes: Any) -> dict[str, Any]:
    """The published form of a key, with further or other members."""
    kind: Any = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"} | changes


class Provider:
    """A key set on loopback. `hits`: requests so far; while `gate` is clear, requests wait; `asked`: one arrived."""

    def __init__(self) -> None:
        self.body = b""
        self.status = 200
        self.headers: dict[str, str] = {}
        self.hits = 0
        self.asked = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.url = ""

    def publish(self, *keys: dict[str, Any]) -> None:
        self.body = json.dumps({"keys": keys}).encode()


@contextmanager
def serve_keys() -> Iterator[Provider]:
    provider = Provider()

    class Requests(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            provider.hits += 1
            provider.asked.set()
            provider.gate.wait(5)
            self.send_response(provider.status)
            self.send_header("Content-Length", str(len(provider.body)))
            for name, value in provider.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(provider.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that gave up waiting is part of the tests."""

    with Server(("127.0.0.1", 0), Requests) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        provider.url = f"http://127.0.0.1:{server.server_port}/keys.json"
        try:
            yield provider
        finally:
            provider.gate.set()
            server.shutdown()
            thread.join()
