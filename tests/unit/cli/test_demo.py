"""`serve --demo` before it listens: loopback alone, no configuration, and what it says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from aibos_realtime.cli.demo import EXAMPLES, Demo, check_loopback
from aibos_realtime.cli.exits import ExitCode, Failure
from aibos_realtime.cli.folder import DEMO_ROOM, DemoFolder

from .conftest import Command


@pytest.mark.parametrize(("given", "bound"), [(None, "127.0.0.1"), ("localhost", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("::1", "::1")])
def test_loopback_is_bound(given: str | None, bound: str) -> None:
    assert check_loopback(given) == bound


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "db.internal", "127.0.0.1.example.com"])
def test_any_other_host_is_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failure, match=f"--host is {host}, and the demo listens on this machine alone: leave it away") as failed:
        check_loopback(host)
    assert failed.value.code is ExitCode.USAGE
    monkeypatch.setenv("REALTIME_HOST", host)
    with pytest.raises(Failure, match=f"REALTIME_HOST is {host}"):
        check_loopback(None)


@pytest.mark.parametrize("words", [["ours:server"], ["--config", "realtime.toml"], ["--env-file", ".env"]])
def test_the_demo_takes_no_configuration(command: Command, words: list[str]) -> None:
    ended = command("serve", "--demo", *words)
    assert ended.code == 2 and "--demo runs without configuration: leave " in ended.err


def test_the_configuration_of_the_folder_is_not_the_demos(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("JWT_SECRET=your_jwt_secret\nENABLE_SCALING=true\nREALTIME_HOST=0.0.0.0\n")
    monkeypatch.setenv("JWT_SECRET", "your_jwt_secret")
    monkeypatch.setenv("REALTIME_PORT", "3112")
    demo = Demo(host=None, port=None)
    assert (demo.server.config.host, demo.server.config.port) == ("127.0.0.1", 3112)


def test_a_demo_that_did_not_start_forgets_nothing_of_the_one_that_runs() -> None:
    Demo(host=None, port=3001)
    DemoFolder().write_url("ws://127.0.0.1:3001")
    Demo(host=None, port=3001).end()
    assert DemoFolder().url() == "ws://127.0.0.1:3001"


def test_the_commands_are_short_and_hold_no_token() -> None:
    demo = Demo(host=None, port=3001)
    facts = demo.facts()
    assert shlex.split(facts["listen"]) == ["aibos-realtime", "listen", DEMO_ROOM]
    data = '{"invoiceId": "inv_001", "amount": 1000, "currency": "USD"}'
    assert shlex.split(facts["publish"]) == ["aibos-realtime", "publish", DEMO_ROOM, "invoice.created", data]
    assert demo.server.auth.identify_now(facts["token"]) is not None
    assert [name for name, fact in facts.items() if facts["token"] in fact] == ["token"]


async def test_the_room_holds_the_examples() -> None:
    demo = Demo(host=None, port=0)
    async with demo.server as server:
        await demo.begin()
        assert DemoFolder().url() == server.url
        page = await server.broker.read_before(DEMO_ROOM, None, 10)
        assert [event.event for event in page.events] == [event for event, _ in EXAMPLES]
    demo.end()
    assert DemoFolder().url() is None


async def test_the_demo_of_yesterday_is_still_there() -> None:
    positions = []
    for _ in range(2):
        demo = Demo(host=None, port=0)
        async with demo.server as server:
            await demo.begin()
            positions.append(await server.broker.position(DEMO_ROOM))
        demo.end()
    assert positions[0] == positions[1] and positions[0].offset == len(EXAMPLES)


def test_the_banner_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    demo = Demo(host=None, port=3001)
    demo.print_banner()
    shown = capsys.readouterr().out
    facts = demo.facts()
    for name in ("url", "listen", "publish", "byHand", "watch", "health"):
        assert facts[name] in shown
    assert "Ctrl-C" in shown and "one hour" in shown and "\x1b" not in shown
    assert str(DemoFolder().secret()) not in shown


def test_the_banner_lets_an_operator_in(capsys: pytest.CaptureFixture[str]) -> None:
    demo = Demo(host=None, port=3001)
    facts = demo.facts()
    assert facts["dashboard"] == "http://127.0.0.1:3001/dashboard/"
    identity = demo.server.auth.identify_now(facts["operatorToken"])
    assert identity is not None and identity.user.role in demo.server.config.http.operator_roles and identity.user.tenant_id is None
    demo.print_banner()
    assert f"{facts['dashboard']}#token=ey" in capsys.readouterr().out
