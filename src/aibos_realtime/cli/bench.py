"""`aibos-realtime bench`: clients by the thousand against a server, and what they saw: deliveries a second, latencies, and whether anything was lost.

The clients are in processes of their own (`load.process`); this one plans, shows and sums up.
"""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import signal
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..load.plan import Scenario
from .exits import ExitCode, Failure
from .output import out, to_json
from .target import TokenOption, UrlOption

if TYPE_CHECKING:
    from ..load.crew import Result
    from ..load.layout import Layout
    from ..load.plan import Place, Plan
    from .bench_report import Settings
    from .bench_target import Tokens
    from .target import Target

RATE = 10.0
"""A second, of each that sends: what a server allows one connection unless it is told otherwise."""
PUBLISHERS = 10
DURATION = 10.0
PING = "ping"
SPARE_DESCRIPTORS = 32
"""Open files of a load process beside its connections."""
OF_ONE_PROCESS = 2000
"""Clients for which there is one process, as far as there are cores."""
SPARE_SECONDS = 600.0
"""For which minted tokens hold longer than the run."""


class Codec(StrEnum):
    """How messages are written down."""

    JSON = "json"
    MSGPACK = "msgpack"


def bench(
    scenario: Annotated[Scenario, typer.Argument(help="What is measured.")] = Scenario.FANOUT,
    clients: Annotated[int, typer.Option(min=1, max=1_000_000, help="Connections.", metavar="N")] = 100,
    rooms: Annotated[int | None, typer.Option(min=1, max=100_000, help="Rooms that they join.  [default: 1]", metavar="N")] = None,
    members: Annotated[int | None, typer.Option(min=1, help="Of each room.  [default: clients / rooms]", metavar="N")] = None,
    publishers: Annotated[
        int | None, typer.Option(min=1, help="fanout: clients that publish.  [default: one a room, 10 at least]", metavar="N")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0, help="A second, all together; 0: as fast as answered.  [default: 10 for each that sends; connect: 0]", metavar="N"),
    ] = None,
    payload: Annotated[int, typer.Option(min=64, max=1_000_000, help="Of an event or a request.", metavar="BYTES")] = 150,
    duration: Annotated[
        float | None,
        typer.Option(min=0.1, help="For how long it sends.  [default: 10; connect: 10 more than the rate takes]", metavar="SECONDS"),
    ] = None,
    event: Annotated[str, typer.Option(help="request: an event that the server has a handler for.")] = PING,
    data: Annotated[str | None, typer.Option(help="request: its data; - reads it from stdin, @FILE from a file.", metavar="JSON")] = None,
    room: Annotated[
        list[str] | None, typer.Option(help="A room in place of new ones. Repeatable.  [default: bench:RUN:NUMBER]", metavar="ROOM")
    ] = None,
    codec: Annotated[Codec, typer.Option(help="How messages are written down.")] = Codec.JSON,
    processes: Annotated[int | None, typer.Option(min=1, max=256, help="Load processes.  [default: by clients and cores]", metavar="N")] = None,
    url: UrlOption = None,
    token: TokenOption = None,
    secret_file: Annotated[Path | None, typer.Option(help="File that holds the server's secret, to mint tokens.", metavar="FILE")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of the server (for its secret).", metavar="FILE")] = None,
    env_file: Annotated[Path | None, typer.Option(help="File of variables.  [default: .env]", metavar="FILE")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the result there as JSON, too.", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Load a server, and measure what its clients see.

    Each client has a connection, and a token of its own where the secret is known as for `token`. Members check that they get every event once and in
    order. Latencies count from the moment that a message was due, so a pause of the server cannot hide. Ctrl-C ends it early.

    \b
    fanout     publish to rooms: how many deliveries, how late, and whether any is lost
    connect    open connections: how fast they are let in
    request    ask for answers: how late they come
    idle       hold connections: which are lost

    \b
    aibos-realtime bench --clients 1000 --rooms 10 --rate 200
    aibos-realtime bench connect --clients 2000 --rate 100
    """
    from ..client.options import parse_url
    from ..load.connection import EVENT
    from .bench_report import Outcome, Settings, show_url
    from .bench_screen import print_outcome
    from .bench_server import ask_servers
    from .bench_target import find_server
    from .publish import check_names, read_data

    check_options(scenario, {"--rooms": rooms, "--members": members, "--publishers": publishers, "--room": room, "--data": data}, event)
    check_names(*(("room", name) for name in room or []), *([("event", event)] if event != PING else []))
    request = (event, None if data is None else read_data(data))
    layout = make_layout(scenario, clients, len(set(room)) if room else rooms or 1, members, publishers)
    pace = default_rate(scenario, layout.senders) if rate is None else rate
    seconds = find_duration(scenario, clients, pace, duration)
    count = min(processes or choose_processes(clients, os.cpu_count() or 1), clients)
    check_descriptors(-(-clients // count), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    if save is not None:
        _write(save, "")
    run = secrets.token_hex(3)
    target, tokens = find_server(run, seconds + SPARE_SECONDS, url, token, secret_file, config, env_file)
    names = list(dict.fromkeys(room or ())) or [f"bench:{run}:{number}" for number in range(layout.rooms)]
    settings = Settings(
        run, show_url(parse_url(target.url_from, target.url)), scenario, clients, names, layout.members, layout.senders,
        pace, payload, seconds, count, codec.value,
        event if scenario is Scenario.REQUEST else EVENT,
        "minted" if tokens.are_minted else "one",
    )  # fmt: skip
    settings, result = asyncio.run(_run(settings, layout, target, tokens, request, may_rename=not room))
    outcome = Outcome(settings, result)
    if result.sent_from is not None:
        outcome.nodes = ask_servers(target, tokens.of_operator(), result.began, (result.sent_from, result.sent_from + outcome.seconds))
    if save is not None:
        _write(save, to_json(outcome.to_wire()) + "\n")
    if as_json:
        out.json(outcome.to_wire())
    elif outcome.problem is None:
        print_outcome(outcome)
    if (failure := outcome.failure) is not None:
        raise failure


# — what is asked for —


def check_options(scenario: Scenario, given: Mapping[str, object], event: str) -> None:
    """Raise `Failure` for an option that another scenario has. `given`: by option, None where it was not."""
    wanted = {"--publishers": ("fanout",), "--data": ("request",)} | {
        name: ("fanout", "connect", "idle") for name in ("--rooms", "--members", "--room")
    }
    for option, value in given.items():
        if value and scenario not in wanted[option]:
            fitting = " and ".join(", ".join(wanted[option]).rsplit(", ", 1))
            raise Failure(f"{option} goes with {fitting}, not with {scenario}.", ExitCode.USAGE)
    if given["--rooms"] and given["--room"]:
        raise Failure("--room names the rooms, and so says how many: leave --rooms away.", ExitCode.USAGE)
    if event != PING and scenario is not Scenario.REQUEST:
        raise Failure(f"--event goes with request, not with {scenario}.", ExitCode.USAGE)


def make_layout(scenario: Scenario, clients: int, rooms: int, members: int | None, publishers: int | None) -> Layout:
    """Who is in which room, and who sends. Raises `Failure`."""
    from ..load.layout import Layout

    if scenario is Scenario.REQUEST:
        return Layout(clients, 0, 0, clients)
    for option, number in (("--members", members), ("--publishers", publishers)):
        if number is not None and number > clients:
            raise Failure(f"{option}: {number} were asked for, of {clients} clients: raise --clients.", ExitCode.USAGE)
    sending = (publishers or min(clients, max(rooms, PUBLISHERS))) if scenario is Scenario.FANOUT else 0
    return Layout(clients, rooms, max(1, clients // rooms) if members is None else members, sending)


def default_rate(scenario: Scenario, senders: int) -> float:
    """What is sent a second, unless it was said."""
    return RATE * senders if scenario in (Scenario.FANOUT, Scenario.REQUEST) else 0.0


def find_duration(scenario: Scenario, clients: int, rate: float, given: float | None) -> float:
    """Seconds. Raises `Failure` where not all clients would have their turn to open."""
    needed = clients / rate if scenario is Scenario.CONNECT and rate else 0.0
    if given is not None and given < needed:
        raise Failure(f"--duration: {clients:,} clients at {rate:g} a second need {needed:g} s, and {given:g} were given.", ExitCode.USAGE)
    return DURATION + needed if given is None else given


def choose_processes(clients: int, cores: int) -> int:
    """Half of the cores at most: the server may be on this machine, too."""
    return min(max(1, cores // 2), -(-clients // OF_ONE_PROCESS))


def check_descriptors(connections: int, hard: int) -> None:
    """Raise `Failure` where a process may not have so many open files. `hard`: the limit up to which it may raise its own."""
    needed = connections + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and needed > hard:
        message = f"{connections:,} connections need {needed:,} open files, and this user may have {hard:,} in each process: "
        raise Failure(f"{message}raise the limit (ulimit -Hn), or share the connections among more --processes.", ExitCode.USAGE)


def make_plans(settings: Settings, layout: Layout, tokens: Tokens, place: Place, data: Any, base: int) -> list[Plan]:
    """One for each process; clients are dealt out like cards."""
    from ..load.plan import ClientPlan, Plan

    numbers, memberships = layout.sender_numbers, layout.memberships
    clients = [
        ClientPlan(tokens.of(number, sends=number in numbers, room=settings.rooms[joined[0]] if joined else None), joined, numbers.get(number))
        for number, joined in enumerate(memberships)
    ]
    return [
        Plan(
            settings.scenario, place, settings.codec, clients[first :: settings.processes], settings.rooms, layout.senders, settings.rate,
            settings.payload, settings.duration, settings.event, settings.run, base, first, settings.processes, data,
        )
        for first in range(settings.processes)
    ]  # fmt: skip


# — the run —


async def _run(
    settings: Settings, layout: Layout, target: Target, tokens: Tokens, request: tuple[str, Any], *, may_rename: bool
) -> tuple[Settings, Result]:
    """Returned with the settings, in which the rooms have the names that they may have. Raises `Failure`."""
    from ..load.crew import Crew, ProcessEnded
    from .bench_screen import watching
    from .bench_target import choose_rooms, find_place

    place = await find_place(target)
    settings = await choose_rooms(settings, target, tokens, layout, request, may_rename=may_rename)
    plans = make_plans(settings, layout, tokens, place, request[1], time.monotonic_ns())
    with watching(settings) as watch:
        crew = Crew(plans, watch.show)
        running = asyncio.ensure_future(crew.run())
        loop = asyncio.get_running_loop()

        def stop() -> None:
            if crew.is_interrupted:
                running.cancel()
            crew.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        try:
            return settings, await running
        except ProcessEnded as ended:
            raise Failure(str(ended), ExitCode.FAILED) from None
        except asyncio.CancelledError:
            raise Failure("Ended at once, without a result.", ExitCode.INTERRUPTED) from None
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise Failure(f"--save: {path} cannot be written: {error.strerror}.", ExitCode.USAGE) from None
