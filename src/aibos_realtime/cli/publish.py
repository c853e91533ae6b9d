"""`aibos-realtime publish`: one event into a room, and the receipt for it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from ..errors import ConnectionError, ProtocolError, RealtimeError, RequestTimeout
from .exits import ExitCode, Failure
from .output import escape_controls, out
from .target import Target, TokenOption, UrlOption, connect_once, find_target


def publish(
    room: Annotated[str, typer.Argument(metavar="ROOM", help="The room, for example tenant_123.", show_default=False)],
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The event's name, for example invoice.created.", show_default=False)],
    data: Annotated[str, typer.Argument(metavar="JSON", help="The data as JSON; - reads it from stdin, @FILE from a file.", show_default=False)],
    id: Annotated[str | None, typer.Option(help="Repeating a publish with the same id within 5 minutes publishes once.", metavar="ID")] = None,
    url: UrlOption = None,
    token: TokenOption = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for all of it.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the receipt as JSON.")] = False,
) -> None:
    """Publish an event to a room, and print its receipt.

    \b
    aibos-realtime publish tenant_123 invoice.created '{"invoiceId": "inv_001", "amount": 1000}'
    """
    check_names(("room", room), ("event", event))
    content = read_data(data)
    target = find_target(url, token)
    receipt = asyncio.run(_publish(target, room, event, content, id or uuid4().hex, timeout))
    if as_json:
        out.json(receipt)
        return
    verb = "published before:" if receipt["duplicate"] else "published"
    out.line(f"{verb} ", (event, "bold green"), " to ", (room, "cyan"), f", offset {receipt['offset']}", (f"  id {receipt['id']}", "dim"))


async def _publish(target: Target, room: str, event: str, data: Any, id: str, timeout: float) -> dict[str, Any]:
    client = target.client(reconnect=False, connect_timeout=timeout)
    deadline = time.monotonic() + timeout
    is_sent = False
    try:
        await connect_once(client)
        is_sent = True
        receipt = await client.send_message(event, data, room=room, id=id, timeout=max(0.1, deadline - time.monotonic()))
    except RealtimeError as error:
        failure = target.explain(error, client.user, room)
        if is_sent and isinstance(error, ConnectionError | RequestTimeout):
            again = f"Whether it was published is unknown: repeat it with --id {id}, then it is published once."
            raise Failure(f"{failure} {again}", ExitCode.NO_ANSWER) from None
        raise failure from None
    finally:
        await client.close()
    position = receipt.position
    return {"id": receipt.id, "room": room, "epoch": position.epoch, "offset": position.offset, "duplicate": receipt.duplicate}


def check_names(*names: tuple[str, str]) -> None:
    """Raise `Failure` for a (kind, name) that no server would take."""
    from ..protocol.limits import check_name, is_own_stream
    from ..protocol.messages import RESERVED

    for kind, name in names:
        try:
            if not (kind == "room" and is_own_stream(name)):
                check_name(kind, name)
        except ProtocolError as error:
            raise Failure(f"{escape_controls(name)[:140]!r}: {error}", ExitCode.NAME) from None
        if kind == "event" and name in RESERVED:
            raise Failure(f"{name!r} has a meaning of its own in the protocol: choose another event name.", ExitCode.NAME)


def read_data(given: str) -> Any:
    """The value that JSON, `-` or `@FILE` stands for. Raises `Failure`, which says where the JSON is wrong and shows none of it."""
    source, text = "The data", given
    try:
        if given == "-":
            source, text = "stdin", sys.stdin.read()
        elif given.startswith("@"):
            source = given[1:]
            text = Path(source).read_text()
    except OSError as error:
        raise Failure(f"{source} cannot be read: {error.strerror}.", ExitCode.DATA) from None
    except UnicodeDecodeError:
        raise Failure(f"{source} is not UTF-8 text.", ExitCode.DATA) from None
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        hint = "" if source != "The data" else """ Put it in single quotes: '{"amount": 1000}', or read it from a file: @data.json."""
        place = f"line {error.lineno}, column {error.colno}: {error.msg}" if text.strip() else "there is nothing"
        raise Failure(f"{source} is not JSON ({place}).{hint}", ExitCode.DATA) from None
    except (ValueError, RecursionError):
        raise Failure(f"{source} is not JSON: NaN, Infinity, and thousands of levels or digits are not allowed.", ExitCode.DATA) from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)
