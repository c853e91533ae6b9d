"""The tables of docs/reference/ against the code: what the code has and a table has not, or says otherwise, fails here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

import aibos_realtime
from aibos_realtime import errors
from aibos_realtime.cli.exits import ExitCode
from aibos_realtime.client.options import ClientOptions
from aibos_realtime.cluster.balancing import LoadBalancerOptions
from aibos_realtime.cluster.instances import InstanceOptions
from aibos_realtime.config import VARIABLES, RealtimeConfig
from aibos_realtime.hub.monitor import ConnectionMetrics, MonitorOptions
from aibos_realtime.hub.room import RoomSettings
from aibos_realtime.hub.rooms import RoomPattern
from aibos_realtime.protocol.close_codes import REASONS, CloseCode, is_reconnectable
from aibos_realtime.protocol.messages import RESERVED
from aibos_realtime.storage.queue import QueueOptions

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text()


def section(name: str, heading: str) -> str:
    """The text below a heading, up to the next one of its kind or above."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)", page(name), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{name}.md has no section {heading!r}"
    return found[2]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, without headers and rules."""
    lines = [line for line in text.splitlines() if line.startswith("| `") or re.match(r"\| \d", line)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def shown(value: Any) -> str:
    """A default as the tables write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{int(value)}" if value == int(value) else f"{value:g}"
    if isinstance(value, str):
        return f"`{value}`"
    if isinstance(value, tuple | list):
        return ", ".join(shown(one) for one in value) or "none"
    return "none" if value == {} else repr(value)


def defaults(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, str]]:
    """Dotted name and default of every option of a model, and of the models in it."""
    for name, field in model.model_fields.items():
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if kinds and get_origin(field.annotation) is not dict:
            yield from defaults(kinds[0], f"{path}{name}.")
        else:
            yield f"{path}{name}", "required" if field.is_required() else shown(field.get_default(call_default_factory=True))


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("Server", RealtimeConfig),
        ("Patterns of rooms", RoomPattern),
        ("One queue", QueueOptions),
        ("Client", ClientOptions),
        ("Monitor", MonitorOptions),
        ("Load balancer", LoadBalancerOptions),
        ("Instance", InstanceOptions),
    ],
)
def test_every_option_is_listed_with_its_default(heading: str, model: type[BaseModel]) -> None:
    listed = [(cells[0].strip("`"), cells[1]) for cells in rows(section("options", heading))]
    assert listed == list(defaults(model))


def test_the_settings_of_a_room_are_listed_with_their_defaults() -> None:
    listed = [(cells[0].strip("`"), cells[1]) for cells in rows(section("options", "Settings of one room"))]
    fields = zip(RoomSettings.__struct_fields__, RoomSettings.__struct_defaults__, strict=True)
    assert listed == [(name, shown(value)) for name, value in fields]


def test_every_variable_is_listed() -> None:
    listed = {cells[0].strip("`"): cells[1].strip("`") for cells in rows(section("environment", "Configuration of a server"))}
    assert listed == VARIABLES


def tree(cls: type[errors.RealtimeError] = errors.RealtimeError) -> Iterator[type[errors.RealtimeError]]:
    yield cls
    for sub in cls.__subclasses__():
        if sub.__module__ == errors.__name__:
            yield from tree(sub)


def test_every_error_is_listed_with_its_code() -> None:
    listed = {cells[0].strip("`"): (cells[1].strip("`"), cells[2].strip("`"), cells[3]) for cells in rows(section("errors", "Errors in Python"))}
    found = {cls.__name__: (_base(cls), cls.code, "yes" if cls.retryable else "no") for cls in tree()}
    assert listed == found
    assert {name for name in listed if name not in aibos_realtime.__all__} == set()


def _base(cls: type[errors.RealtimeError]) -> str:
    return next(base.__name__ for base in cls.__mro__[1:] if base.__module__ == errors.__name__ or base is Exception)


def test_every_code_of_the_wire_is_one_of_an_error() -> None:
    listed = {cells[0].strip("`"): cells[1] for cells in rows(section("errors", "Codes on the wire"))}
    local = {"configuration"}  # never sent: it is about the server's own code, so its peer sees `internal`
    assert set(listed) == {cls.code for cls in tree()} - local
    by_code = {cls.code: cls.retryable for cls in tree() if cls is not errors.QueueError and cls is not errors.RealtimeError}
    assert {code: found == "yes" for code, found in listed.items() if code != "internal"} == {
        code: found for code, found in by_code.items() if code not in local
    }


def test_every_close_code_is_listed_and_in_its_range() -> None:
    listed = {int(cells[0]): cells for cells in rows(section("errors", "Close codes"))}
    assert set(listed) == set(CloseCode) - {CloseCode.NO_STATUS, CloseCode.ABNORMAL}
    for code, cells in listed.items():
        assert cells[1] == REASONS[code].split(":")[0] or cells[1] == "normal"
        assert cells[2] == ("reconnect" if is_reconnectable(code) else "stop")


def test_every_exit_code_is_listed() -> None:
    assert [int(cells[0]) for cells in rows(section("command-line", "Exit codes"))] == [int(code) for code in ExitCode]


def test_every_command_and_option_is_listed() -> None:
    from typer.main import get_command

    from aibos_realtime.cli.app import app

    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    assert re.findall(r"^## `(\w+)", page("command-line"), re.MULTILINE) == list(commands)
    for name, command in commands.items():
        text = re.search(rf"^## `{name}.*?(?=^## |\Z)", page("command-line"), re.MULTILINE | re.DOTALL)
        assert text is not None
        listed = {option for cells in rows(text[0]) for option in re.findall(r"`(--[\w-]+)", cells[0])}
        assert listed == {option for one in command.params for option in one.opts if option.startswith("--")}, name


def test_every_public_name_is_described() -> None:
    described = set(re.findall(r"`(?:await )?(\w+)", page("api") + page("errors")))
    assert set(aibos_realtime.__all__) - described == set()


def test_every_metric_is_listed() -> None:
    listed = [cells[0].strip("`") for cells in rows(section("api", "Connections"))]
    assert [name for name in listed if name in ConnectionMetrics.__struct_fields__] == list(ConnectionMetrics.__struct_fields__)


def test_every_reserved_name_is_listed() -> None:
    assert set(re.findall(r"`([^`]+)`", section("protocol", "Reserved names"))) == RESERVED
