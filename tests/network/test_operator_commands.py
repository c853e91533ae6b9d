"""`rooms`, `connections`, `history` and `top` against a real server, as operators have them."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from aibos_realtime.cli.exits import ExitCode
from tests.network.processes import Process, Server, run

SECRET = "only-for-the-tests-of-the-command-line"
APP = f"""
from fastapi import FastAPI
from aibos_realtime import RealtimeServer
server = RealtimeServer(host="127.0.0.1", port=1, authentication={{"jwt_secret": "{SECRET}"}}, persistence={{"database": {{"url": "memory://"}}}})
app = FastAPI(lifespan=server.lifespan)
app.mount("/realtime", server.asgi())
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a demo that runs, with somebody who listens."""
    folder = tmp_path_factory.mktemp("demo")
    with Server(folder, "--demo", "--port", "0") as server:
        server.wait_for("Ctrl-C")
        with Process(folder, "listen", "tenant_demo") as listener:
            listener.wait_for("listening to tenant_demo")
            yield folder


def test_rooms(demo: Path) -> None:
    done = run(demo, "rooms")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].split()[0] == "tenant_demo"
    done = run(demo, "rooms", "tenant_demo", "--json")
    found = json.loads(done.stdout)
    assert found["room"]["connectionCount"] == 1 and found["room"]["position"]["offset"] >= 3
    assert [one["userId"] for one in found["members"]] == ["demo"]
    shown = run(demo, "rooms", "tenant_demo").stdout
    assert "position     offset " in shown and shown.splitlines()[-1].startswith("demo  ")


@pytest.mark.parametrize("room", ["nosuch", "a/b", "a:b/c"])
def test_a_room_that_is_not_there(demo: Path, room: str) -> None:
    done = run(demo, "rooms", room)
    assert done.returncode == ExitCode.REFUSED and done.stdout == "" and "no HTTP API" not in done.stderr
    assert run(demo, "history", room).stdout == "There are no events.\n"


def test_history(demo: Path) -> None:
    every = [json.loads(line) for line in run(demo, "history", "tenant_demo", "--json").stdout.splitlines()]
    assert [(one["offset"], one["event"]) for one in every[:2]] == [(1, "invoice.created"), (2, "bill.updated")]
    listened = run(demo, "listen", "tenant_demo", "--rewind", "100", "--count", "1", "--json")
    assert json.loads(listened.stdout) == every[0]
    epoch = every[0]["epoch"]
    for position in ("1", f"{epoch}:1"):
        done = run(demo, "history", "tenant_demo", "--after", position, "--limit", "1", "--json")
        assert json.loads(done.stdout) == every[1]
    done = run(demo, "history", "tenant_demo", "--after", f"{epoch}:99999")
    assert done.returncode == ExitCode.REFUSED and done.stderr.startswith("aibos-realtime: ")


def test_connections_and_the_end_of_one(demo: Path) -> None:
    with Process(demo, "listen", "tenant_demo", "--presence") as listener:
        listener.wait_for("listening to tenant_demo")
        page = json.loads(run(demo, "connections", "--user", "demo", "--room", "tenant_demo", "--json").stdout)
        assert page["matching"] == 2 and {one["state"] for one in page["connections"]} == {"open"}
        newest = page["connections"][0]["id"]
        assert newest in run(demo, "connections", "--search", newest).stdout
        life = run(demo, "connections", newest)
        assert life.returncode == 0 and "rooms       " in life.stdout and "connect" in life.stdout
        done = run(demo, "connections", newest, "--disconnect")
        assert (done.returncode, done.stdout) == (0, "closed: 1\n")
        assert listener.end(None) != 0, "the code tells it to stay away"
    shown = run(demo, "connections", newest).stdout
    assert "state       gone" in shown and "disconnect" in shown
    done = run(demo, "connections", newest, "--disconnect")
    assert done.returncode == ExitCode.REFUSED and f"There is no connection {newest}" in done.stderr


def test_top(demo: Path) -> None:
    done = run(demo, "top", "--once")
    assert done.returncode == 0 and "nodes 1" in done.stdout and "tenant_demo" in done.stdout and "connect" in done.stdout
    with Process(demo, "top", "--json") as process:
        process.wait_for('"totals"', 2)
        found = json.loads(process.lines[-1])
        assert found["nodes"][0]["state"] == "ok" and found["rooms"][0]["id"] == "tenant_demo"
        assert process.end(signal.SIGINT) == 0 and process.error_lines == []


def test_top_goes_on_over_a_restart(tmp_path: Path) -> None:
    with Server(tmp_path, "--demo", "--port", "0") as server:
        port = server.url.rpartition(":")[2].partition("/")[0]
        process = Process(tmp_path, "top", "--json")
        process.wait_for('"totals"')
        server.end()
    with process:
        process.wait_for('"error"')
        with Server(tmp_path, "--demo", "--port", port):
            process.wait_for('"totals"', sum('"totals"' in line for line in process.lines) + 1)
        assert process.end() == 0 and process.error_lines == []


class TestOfAServerWithoutADemo:
    def test_keys_and_roles(self, tmp_path: Path) -> None:
        made = run(tmp_path, "token", "--api-key")
        key, hashed = made.stdout.strip(), made.stderr.partition("REALTIME_API_KEYS=")[2].split()[0]
        given = {"JWT_SECRET": SECRET, "DATABASE_URL": "memory://", "REALTIME_API_KEYS": hashed}
        with Server(tmp_path, "--host", "127.0.0.1", "--port", "0", **given) as server:

            def rooms(**variables: str) -> tuple[int, str]:
                done = run(tmp_path, "rooms", REALTIME_URL=server.url, **variables)
                return done.returncode, done.stdout + done.stderr

            def token(role: str) -> str:
                return run(tmp_path, "token", "--user", "ann", "--role", role, JWT_SECRET=SECRET).stdout.strip()

            assert rooms(REALTIME_API_KEY=key) == (0, "There are no rooms.\n")
            assert rooms(REALTIME_TOKEN=token("operator")) == (0, "There are no rooms.\n")
            code, said = rooms(REALTIME_API_KEY="rk_another-key-that-nobody-gave-to-the-server")
            assert code == ExitCode.TOKEN and "Is REALTIME_API_KEY whole" in said
            code, said = rooms(REALTIME_TOKEN="a.b.c")
            assert code == ExitCode.TOKEN and "Is it whole, and made with the secret of this server?" in said
            done = run(tmp_path, "connections", REALTIME_URL=server.url, REALTIME_TOKEN=token("user"))
            assert done.returncode == ExitCode.PERMISSION and "Use a token with a role of http.operator_roles" in done.stderr
            assert key not in server.output and hashed not in server.output

    def test_mounted_under_a_path(self, tmp_path: Path) -> None:
        (tmp_path / "ours.py").write_text(APP)
        token = run(tmp_path, "token", "--user", "ann", "--role", "operator", JWT_SECRET=SECRET).stdout.strip()
        with Server(tmp_path, "ours:app", "--port", "0") as server:
            for url in (f"{server.url}/realtime/ws", f"{server.url.replace('ws', 'http', 1)}/realtime"):
                done = run(tmp_path, "rooms", REALTIME_URL=url, REALTIME_TOKEN=token)
                assert (done.returncode, done.stdout) == (0, "There are no rooms.\n"), done.stderr
            done = run(tmp_path, "rooms", REALTIME_URL=server.url, REALTIME_TOKEN=token)
            assert done.returncode == ExitCode.NO_SERVER and "There is no HTTP API at http://" in done.stderr

    def test_over_tls(self, tmp_path: Path) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
        (tmp_path / "realtime.toml").write_text('host = "127.0.0.1"\nport = 0\n[tls]\ncertificate = "server.pem"\n')
        token = run(tmp_path, "token", "--user", "ann", "--role", "operator", JWT_SECRET=SECRET).stdout.strip()
        with Server(tmp_path, "--config", "realtime.toml", JWT_SECRET=SECRET, DATABASE_URL="memory://") as server:
            given = {"REALTIME_URL": server.url, "REALTIME_TOKEN": token}
            done = run(tmp_path, "rooms", **given, SSL_CERT_FILE="ca.pem")
            assert (done.returncode, done.stdout) == (0, "There are no rooms.\n"), done.stderr
            done = run(tmp_path, "rooms", **given)
            assert done.returncode == ExitCode.NO_SERVER and "is not trusted: name the file of its authority in SSL_CERT_FILE." in done.stderr
            done = run(tmp_path, "rooms", REALTIME_URL=server.url.replace("wss", "ws"), REALTIME_TOKEN=token)
            assert done.returncode == ExitCode.NO_SERVER and "Traceback" not in done.stderr
