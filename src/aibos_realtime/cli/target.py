"""The server that `listen` and `publish` talk to, and the token they show it: from options, the environment, or the demo of this folder."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import errors
from .exits import ExitCode, Failure, exit_code_of, first_cause
from .folder import DemoFolder
from .program import program

if TYPE_CHECKING:
    from ..client.client import RealtimeClient

DEFAULT_URL = "ws://localhost:3001"

UrlOption = Annotated[
    str | None,
    typer.Option(help="The server.  [default: REALTIME_URL, else the demo of this folder, else ws://localhost:3001]", metavar="URL"),
]
TokenOption = Annotated[
    str | None,
    typer.Option(help="The token; others can read it in the list of processes.  [default: REALTIME_TOKEN, else one of the demo]", metavar="TOKEN"),
]

ApiKeyOption = Annotated[
    str | None,
    typer.Option(help="An API key in place of a token; others can read it in the list of processes.  [default: REALTIME_API_KEY]", metavar="KEY"),
]


@dataclass(frozen=True)
class Target:
    """`url` and `token`, which for the demo is a function that makes a fresh one. `url_from`, `token_from`: how the user named them."""

    url: str
    token: str | Callable[[], str | None]
    url_from: str
    token_from: str

    def client(self, **options: Any) -> RealtimeClient:
        """A client for it. Raises `Failure` where URL or token cannot be used at all."""
        from ..client.client import RealtimeClient

        try:
            return RealtimeClient(self.url, token=self.token, **options)
        except errors.ConfigurationError as error:
            message = str(error).replace("client.url", self.url_from, 1).replace("client.token", self.token_from, 1)
            raise Failure(message, ExitCode.USAGE) from None

    def explain(self, error: errors.RealtimeError, user: dict[str, Any] | None = None, room: str = "") -> Failure:
        """One sentence for an error of the client, and what to do. `user`: whom the server saw."""
        error = first_cause(error)
        message, code = str(error), exit_code_of(error)
        if code is ExitCode.TOKEN:
            message = f"{message} {token_advice(self.token, self.token_from)}"
        elif isinstance(error, errors.PermissionDenied) and error.resource:
            verb = {"read": "listen to", "write": "publish to"}.get(error.action, f"use ({error.action})")
            message = (
                f"{_name_user(user)} may not {verb} {room or error.resource}: use a token of a user who may. "
                "Without other rules that is the room tenant_<id> of the user's own tenant."
            )
        elif code is ExitCode.NO_SERVER and isinstance(error, errors.ConnectionError) and self.url_from == "default":
            message = f"{message} Another server: --url or REALTIME_URL. To try one out: {program()} serve --demo."
        return Failure(message, code)


def find_target(url: str | None, token: str | None) -> Target:
    """Options win over the environment, and that over the demo; a token of the demo goes to the demo alone. Raises `Failure` without a token."""
    folder = DemoFolder()
    given, url_from = first_given((url, "--url"), (os.environ.get("REALTIME_URL"), "REALTIME_URL"), (folder.url(), "demo"), (DEFAULT_URL, "default"))
    chosen, token_from = first_given((token, "--token"), (os.environ.get("REALTIME_TOKEN"), "REALTIME_TOKEN"))
    if chosen:
        return Target(given, chosen, url_from, token_from)
    if given == folder.url() and folder.secret() is not None:
        return Target(given, folder.issue, url_from, "demo")
    make = f"export REALTIME_TOKEN=$({program()} token --user NAME --tenant TENANT)"
    if url_from == "default":
        message = f"There is no token, and no demo runs in this folder: {make}. To try it out: {program()} serve --demo."
    else:
        message = f"There is no token for this server: {make}."
    raise Failure(message, ExitCode.TOKEN)


def token_advice(token: str | Callable[[], str | None], token_from: str, make: str = "token --user NAME --tenant TENANT") -> str:
    """What to do about a token that a server did not accept. `make`: what makes a better one."""
    if not isinstance(token, str):
        return f"It is of the demo in this folder: is it another server that listens there? Restart the demo: {program()} serve --demo."
    expired = expired_for(token, time.time())
    make = f"{program()} {make}"
    if expired is not None:
        return f"It expired {show_duration(expired)} ago: make another one ({make}) and give it as {token_from}."
    return f"Is it whole, and made with the secret of this server? Make another one ({make}) and give it as {token_from}."


async def connect_once(client: RealtimeClient) -> None:
    """Connect, where the first attempt that fails is the last: a client that tries for ever would wait for a server that is not there.

    Raises what the attempt raised. After it the client reconnects as it was told to.
    """
    failed: asyncio.Future[errors.RealtimeError] = asyncio.get_running_loop().create_future()

    def note_failure(error: errors.RealtimeError) -> None:
        if not failed.done():
            failed.set_result(error)

    client.on("error", note_failure)
    connecting = asyncio.ensure_future(client.connect())
    try:
        await asyncio.wait((connecting, failed), return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            raise failed.result()
        connecting.result()
    finally:
        client.off("error", note_failure)
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)


def expired_for(token: str, now: float) -> float | None:
    """Seconds since a token expired, or None: it has not, or does not say. Nothing is verified: it is the user's own."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        expiry = float(claims["exp"])
    except (IndexError, ValueError, TypeError, KeyError, binascii.Error, RecursionError):
        return None
    return now - expiry if expiry <= now else None


def show_duration(seconds: float) -> str:
    """`40 s`, `5 min`, `3 h`, `12 days`."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _name_user(user: dict[str, Any] | None) -> str:
    if not user:
        return "This user"
    tenant = f"tenant {user['tenantId']}" if user.get("tenantId") else "no tenant"
    return f"User {user.get('id')} (role {user.get('role')}, {tenant})"


def first_given(*candidates: tuple[str | None, str]) -> tuple[str, str]:
    """The first of (value, how it is named) that has a value, else two empty texts."""
    return next(((value, name) for value, name in candidates if value), ("", ""))
