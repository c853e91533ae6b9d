"""The command line as its users have it: real processes, real ports, what they print and how they end."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from aibos_realtime.cli.exits import ExitCode
from aibos_realtime.cli.logs import LISTENING
from tests.network.processes import DEADLINE, Process, Server, clean_environment, read_json, run

SECRET = "only-for-the-tests-of-the-command-line"
EVENT = '{"invoiceId": "inv_001", "amount": 1000, "currency": "USD"}'
TOKEN = re.compile(r"eyJ[\w-]{8,}")
LOOPBACK = ("--host", "127.0.0.1", "--port", "0")

OURS = f"""
import logging
from aibos_realtime import RealtimeServer
server = RealtimeServer(host="127.0.0.1", port=1, authentication={{"jwt_secret": "{SECRET}"}})

@server.event("invoice.approve")
async def approve(socket, data):
    logging.getLogger("ours").warning("approving")
    raise RuntimeError("inside")
"""
APP = (
    OURS
    + """
from fastapi import FastAPI
app = FastAPI(lifespan=server.lifespan)

@app.get("/invoices")
def invoices():
    return ["inv_001"]

app.mount("/realtime", server.asgi())
"""
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Process]]:
    """A demo that runs, and its folder."""
    folder = tmp_path_factory.mktemp("demo")
    with Server(folder, "--demo", "--port", "0") as process:
        process.wait_for("Ctrl-C")
        yield folder, process
        assert not TOKEN.search("\n".join(process.error_lines))


@pytest.fixture
def free_port() -> int:
    """A port below the range of outgoing connections, which nobody listens on."""
    for port in range(20_000 + os.getpid() % 5000, 32_000):
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


def token(folder: Path, *arguments: str) -> str:
    done = run(folder, "token", "--user", "user_1", "--tenant", "1", *arguments, JWT_SECRET=SECRET)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


class TestDemo:
    def test_the_printed_commands_work_as_they_are(self, demo: tuple[Path, Process]) -> None:
        folder, process = demo
        listen = process.wait_for(" listen tenant_demo").strip()
        publish = process.wait_for(" publish tenant_demo").strip()
        with Process(folder, shell=f"{listen} --count 1") as listener:
            listener.wait_for("listening to tenant_demo")
            done = subprocess.run(publish, shell=True, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=DEADLINE)
            assert done.returncode == 0 and "published invoice.created to tenant_demo, offset " in done.stdout
            assert EVENT in listener.wait_for("invoice.created")
            assert listener.end(None) == 0
        assert len(shlex.split(listen)) <= 5

    def test_its_secret_is_for_its_owner_and_its_url_is_loopback(self, demo: tuple[Path, Process]) -> None:
        folder, process = demo
        assert (folder / ".aibos-realtime" / "secret").stat().st_mode & 0o777 == 0o600
        assert re.search(r"address +ws://127\.0\.0\.1:\d+", process.output)
        secret = (folder / ".aibos-realtime" / "secret").read_text().strip()
        assert secret not in process.output
        printed = process.wait_for("token    ").split()[-1]
        assert jwt.decode(printed, secret, algorithms=["HS256"])["tenant_id"] == "demo"

    def test_its_room_has_a_past(self, demo: tuple[Path, Process]) -> None:
        done = run(demo[0], "listen", "tenant_demo", "--rewind", "100", "--count", "3", "--json")
        events = read_json(done.stdout.splitlines())
        assert [(one["event"], one["offset"]) for one in events] == [("invoice.created", 1), ("bill.updated", 2), ("payment.processed", 3)]
        assert set(events[0]) == {"room", "event", "offset", "epoch", "id", "data", "timestamp"}

    def test_a_second_demo_says_that_the_port_is_taken_and_disturbs_nothing(self, demo: tuple[Path, Process]) -> None:
        folder, process = demo
        port = process.wait_for("address").rpartition(":")[2]
        done = run(folder, "serve", "--demo", "--port", port)
        assert done.returncode == ExitCode.FAILED and "is taken, perhaps by a server that runs already" in done.stderr
        assert run(folder, "publish", "tenant_demo", "a", "1").returncode == 0

    def test_it_ends_with_0_forgets_its_url_and_keeps_its_secret(self, tmp_path: Path) -> None:
        secrets = []
        for _ in range(2):
            with Server(tmp_path, "--demo", "--port", "0", "--log-format", "json") as process:
                facts = json.loads(process.wait_for('"token": '))
                assert facts["url"] == process.url
                assert process.end() == 0
            secrets.append((tmp_path / ".aibos-realtime" / "secret").read_text())
            assert not (tmp_path / ".aibos-realtime" / "url").exists()
        assert secrets[0] == secrets[1]


class TestMistakes:
    """Each ends with one sentence on stderr that says what to do, and its own exit code."""

    @pytest.mark.parametrize(
        ("words", "code", "says"),
        [
            (["publish", "tenant_other", "a", "1"], ExitCode.PERMISSION, "User demo (role user, tenant demo) may not publish to tenant_other"),
            (["listen", "tenant_other"], ExitCode.PERMISSION, "may not listen to tenant_other"),
            (["publish", "tenant_demo", "a", "1", "--token", "abc"], ExitCode.TOKEN, "did not accept the token (401)"),
            (["publish", "tenant_demo", "a", "12345678901234567890"], ExitCode.REFUSED, "an integer beyond"),
            (["publish", "tenant_demo", "a", "{"], ExitCode.DATA, "is not JSON"),
            (["publish", "tenant demo", "a", "1"], ExitCode.NAME, "room name is not valid"),
        ],
    )
    def test_one_sentence(self, demo: tuple[Path, Process], words: list[str], code: ExitCode, says: str) -> None:
        done = run(demo[0], *words)
        assert done.returncode == code and done.stdout == ""
        assert says in done.stderr and len(done.stderr.splitlines()) == 1

    def test_an_expired_token(self, demo: tuple[Path, Process]) -> None:
        secret = (demo[0] / ".aibos-realtime" / "secret").read_text().strip()
        now = time.time()
        expired = jwt.encode({"sub": "a", "tenant_id": "demo", "iat": now - 600, "exp": now - 300}, secret, algorithm="HS256")
        for words in (["publish", "tenant_demo", "a", "1"], ["listen", "tenant_demo"]):
            done = run(demo[0], *words, REALTIME_TOKEN=expired)
            assert done.returncode == ExitCode.TOKEN
            assert "It expired 5 min ago: make another one" in done.stderr and "REALTIME_TOKEN" in done.stderr
            assert expired not in done.stderr and not TOKEN.search(done.stderr)

    def test_an_id_used_twice(self, demo: tuple[Path, Process]) -> None:
        first = run(demo[0], "publish", "tenant_demo", "a", "1", "--id", "once", "--json")
        again = run(demo[0], "publish", "tenant_demo", "a", "1", "--id", "once", "--json")
        assert json.loads(again.stdout) == json.loads(first.stdout) | {"duplicate": True}
        other = run(demo[0], "publish", "tenant_demo", "a", "2", "--id", "once")
        assert other.returncode == ExitCode.REFUSED and "already used with other content" in other.stderr

    @pytest.mark.parametrize("words", [["publish", "tenant_1", "a", "1"], ["listen", "tenant_1"]])
    def test_no_server_there(self, tmp_path: Path, free_port: int, words: list[str]) -> None:
        done = run(tmp_path, *words, REALTIME_URL=f"ws://127.0.0.1:{free_port}", REALTIME_TOKEN="abc")
        assert done.returncode == ExitCode.NO_SERVER
        assert done.stderr == f"aibos-realtime: Nothing listens at 127.0.0.1:{free_port}: start the server, or check the host and the port.\n"

    def test_a_server_that_says_nothing(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"ws://127.0.0.1:{silent.getsockname()[1]}"
            done = run(tmp_path, "publish", "tenant_1", "a", "1", "--timeout", "0.3", "--url", url, "--token", "abc")
        assert done.returncode == ExitCode.NO_SERVER and "did not answer within 0.3 seconds" in done.stderr

    def test_a_host_that_is_not_of_this_machine(self, tmp_path: Path) -> None:
        done = run(tmp_path, "serve", "--host", "203.0.113.7", "--port", "0", JWT_SECRET=SECRET)
        assert done.returncode == ExitCode.FAILED and "203.0.113.7 is no address of this machine" in done.stderr


class TestServing:
    def test_a_server_of_ones_own(self, tmp_path: Path) -> None:
        (tmp_path / "ours.py").write_text(OURS)
        with Server(tmp_path, "ours:server", "--port", "0") as server:
            done = run(tmp_path, "publish", "tenant_1", "a", "1", "--url", server.url, "--token", token(tmp_path))
            assert done.returncode == 0
            assert server.end(signal.SIGTERM) == 0
            assert server.lines == []

    def test_an_app_with_a_server_mounted_in_it(self, tmp_path: Path) -> None:
        (tmp_path / "ours.py").write_text(APP)
        with Server(tmp_path, "ours:app", "--port", "0") as server:
            http = server.url.replace("ws", "http", 1)
            with urllib.request.urlopen(f"{http}/invoices", timeout=DEADLINE) as answer:
                assert json.load(answer) == ["inv_001"]
            with urllib.request.urlopen(f"{http}/realtime/health", timeout=DEADLINE) as answer:
                assert json.load(answer) == {"status": "ok"}
            done = run(tmp_path, "publish", "tenant_1", "a", "1", "--url", f"{server.url}/realtime", "--token", token(tmp_path))
            assert done.returncode == 0
            assert server.end() == 0

    def test_the_process_is_the_server_and_configured_by_all_three(self, tmp_path: Path) -> None:
        (tmp_path / "realtime.toml").write_text('host = "203.0.113.7"\nport = 0\n[limits]\nfailed_authentications_per_minute = 100\n')
        (tmp_path / ".env").write_text("REALTIME_HOST=127.0.0.1\n")
        with Server(tmp_path, "--config", "realtime.toml", "--log-format", "json", JWT_SECRET=SECRET) as server:
            assert run(tmp_path, "listen", "tenant_1", "--url", server.url, "--token", "hunter2").returncode == ExitCode.TOKEN
            assert server.end() == 0
        records = read_json(server.error_lines)
        assert server.lines == []
        assert [record["message"] for record in records].count(LISTENING % server.url) == 1
        assert {record["process"] for record in records} == {server.pid}
        assert not any(record["logger"].startswith("uvicorn") for record in records)
        assert SECRET not in server.output and "hunter2" not in server.output

    def test_each_line_is_logged_once_and_a_failure_with_its_number(self, tmp_path: Path) -> None:
        (tmp_path / "ours.py").write_text(OURS)
        with Server(tmp_path, "ours:server", "--port", "0") as server:
            code = f"""
