"""The request that opens a WebSocket, read strictly (RFC 6455, section 4.2.1). Pure: what it asks for, not whether it may."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
from collections.abc import Sequence

from ..errors import ConfigurationError, ProtocolError
from ..options import shown
from ..protocol.messages import BEARER, SUBPROTOCOL, SUBPROTOCOL_MSGPACK
from ..transport.asgi import Scope
from ..transport.http import Refusal, UpgradeRequest

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]+)(?::[0-9]{0,5})?")  # RFC 9112, section 3.2; without a comma
_FAMILY = "aibos.realtime."
_SECRET_FIELDS = frozenset({b"authorization", b"proxy-authorization", b"cookie", b"sec-websocket-protocol", b"x-api-key"})


class Upgrade:
    """A well-formed upgrade request. Its constructor raises nothing; `fault` says what is wrong with the request, if anything."""

    __slots__ = ("_fields", "host", "key", "origin", "origins", "path", "protocols", "request")

    def __init__(self, request: UpgradeRequest) -> None:
        self.request = request
        self._fields: dict[bytes, list[str]] = {}
        for name, value in request.headers:
            self._fields.setdefault(name, []).append(value.decode("latin-1"))
        self.path = request.path
        self.origins = self.all(b"origin")
        self.origin = self.origins[0] if self.origins else None
        hosts = self.all(b"host")
        self.host = hosts[0] if hosts else ""
        keys = self.all(b"sec-websocket-key")
        self.key = keys[0] if keys else ""
        self.protocols: list[str] = []

    def all(self, name: bytes) -> list[str]:
        """The values of every field of a name (in lower case)."""
        return self._fields.get(name, [])

    def fault(self) -> Refusal | None:
        """Why this is not an upgrade request that we can take; fills in `protocols`."""
        return (self._http_fault() if self.request.is_raw else None) or self._read_protocols()

    def _http_fault(self) -> Refusal | None:
        request = self.request
        if request.method != "GET":
            return Refusal(405, "bad_request", "A WebSocket opens with GET.", (("Allow", "GET"),))
        if request.http_version != "1.1":
            return Refusal(400, "bad_request", "A WebSocket opens over HTTP/1.1.")
        if len(self.all(b"host")) != 1 or _HOST.fullmatch(self.host) is None:
            return Refusal(400, "bad_request", "Exactly one Host field is needed.")
        # A proxy would count a body as part of the request, where we would begin to read frames.
        if self.all(b"transfer-encoding") or any(length.strip() != "0" for length in self.all(b"content-length")):
            return Refusal(400, "bad_request", "A WebSocket opens without a body.")
        if self.all(b"sec-websocket-version") != ["13"]:
            further = (("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket"))
            return Refusal(426, "bad_request", "WebSocket version 13 (RFC 6455) is spoken here.", further)
        if len(self.all(b"sec-websocket-key")) != 1 or not _is_key(self.key):
            return Refusal(400, "bad_request", "Exactly one Sec-WebSocket-Key of 16 bytes is needed.")
        return None

    def _read_protocols(self) -> Refusal | None:
        if len(self.origins) > 1:
            return Refusal(400, "bad_request", "At most one Origin field is allowed.")
        try:
            self.protocols = _protocols(", ".join(self.all(b"sec-websocket-protocol")))
        except ProtocolError as error:
            return Refusal(400, "bad_request", error.message)
        return None

    def accept(self) -> str:
        """The value of Sec-WebSocket-Accept (RFC 6455, section 4.2.2)."""
        return base64.b64encode(hashlib.sha1(self.key.encode() + _GUID).digest()).decode()

    def subprotocol(self) -> str | None:
        """The first entry of ours among those offered; else one of our family in a version that we do not speak; None: none at all."""
        for protocol in self.protocols:
            if protocol in (SUBPROTOCOL, SUBPROTOCOL_MSGPACK):
                return protocol
        return next((protocol for protocol in self.protocols if protocol.startswith(_FAMILY)), None)

    def kept_headers(self, token_header: str = "") -> bytes:
        """The header fields as one blob, without those that carry secrets, and the one that carries the token: what `socket.headers` shows."""
        hidden = {*_SECRET_FIELDS, token_header.lower().encode()}
        return b"\r\n".join(name + b": " + value for name, value in self.request.headers if name not in hidden)


def _is_key(key: str) -> bool:
    try:
        return len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _protocols(text: str) -> list[str]:
    """The entries of Sec-WebSocket-Protocol. Raises `ProtocolError` for what is not a list of different tokens."""
    if not text:
        return []
    entries = [entry.strip(" \t") for entry in text.split(",")]
    if any(_TOKEN.fullmatch(entry) is None for entry in entries) or len(set(entries)) < len(entries):
        raise ProtocolError("Sec-WebSocket-Protocol is not a list of different names.")
    if sum(entry.startswith(BEARER) for entry in entries) > 1:
        raise ProtocolError("Sec-WebSocket-Protocol holds more than one token.")
    return entries


class TrustedProxies:
    """The addresses whose `X-Forwarded-For` is believed. Raises `ConfigurationError` for what is no address or network."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for text in networks:
            try:
                self._networks.append(ipaddress.ip_network(text, strict=False))
            except ValueError:
                raise ConfigurationError(f"trusted_proxies: {shown(text)} was given; allowed are addresses and networks such as 10.0.0.0/8") from None

    def client_address(self, peer: str, forwarded: str) -> str:
        """The nearest address that is not a trusted proxy. The list is read from its end, where the nearest proxy wrote."""
        address = peer
        for hop in reversed([part.strip() for part in forwarded.split(",")] if forwarded else []):
            if not self._is_trusted(address) or _parsed(hop) is None:
                break
            address = hop
        return address

    def address_of(self, scope: Scope) -> str:
        """The client's address of an HTTP request."""
        client = scope.get("client")
        forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        return self.client_address(client[0] if client else "", ", ".join(forwarded))

    def is_secure(self, peer: str, is_secure: bool, forwarded_proto: str) -> bool:
        """Whether the client came over TLS, as a trusted proxy tells, or as we see."""
        return forwarded_proto.strip().lower() in ("https", "wss") if forwarded_proto and self._is_trusted(peer) else is_secure

    def _is_trusted(self, address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)


def subscriber_of(address: str) -> str:
    """What limits per address count by: an IPv4 address, or the first 64 bits of an IPv6 address, of which one subscriber has all the others."""
    parsed = _parsed(address) if ":" in address else None
    if parsed is None or isinstance(parsed, ipaddress.IPv4Address):
        return address if parsed is None else str(parsed)
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A dual-stack socket tells an IPv4 peer as ::ffff:10.0.0.1 (RFC 4291, section 2.5.5.2).
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address
