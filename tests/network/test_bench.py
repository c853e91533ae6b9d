"""`aibos-realtime bench` as its users have it: against a real server, over real sockets, on a terminal and without one."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.network.processes import Process, Server, run
from tests.unit.cli.terminal import Terminal

SECRET = "only-for-the-tests-of-the-command-line"
OTHER = "another-secret-of-more-than-thirty-two-bytes"

CONFIG = """
[authorization.permissions]
"bench:*" = ["read", "write"]
"tenant_{tenant_id}" = ["read", "write"]

[limits]
handshakes_per_second = 5000
handshakes_per_second_per_address = 5000
connections_per_address = 5000
publishes_per_second = 50

[persistence.database]
url = "memory://"

[rooms.patterns."bench:*"]
max_users = 5000
ephemeral = true
"""

HANDLER = f"""
from aibos_realtime import RealtimeServer
server = RealtimeServer(
    host="127.0.0.1", port=0, authentication={{"jwt_secret": "{SECRET}"}}, persistence={{"database": {{"url": "memory://"}}}},
    limits={{"messages_per_second": 1000}},
)

@server.event("invoice.approve")
async def approve(socket, data):
    return {{"approved": data["id"]}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One whose limits leave room, in a folder of its own."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "realtime.toml").write_text(CONFIG)
    with Server(folder, "--config", "realtime.toml", "--host", "127.0.0.1", "--port", "0", JWT_SECRET=SECRET) as process:
        yield process
        assert not [line for line in process.error_lines if "ERROR" in line or "WARNING" in line]


def bench(folder: Path, url: str, *arguments: str, secret: str = SECRET, **variables: str) -> tuple[int, Any, str]:
    """Exit code, the result, stderr."""
    done = run(folder, "bench", *arguments, "--json", "--url", url, JWT_SECRET=secret, **variables)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


class TestScenarios:
    @pytest.mark.parametrize("codec", ["json", "msgpack"])
    def test_fanout(self, server: Server, tmp_path: Path, codec: str) -> None:
        words = ("--clients", "40", "--rooms", "4", "--rate", "100", "--duration", "2.5", "--processes", "2", "--codec", codec)
        code, result, err = bench(tmp_path, server.url, *words)
        assert code == 0, err
        assert result["clients"]["opened"] == result["clients"]["present"] == 40 and result["opening"]["count"] == 40
        assert result["messages"]["sent"] == result["messages"]["answered"] == 250 and 80 < result["messages"]["rate"] < 105
        found = result["deliveries"]
        assert found["count"] == found["expected"] == 2500 and found["lost"] == found["doubled"] == found["reordered"] == found["altered"] == 0
        assert 0 < result["delivery"]["p50"] <= result["delivery"]["p99"] <= result["delivery"]["max"] < 2
        assert result["settings"]["tokens"] == "minted" and [one["clients"] for one in result["load"]] == [20, 20]
        [node] = result["servers"]
        assert 0 < node["cpu"] < 1.5 and node["connections"] == 40 and 0 < node["deliveries"] <= 2500

    def test_as_fast_as_acknowledged(self, server: Server, tmp_path: Path) -> None:
        code, result, err = bench(tmp_path, server.url, "--clients", "10", "--publishers", "2", "--rate", "0", "--duration", "1")
        assert result["deliveries"]["lost"] == 0 and result["messages"]["sent"] > 20
        assert (code, result["messages"]["errors"]) == (0, {}) or (code == 8 and "limits.messages_per_second" in " ".join(result["advice"])), err

    def test_connect(self, server: Server, tmp_path: Path) -> None:
        code, result, _ = bench(tmp_path, server.url, "connect", "--clients", "100", "--rate", "200", "--processes", "2")
        assert code == 0 and result["clients"]["opened"] == result["opening"]["count"] == result["late"]["count"] == 100
        assert result["clients"]["openingSeconds"] >= 0.49

    def test_request(self, server: Server, tmp_path: Path) -> None:
        code, result, _ = bench(tmp_path, server.url, "request", "--clients", "20", "--rate", "200", "--duration", "1")
        assert code == 0 and result["messages"]["answered"] == result["answer"]["count"] == 200

    def test_idle(self, server: Server, tmp_path: Path) -> None:
        code, result, _ = bench(tmp_path, server.url, "idle", "--clients", "50", "--duration", "1")
        assert code == 0 and result["clients"] == {
            "opened": 50, "present": 50, "openingSeconds": result["clients"]["openingSeconds"], "reconnects": 0, "refusals": {}, "closes": {}
        }  # fmt: skip

    def test_a_handler_of_the_users_own(self, tmp_path: Path) -> None:
        (tmp_path / "ours.py").write_text(HANDLER)
        with Server(tmp_path, "ours:server") as process:
            words = ("request", "--clients", "5", "--duration", "0.5", "--rate", "50", "--event")
            code, result, err = bench(tmp_path, process.url, *words, "invoice.approve", "--data", '{"id": 1}')
            assert code == 0 and result["messages"]["answered"] == 25, err
            code, result, err = bench(tmp_path, process.url, *words, "invoice.reject")
            assert (code, result) == (8, None) and "Nothing on the server handles this event" in err

    def test_over_tls(self, tmp_path: Path) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
        (tmp_path / "realtime.toml").write_text(CONFIG + '\n[tls]\ncertificate = "server.pem"\n')
        words = ("--config", "realtime.toml", "--host", "127.0.0.1", "--port", "0")
        with Server(tmp_path, *words, JWT_SECRET=SECRET) as process:
            url = re.sub(r"//[^:]+:", "//localhost:", process.url)
            load = ("--clients", "10", "--duration", "0.5", "--rate", "20")
            code, result, err = bench(tmp_path, url, *load, SSL_CERT_FILE=str(tmp_path / "ca.pem"))
            assert url.startswith("wss:") and code == 0 and result["deliveries"]["count"] == 100, err
            code, _, err = bench(tmp_path, url, *load)
            assert code == 5 and "certificate" in err


class TestDemo:
    def test_in_the_folder_of_a_demo_it_just_works(self, tmp_path: Path) -> None:
        with Server(tmp_path, "--demo", "--port", "0"):
            done = run(tmp_path, "bench", "--clients", "30", "--duration", "1", "--save", "result.json")
        assert done.returncode == 0, done.stderr
        result = json.loads((tmp_path / "result.json").read_text())
        assert result["settings"]["firstRoom"] == f"tenant_bench-{result['run']}-0", "the rooms that users of a tenant may use"
        assert result["deliveries"]["count"] == result["deliveries"]["expected"] == 3000 and result["deliveries"]["lost"] == 0
        assert re.search(r"^delivered +3,000 of 3,000 \(", done.stdout, re.MULTILINE) and "lost 0  doubled 0  reordered 0  altered 0" in done.stdout

    def test_the_limits_of_a_server_are_named(self, tmp_path: Path) -> None:
        with Server(tmp_path, "--demo", "--port", "0"):
            done = run(tmp_path, "bench", "--clients", "3", "--publishers", "1", "--rate", "400", "--duration", "1")
        assert done.returncode == 8 and "limits.publishes_per_second" in done.stdout and "limits.messages_per_second" in done.stdout
        assert "errors" in done.stdout and "rate_limited" in done.stdout and "lost 0  doubled 0" in done.stdout


class TestMistakes:
    @pytest.mark.parametrize(
        ("words", "secret", "code", "says"),
        [
            (
                ["--room", "elsewhere"],
                SECRET,
                7,
                "With its own tokens bench may not join elsewhere: allow it in the server's authorization.permissions",
            ),
            ([], OTHER, 6, "did not accept a token that was made with the secret that is configured here"),
            (["--token", "abc"], SECRET, 6, "did not accept the token (401)"),
        ],
    )
    def test_before_it_begins(self, server: Server, tmp_path: Path, words: list[str], secret: str, code: int, says: str) -> None:
        found, result, err = bench(tmp_path, server.url, "--clients", "5", *words, secret=secret)
        assert (found, result) == (code, None) and says in err and "Traceback" not in err and SECRET not in err

    def test_one_token_for_many_is_one_user(self, server: Server, tmp_path: Path) -> None:
        token = run(tmp_path, "token", "--user", "user_1", JWT_SECRET=SECRET).stdout.strip()
        code, result, err = bench(tmp_path, server.url, "--clients", "30", "--token", token)
        assert code == 8 and "20 of 30 clients were let in" in err and "limits.connections_per_user" in err and token not in err
        assert "4504" in result["problem"]


class TestEndingEarly:
    def test_ctrl_c_shows_what_there_is(self, server: Server, tmp_path: Path) -> None:
        words = ("bench", "--clients", "20", "--rate", "100", "--duration", "600", "--url", server.url)
        with Terminal(tmp_path, *words, columns=120, JWT_SECRET=SECRET) as terminal:
            terminal.wait_for("running")
            terminal.wait_for("delivered/s", 4)
            code, shown = terminal.end(signal.SIGINT)
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
        assert code == 130 and "interrupted after " in plain and re.search(r"judged +lost 0  doubled 0  reordered 0  altered 0", plain)

    def test_a_server_that_goes_away_is_seen(self, tmp_path: Path) -> None:
        (tmp_path / "realtime.toml").write_text(CONFIG)
        words = ("--config", "realtime.toml", "--host", "127.0.0.1", "--port", "0")
        with Server(tmp_path, *words, JWT_SECRET=SECRET) as process:
            load = ("bench", "--clients", "10", "--rate", "50", "--duration", "600", "--json", "--url", process.url)
            with Process(tmp_path, *load, JWT_SECRET=SECRET) as running:
                running.wait_for("running")
                process.end(signal.SIGKILL)
                begun = time.monotonic()
                running.wait_for("failed 10")
                code = running.end(signal.SIGINT)
        result = json.loads(running.lines[-1])
        assert code == 130 and result["clients"]["closes"] == {"1006": 10} and result["deliveries"]["lost"] == 0
        assert result["messages"]["unsent"] > 0 and time.monotonic() - begun < 15
