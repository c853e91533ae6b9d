"""The server that `bench` loads: where it is, whose tokens its clients show, which rooms they may use, and whether it answers at all."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..client.options import name_server, parse_url
from ..errors import PermissionDenied, RealtimeError
from ..load.connection import EVENT
from ..load.plan import Place, Scenario
from .exits import ExitCode, Failure
from .folder import OPERATOR, DemoFolder
from .target import DEFAULT_URL, Target, connect_once, find_target, first_given
from .token import configured_issuer, demo_issuer

if TYPE_CHECKING:
    from ..load.layout import Layout
    from .bench_report import Settings

TENANT = "tenant_"
"""How the rooms begin that a tenant's users may use where nothing else is configured."""
PERMISSION = '{"bench:*": ["read", "write"]}'
_PATIENCE = 5.0
"""Seconds for an address to take a connection."""


class Tokens:
    """One token for all clients, or `issuer`: what mints one for each, so that each is a user of its own."""

    def __init__(self, run: str, given: str | None, issuer: Any, lifetime: float) -> None:
        self._run = run
        self._given = given
        self._issuer = issuer
        self._lifetime = lifetime

    @property
    def are_minted(self) -> bool:
        return self._issuer is not None

    def of(self, number: int, *, sends: bool, room: str | None) -> str:
        """That of a client. One who sends has the role `service`, which has no limit on publishes; his tenant is that of the room."""
        if self._given is not None:
            return self._given
        tenant = tenant_of(room) if room is not None else None
        role = "service" if sends else "user"
        minted: str = self._issuer.issue(user_id=f"bench-{self._run}-{number}", role=role, tenant_id=tenant, expires_in=self._lifetime)
        return minted

    def of_operator(self) -> str:
        """One that may ask the HTTP API, where it is minted, and the server's configuration leaves the role its name."""
        if self._given is not None:
            return self._given
        minted: str = self._issuer.issue(user_id=f"bench-{self._run}", role=OPERATOR, expires_in=self._lifetime)
        return minted


def tenant_of(room: str) -> str:
    """Whose users may use this room, or the tenants' room in its place, where nothing else is configured."""
    return room.removeprefix(TENANT) if room.startswith(TENANT) else room.replace(":", "-")


def find_server(
    run: str, lifetime: float, url: str | None, token: str | None, secret_file: Path | None, config: Path | None, env_file: Path | None
) -> tuple[Target, Tokens]:
    """The server, and the tokens for it. A secret wins over a token of the environment. Raises `Failure`, `ConfigurationError`."""
    folder = DemoFolder()
    where, url_from = first_given((url, "--url"), (os.environ.get("REALTIME_URL"), "REALTIME_URL"), (folder.url(), "demo"), (DEFAULT_URL, "default"))
    if token is None:
        secret = folder.secret() if where == folder.url() and secret_file is None else None
        issuer = demo_issuer(secret) if secret is not None else configured_issuer(secret_file, config, env_file)
        if issuer is not None:
            tokens = Tokens(run, None, issuer, lifetime)
            return Target(where, lambda: None, url_from, "the demo's secret" if secret is not None else "the secret that is configured here"), tokens
    try:
        target = find_target(url, token)
    except Failure as failure:
        message = f"{failure} Or let each client have a token of its own: give the secret of the server as JWT_SECRET, or by --secret-file."
        raise Failure(message, failure.code) from None
    assert isinstance(target.token, str)
    return target, Tokens(run, target.token, None, lifetime)


# — whether it answers —


async def find_place(target: Target) -> Place:
    """The addresses that take a connection, of all that the host has. Raises `Failure`, `ConfigurationError`."""
    parts = urlsplit(parse_url(target.url_from, target.url))
    assert parts.hostname is not None
    is_secure = parts.scheme == "wss"
    port = parts.port or (443 if is_secure else 80)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        raise Failure(f"The host of {name_server(target.url)} is not known: check the URL and the name service.", ExitCode.NO_SERVER) from None
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    answers = await asyncio.gather(*(_takes_connections(address, port) for address in addresses))
    if not any(answers):
        raise Failure(f"Nothing listens at {name_server(target.url)}: start the server, or check the host and the port.", ExitCode.NO_SERVER)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return Place(parts.hostname, port, path, is_secure, [one for one, answer in zip(addresses, answers, strict=True) if answer])


async def _takes_connections(address: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE):
            _, writer = await asyncio.open_connection(address, port)
    except OSError:  # a TimeoutError is one
        return False
    writer.transport.abort()
    return True


async def choose_rooms(settings: Settings, target: Target, tokens: Tokens, layout: Layout, request: tuple[str, Any], *, may_rename: bool) -> Settings:
    """Try the server out, and name the rooms as its users may use them: by names of our own; or, where each client has one room and a minted token,
    as the rooms of tenants. Raises `Failure`."""
    first = settings.rooms[:1] if layout.rooms else []
    is_divided = layout.rooms > 0 and layout.rooms_of_one == 1 and layout.senders in range(layout.rooms, layout.rooms * layout.members + 1)
    others = [TENANT + tenant_of(name) for name in settings.rooms]
    if may_rename and tokens.are_minted and (is_divided or settings.scenario is not Scenario.FANOUT) and layout.rooms_of_one == 1:
        first += others[:1]
    if await try_out(target, tokens, settings.scenario, first, request, settings.codec):
        return replace(settings, rooms=others)
    return settings


async def try_out(target: Target, tokens: Tokens, scenario: Scenario, rooms: Sequence[str], request: tuple[str, Any], codec: str) -> int:
    """Have one client do once what all are to do, so that what does not go is said in words before a thousand run into it.

    Returned is the number of the first of these rooms that it may use. Raises `Failure`.
    """
    number = 0
    token = tokens.of(0, sends=True, room=rooms[0] if rooms else None)
    client = Target(target.url, token, target.url_from, target.token_from).client(reconnect=False, codec=codec)
    try:
        await connect_once(client)
        if scenario is Scenario.REQUEST and request[0] != "ping":
            await client.send_message(*request)
        elif scenario is not Scenario.REQUEST:
            for number, room in enumerate(rooms):
                try:
                    await client.join_room(room)
                    if scenario is Scenario.FANOUT:
                        await client.send_message(EVENT, None, room=room)
                    break
                except PermissionDenied:
                    if number == len(rooms) - 1:
                        raise
        return number
    except RealtimeError as error:
        raise _explain(error, target, tokens, client.user, rooms[0] if rooms else "") from None
    finally:
        await client.close()


def _explain(error: RealtimeError, target: Target, tokens: Tokens, user: dict[str, Any] | None, room: str) -> Failure:
    if isinstance(error, PermissionDenied) and error.resource:
        whose = "its own tokens" if tokens.are_minted else f"User {(user or {}).get('id')}"
        may = {"read": "join", "write": "publish to"}.get(error.action, "use")
        allow = f"allow it in the server's authorization.permissions, for example {PERMISSION}, or name a room that may be used (--room)"
        return Failure(f"With {whose} bench may not {may} {room}: {allow}.", ExitCode.PERMISSION)
    failure = target.explain(error, user, room)
    if failure.code is ExitCode.TOKEN and tokens.are_minted:
        where = name_server(target.url)
        message = f"{where} did not accept a token that was made with {target.token_from}: it is not that of this server. Give a token (--token)."
        return Failure(message, ExitCode.TOKEN)
    return failure
