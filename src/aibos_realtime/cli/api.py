"""The HTTP API of a server, for the commands of operators: one request at a time, and one sentence where it does not do.

It is `urllib`: a command asks little, and one dependency less is more than what a client library would give. No redirect is followed: what is shown
to a server is for that server.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import ConfigurationError
from .exits import ExitCode, Failure
from .folder import OPERATOR, DemoFolder
from .program import NAME, program
from .target import DEFAULT_URL, first_given, token_advice

if TYPE_CHECKING:
    from ..admin.reports import Report

R = TypeVar("R", bound="Report")

PATH = "/api/v1"
TIMEOUT = 10.0
"""Seconds without a byte from the server."""
MOST_BYTES = 64 * 1024 * 1024
"""Of one answer."""


@dataclass(frozen=True)
class Credential:
    """What says who asks. `value`: of the demo a function that makes a fresh token. `given_as`: how the user named it."""

    value: str | Callable[[], str | None]
    given_as: str
    is_key: bool = False

    def fields(self) -> dict[str, str]:
        """The header for a request. Raises `Failure` where it cannot be one."""
        text = (self.value if isinstance(self.value, str) else self.value()) or ""
        if not text or not all("!" <= character <= "~" for character in text):
            kind = "key" if self.is_key else "token"
            message = f"{self.given_as}: a text without a {kind} was given; allowed is one of printable ASCII characters, without spaces"
            raise Failure(message, ExitCode.USAGE)
        return {"X-API-Key": text} if self.is_key else {"Authorization": f"Bearer {text}"}

    def advice(self) -> str:
        """What to do where the server did not accept it."""
        if self.is_key:
            return f"Is {self.given_as} whole, and does the server have it, or its hash, in http.api_keys (REALTIME_API_KEYS)?"
        return token_advice(self.value, self.given_as, make=MAKE_TOKEN)


MAKE_TOKEN = f"token --user NAME --role {OPERATOR}"


class Api:
    """The API of one server. `url`: as the user gave it, of the WebSocket or of HTTP; `url_from`: how he named it. Everything raises `Failure`."""

    def __init__(self, url: str, credential: Credential, *, url_from: str = "--url", timeout: float = TIMEOUT) -> None:
        self.base = http_base(url, url_from)
        self.server = urllib.parse.urlsplit(self.base).netloc
        self._credential = credential
        self._is_default = url_from == "default"
        self.timeout = timeout
        self._opener = urllib.request.build_opener(*_handlers(self.base))

    def get(self, path: str, model: type[R], **query: object) -> R:
        """The report on a path. `query`: None is left out."""
        return self._read(model, self._call("GET", path, query))

    def get_list(self, path: str, name: str, model: type[R], **query: object) -> list[R]:
        """The reports that an answer holds under a name."""
        answer = self._call("GET", path, query)
        found = answer.get(name) if isinstance(answer, dict) else None
        if not isinstance(found, list):
            raise self._strange()
        return [self._read(model, one) for one in found]

    def post(self, path: str, **body: object) -> Any:
        """Have something done; the answer."""
        return self._call("POST", path, {}, json.dumps({name: value for name, value in body.items() if value is not None}).encode())

    # — one request —

    def _call(self, method: str, path: str, query: dict[str, object], body: bytes | None = None) -> Any:
        from .. import __version__

        given = {name: value for name, value in query.items() if value is not None}
        url = f"{self.base}{PATH}{path}" + (f"?{urllib.parse.urlencode(given)}" if given else "")
        fields = self._credential.fields() | {"Accept": "application/json", "User-Agent": f"{NAME}/{__version__}"}
        if body is not None:
            fields["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data=body, headers=fields, method=method)
        try:
            with self._opener.open(request, timeout=self.timeout) as answer:
                return self._decode(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error) from None
        except urllib.error.URLError as error:
            raise self._unreached(error.reason) from None
        except (OSError, HTTPException) as error:
            raise self._unreached(error) from None

    def _decode(self, answer: HTTPResponse) -> Any:
        content = answer.read(MOST_BYTES + 1)
        if answer.length and len(content) <= MOST_BYTES:
            raise self._unreached(RemoteDisconnected(""))
        if len(content) > MOST_BYTES:
            raise Failure(f"{self.server} answered with more than {MOST_BYTES // 1024**2} MB: ask for less (--limit).", ExitCode.REFUSED)
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise self._strange() from None

    def _read(self, model: type[R], value: object) -> R:
        from pydantic import ValidationError

        try:
            return model.model_validate(value)
        except ValidationError:
            raise self._strange() from None

    # — what went wrong —

    def _strange(self) -> Failure:
        message = f"What answers at {self.base}{PATH} is no server of aibos-realtime, or one of another version: check the URL."
        return Failure(message, ExitCode.NO_SERVER)

    def _unreached(self, error: object) -> Failure:
        """No answer, and why."""
        where = self.server
        if isinstance(error, TimeoutError):
            return Failure(
                f"{where} did not answer within {self.timeout:g} seconds: whether it did what it was asked is unknown.", ExitCode.NO_ANSWER
            )
        if isinstance(error, ssl.SSLCertVerificationError):
            message = f"The certificate of {where} is not trusted: name the file of its authority in SSL_CERT_FILE."
        elif isinstance(error, ssl.SSLError):
            message = f"No TLS connection to {where}: does it speak TLS (https, wss), or plain text (http, ws)?"
        elif isinstance(error, socket.gaierror):
            message = f"The host of {where} is not known: check the URL and the name service."
        elif isinstance(error, ConnectionRefusedError):
            message = f"Nothing listens at {where}: start the server, or check the host and the port."
        elif isinstance(error, RemoteDisconnected):
            message = f"{where} closed the connection before it had answered: does it stop at the moment, or speak TLS (https, wss)?"
        elif isinstance(error, HTTPException):
            message = f"{where} did not answer as a web server: check the host and the port."
        else:
            text = error.strerror if isinstance(error, OSError) else None
            message = f"No connection to {where}: {text or type(error).__name__}. Check the address and the network."
        if self._is_default:
            message += f" Another server: --url or REALTIME_URL. To try one out: {program()} serve --demo."
        return Failure(message, ExitCode.NO_SERVER)

    def _refused(self, error: urllib.error.HTTPError) -> Failure:
        """What the server says against it: a problem (RFC 9457), unless something else answers."""
        status = error.code
        try:
            found = json.loads(error.read(64 * 1024))
        except (OSError, ValueError, RecursionError, HTTPException):
            found = None
        problem: dict[str, Any] = found if isinstance(found, dict) else {}
        if 300 <= status < 400:
            place = urllib.parse.urlsplit(error.headers.get("Location") or "")
            said = f" ({place.scheme}://{place.hostname})" if place.scheme in ("http", "https") and place.hostname else ""
            return Failure(f"{self.server} sends requests on to somewhere else{said}: give the URL of the server itself.", ExitCode.NO_SERVER)
        code = problem.get("code")
        words = _sentence(problem) or f"{self.server} answered {status}."
        if status == 401:
            return Failure(f"{words} {self._credential.advice()}", ExitCode.TOKEN)
        if status == 403 and code is not None:
            return Failure(f"{words} {_ROLE_ADVICE.format(program())}", ExitCode.PERMISSION)
        if status in (404, 405) and code in (None, "not_found"):
            message = f"There is no HTTP API at {self.base}{PATH}: check the path of the URL, and http.api of the server."
            return Failure(message, ExitCode.NO_SERVER)
        if status >= 500 and code is None:
            return Failure(f"{self.server} answered {status}: it, or what stands before it, is in trouble.", ExitCode.NO_SERVER)
        return Failure(words, ExitCode.FAILED if status == 500 else ExitCode.REFUSED)


_ROLE_ADVICE = "Use a token with a role of http.operator_roles ({} " + MAKE_TOKEN + "), or an API key (REALTIME_API_KEY)."


def find_api(url: str | None, token: str | None, api_key: str | None) -> Api:
    """The server that is meant, and who asks: options win over the environment, a key over a token there, and both over the demo, whose tokens go to
    the demo alone. Raises `Failure`.
    """
    if token is not None and api_key is not None:
        raise Failure("--token and --api-key say twice who asks: leave one of them away.", ExitCode.USAGE)
    folder, environment = DemoFolder(), os.environ.get
    where, url_from = first_given((url, "--url"), (environment("REALTIME_URL"), "REALTIME_URL"), (folder.url(), "demo"), (DEFAULT_URL, "default"))
    found, given_as = first_given(
        (api_key, "--api-key"),
        (token, "--token"),
        (environment("REALTIME_API_KEY"), "REALTIME_API_KEY"),
        (environment("REALTIME_TOKEN"), "REALTIME_TOKEN"),
    )
    if found:
        return Api(where, Credential(found, given_as, is_key=given_as in ("--api-key", "REALTIME_API_KEY")), url_from=url_from)
    if (demo := folder.url()) and http_base(demo, "demo") == http_base(where, url_from) and folder.secret() is not None:
        return Api(where, Credential(lambda: folder.issue(role=OPERATOR), "demo"), url_from=url_from)
    make = f"export REALTIME_TOKEN=$({program()} {MAKE_TOKEN})"
    no_demo = f" To try it out: {program()} serve --demo." if url_from == "default" else ""
    raise Failure(f"There is neither a token nor an API key: {make}, or set REALTIME_API_KEY.{no_demo}", ExitCode.TOKEN)


def http_base(url: str, option: str) -> str:
    """Where HTTP is beside a WebSocket: `http://host:3001` for `ws://host:3001/ws`. Raises `Failure`."""
    from ..client.options import parse_url

    try:
        parts = urllib.parse.urlsplit(parse_url(option, url))
    except ConfigurationError as error:
        raise Failure(str(error), ExitCode.USAGE) from None
    if "@" in parts.netloc:
        raise Failure(f"{option}: a user or a password stands in the URL; allowed is --token or --api-key.", ExitCode.USAGE)
    path = parts.path.removesuffix("/").removesuffix("/ws").removesuffix(PATH)
    return f"{'https' if parts.scheme == 'wss' else 'http'}://{parts.netloc}{path}"


def quoted(name: str) -> str:
    """A name as one part of a path."""
    return urllib.parse.quote(name, safe="")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect what it is: an answer that is none."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _handlers(base: str) -> list[urllib.request.BaseHandler]:
    """Without a proxy for this machine itself; else those of the environment."""
    host = urllib.parse.urlsplit(base).hostname or ""
    try:
        is_loopback = ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost" or host.endswith(".localhost")
    proxies = [urllib.request.ProxyHandler({})] if is_loopback else [urllib.request.ProxyHandler()]
    return [*proxies, _NoRedirect()]


def _sentence(problem: dict[str, Any]) -> str:
    """What a problem says, with the places of what does not fit."""
    words = problem.get("detail") or problem.get("message") or problem.get("title")
    if not isinstance(words, str) or not words:
        return ""
    errors = problem.get("errors")
    places = [f"{one.get('path')}: {one.get('message')}" for one in errors if isinstance(one, dict)] if isinstance(errors, list) else []
    return " ".join([words if words.endswith((".", "!", "?")) else f"{words}.", *(f"{place.rstrip('.')}." for place in places[:5])])
