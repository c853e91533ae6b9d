"""Where a token travels: a header, a query parameter, an entry of the subprotocol list. It is found here, and verified elsewhere."""

from __future__ import annotations

from urllib.parse import parse_qsl

from ..protocol.messages import BEARER


class TokenCarrier:
    """Finds the token of a request. None: it carries none. "" (which no token is): it carries an empty one, or two."""

    __slots__ = ("_header", "_parameter", "_prefix")

    def __init__(self, *, header: str, prefix: str, parameter: str | None) -> None:
        """`parameter`: name of the query parameter; None: a token in the query string is not looked at."""
        self._header = header.lower().encode("ascii")
        self._prefix = prefix.lower()
        self._parameter = parameter

    def token_from(self, headers: list[tuple[bytes, bytes]], query_string: bytes) -> str | None:
        """The token in the header, whose scheme has no case (RFC 9110, 11.1), else in the query string."""
        found = []
        size = len(self._header)
        for name, value in headers:
            if len(name) == size and name.lower() == self._header:
                text = value.decode("latin-1").strip(" \t") + " "  # the space that a prefix without a token lost
                if text.lower().startswith(self._prefix):
                    found.append(text[len(self._prefix) :].strip(" \t"))
        if not found and self._parameter is not None and query_string:
            try:
                pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=100)
            except ValueError:
                return ""
            found = [value for name, value in pairs if name == self._parameter]
        return _single(found)


def bearer_entry(protocols: list[str]) -> str | None:
    """The token in a `bearer.<token>` entry of `Sec-WebSocket-Protocol`, with None and "" as above."""
    return _single([entry[len(BEARER) :] for entry in protocols if entry.startswith(BEARER)])


def _single(found: list[str]) -> str | None:
    if not found:
        return None
    return found[0] if len(found) == 1 else ""