import asyncio, sys
from aibos_realtime import RealtimeClient, RealtimeError
async def ask():
    async with RealtimeClient({server.url!r}, token=sys.argv[1]) as client:
        try:
            await client.send_message("invoice.approve", {{"secret": "hunter2"}})
        except RealtimeError as error:
            print(error.code)
asyncio.run(ask())
"""
            words = [sys.executable, "-c", code, token(tmp_path)]
            done = subprocess.run(words, env=clean_environment(), capture_output=True, text=True, timeout=DEADLINE)
            assert done.stdout == "internal\n"
            server.wait_for("RuntimeError: inside")
            assert server.end() == 0
        assert server.output.count("ours: approving") == 1
        assert len([line for line in server.error_lines if "the handler of 'invoice.approve' failed" in line]) == 1
        assert "hunter2" not in server.output

    def test_an_application_that_logs_for_itself_is_left_to_it(self, tmp_path: Path) -> None:
        (tmp_path / "ours.py").write_text(
            f"{OURS}\nown = logging.StreamHandler()\nown.setFormatter(logging.Formatter('OWN %(message)s'))\nlogging.getLogger().addHandler(own)\n"
        )
        with Server(tmp_path, "ours:server", "--port", "0") as server:
            assert server.end() == 0
        assert server.error_lines == [f"OWN {LISTENING % server.url}"]


class TestListening:
    @pytest.mark.parametrize("store", ["sqlite:///realtime.db", "memory://"])
    def test_over_a_restart_of_the_server(self, tmp_path: Path, free_port: int, store: str) -> None:
        """With a store nothing is to be seen of it; without one the log is lost, and that is said."""
        forgets = store == "memory://"
        options = {"JWT_SECRET": SECRET, "REALTIME_PORT": str(free_port), "REALTIME_HOST": "127.0.0.1", "DATABASE_URL": store}
        user = {"REALTIME_URL": f"ws://127.0.0.1:{free_port}", "REALTIME_TOKEN": token(tmp_path)}
        with Server(tmp_path, **options) as first, Process(tmp_path, "listen", "tenant_1", "--json", **user) as listener:
            listener.wait_for("listening to tenant_1")
            assert run(tmp_path, "publish", "tenant_1", "a", "1", **user).returncode == 0
            listener.wait_for('"offset": 1')
            assert first.end() == 0
            listener.wait_for("connecting again")
            with Server(tmp_path, **options):
                listener.wait_for("connected again")
                if forgets:
                    listener.wait_for('"event": "resync"')
                assert run(tmp_path, "publish", "tenant_1", "b", "2", **user).returncode == 0
                listener.wait_for('"event": "b"')
                assert listener.end() == 0
        told = read_json(listener.lines)
        assert [one["event"] for one in told] == (["a", "resync", "b"] if forgets else ["a", "b"])
        assert {one["room"] for one in told} == {"tenant_1"}
        assert ("tenant_1: resynced. Events may be missing here" in listener.output) == forgets
        assert "Traceback" not in listener.output and user["REALTIME_TOKEN"] not in listener.output

    def test_a_token_that_is_good_no_more_ends_it(self, tmp_path: Path, free_port: int) -> None:
        options = {"REALTIME_PORT": str(free_port), "REALTIME_HOST": "127.0.0.1"}
        user = {"REALTIME_URL": f"ws://127.0.0.1:{free_port}", "REALTIME_TOKEN": token(tmp_path)}
        with Server(tmp_path, JWT_SECRET=SECRET, **options) as first, Process(tmp_path, "listen", "tenant_1", **user) as listener:
            listener.wait_for("listening to tenant_1")
            assert first.end() == 0
            with Server(tmp_path, JWT_SECRET=SECRET[::-1], **options):
                assert listener.end(None) == ExitCode.TOKEN
        assert "did not accept the token (401)" in listener.error_lines[-1]

    def test_who_comes_and_goes(self, tmp_path: Path) -> None:
        with Server(tmp_path, *LOOPBACK, JWT_SECRET=SECRET) as server:
            user = {"REALTIME_URL": server.url, "REALTIME_TOKEN": token(tmp_path)}
            with Process(tmp_path, "listen", "tenant_1", "--presence", **user) as listener:
                listener.wait_for("listening to")
                other = token(tmp_path, "--user", "user_2")
                with Process(tmp_path, "listen", "tenant_1", **user | {"REALTIME_TOKEN": other}) as second:
                    assert "user_2" in listener.wait_for("user.joined")
                    second.wait_for("listening to")
                    assert second.end() == 0
                assert "user_2" in listener.wait_for("user.left")
                assert listener.end(signal.SIGTERM) == 0
        assert "connecting again" not in listener.output and "Traceback" not in listener.output

    def test_nobody_reads_it_any_more(self, demo: tuple[Path, Process]) -> None:
        folder, _ = demo
        listen = f"{sys.executable} -m aibos_realtime listen tenant_demo"
        with Process(folder, shell=f"sh -c '{listen}; echo ended $? >&2' | head -n 1") as pair:
            pair.wait_for("listening to")
            for _ in range(2):
                assert run(folder, "publish", "tenant_demo", "a", "1").returncode == 0
            pair.wait_for("ended 0")
            pair.end(None)
        assert len(pair.lines) == 1 and "Error" not in pair.output


class TestTerminal:
    def look(self, folder: Path, *arguments: str, **variables: str) -> str:
        """What a command shows on a terminal of 40 columns."""
        near, far = pty.openpty()
        words = [sys.executable, "-m", "aibos_realtime", *arguments]
        environment = clean_environment(TERM="xterm-256color", COLUMNS="40", **variables)
        done = subprocess.Popen(words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=far, stderr=far)
        os.close(far)
        shown = b""
        try:
            while chunk := os.read(near, 65_536):
                shown += chunk
        except OSError:
            pass  # Linux says EIO where the other end is closed
        finally:
            os.close(near)
            done.wait(DEADLINE)
        return shown.decode().replace("\r\n", "\n")

    def test_colours_and_whole_lines(self, demo: tuple[Path, Process]) -> None:
        shown = self.look(demo[0], "listen", "tenant_demo", "--rewind", "100", "--count", "1")
        assert "\x1b[" in shown and '{"invoiceId": "inv_000", "amount": 2500, "currency": "USD"}' in shown
        assert "\x1b[" not in run(demo[0], "listen", "tenant_demo", "--rewind", "100", "--count", "1").stdout

    def test_a_token_is_one_line_without_colours(self, demo: tuple[Path, Process]) -> None:
        assert re.fullmatch(r"[\w.-]+\n", self.look(demo[0], "token", "--demo"))

    def test_colours_can_be_switched_off(self, demo: tuple[Path, Process]) -> None:
        assert "\x1b[3" not in self.look(demo[0], "check", JWT_SECRET=SECRET, REALTIME_PORT="0", NO_COLOR="1")
